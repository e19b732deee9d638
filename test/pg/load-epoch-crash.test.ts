/**
 * Goal: an epoch ends right after a crash at any point. Method: the connection is cut at each statement in turn, and all is done again.
 */
import type pg from 'pg';
import { describe, expect, test } from 'vitest';
import type { Target, TargetStream } from '../../lib/ports.ts';
import { onLoaderServer, rowsOf, streamOf, synchronise, targetOn } from '../support/loading.ts';
import type { TestPostgres } from '../support/postgres.ts';
import { type Line, shapeOf } from '../support/segments.ts';

let server: TestPostgres;
let client: pg.Client;

onLoaderServer((opened) => {
  ({ server, client } = opened);
});

const SHAPE = shapeOf({ id: 'int4', a: 'text' }, ['id']);
let tables = 0;
const freshStream = (): TargetStream => streamOf({ schema: 'epoch', table: `t${++tables}` });

const rowOf = (target: Target, stream: TargetStream) => target.transaction(stream, (tx) => Promise.resolve(tx.row));

/** What is left of an epoch that should be over: plans of the stream, and shadow tables that no plan knows. */
async function leftovers({ stream }: TargetStream): Promise<string[]> {
  const { rows } = await client.query<{ name: string }>(
    `SELECT plan AS name FROM _sluice.plans WHERE stream = $1 UNION ALL
     SELECT relname FROM pg_class WHERE relname LIKE '\\_sluice\\_shadow%' AND relkind = 'r' AND relname NOT IN (SELECT shadow FROM _sluice.plans WHERE shadow IS NOT NULL)`,
    [stream],
  );
  return rows.map(({ name }) => name);
}

describe('a crash at any statement', () => {
  /** Cuts the connection at the `nth` statement of all that a target sends: before it goes out, or when its answer is on the way. */
  function cutAt(nth: number, when: 'before' | 'after') {
    let seen = 0;
    const onClient = (opened: pg.Client): void => {
      const query = opened.query.bind(opened) as (...args: unknown[]) => unknown;
      opened.query = ((...args: unknown[]) => {
        if (seen++ !== nth) return query(...args);
        if (when === 'before') opened.connection.stream.destroy();
        const answer = query(...args);
        if (when === 'after' && answer instanceof Promise) {
          return answer.then(() => {
            opened.connection.stream.destroy();
            throw Object.assign(new Error('read'), { code: 'ECONNRESET' });
          });
        }
        return answer;
      }) as pg.Client['query'];
    };
    return { onClient, wasCut: () => seen > nth };
  }

  const STATEMENTS_MAX = 90;
  const SIDE_BY_SIDE = 6;

  const PLAIN = { shape: SHAPE, level: 0, of: (text: string): string[] => [text] };
  /** Beside the json its key's column, which the shadow gets when its rows are in. */
  const JSON_SHAPE = shapeOf({ id: 'int4', a: 'json' }, ['id']);
  const FLATTENED = { shape: JSON_SHAPE, level: 1, of: (text: string): string[] => [`{"k":"${text}"}`, text] };

  test.each([
    { when: 'before', ...PLAIN },
    { when: 'after', ...PLAIN },
    { when: 'before', ...FLATTENED },
    { when: 'after', ...FLATTENED },
  ] as const)(
    'cut $when it: doing it all again ends right, data_flattening_max_level: $level',
    async ({ when, shape, level, of }) => {
      const options = { data_flattening_max_level: level };
      const line = (id: string, text: string): Line => [id, of(text)[0] ?? ''];
      const whole = targetOn(server, options);
      /** One reset of its own table, cut at its `nth` statement and then done again. */
      const crashAt = async (nth: number): Promise<{ stream: TargetStream; crashed: boolean; wasCut: boolean }> => {
        const stream = freshStream();
        await synchronise(whole, stream, shape, [[line('1', 'old'), line('9', 'old')]]);
        const { onClient, wasCut } = cutAt(nth, when);
        const reset = { number: 2, kind: 'reset', plan: 'again', held_cut: 20 } as const;
        const chunks: Line[][] = [[line('1', 'new')], [line('2', 'new')]];
        const crashed = await synchronise(
          targetOn(server, { ...options, onClient }),
          stream,
          shape,
          chunks,
          reset,
        ).then(
          () => false,
          () => true,
        );
        await synchronise(whole, stream, shape, chunks, reset);
        return { stream, crashed, wasCut: wasCut() };
      };
      let cuts = 0;
      for (let nth = 0; ; nth += SIDE_BY_SIDE) {
        expect(nth).toBeLessThan(STATEMENTS_MAX);
        const tried = await Promise.all(Array.from({ length: SIDE_BY_SIDE }, (_, i) => crashAt(nth + i)));
        for (const { stream } of tried) {
          expect(await rowsOf(client, stream.target)).toEqual([
            ['1', ...of('new')],
            ['2', ...of('new')],
          ]);
          expect(await rowOf(whole, stream)).toMatchObject({ hold: null, epoch: 2, applied_cut: 20, made: true });
        }
        cuts += tried.filter(({ crashed }) => crashed).length;
        if (tried.some(({ wasCut }) => !wasCut)) break;
      }
      expect(await leftovers(streamOf({ schema: 'epoch', table: 'none' }))).toEqual([]);
      expect(cuts).toBeGreaterThan(15);
    },
  );
});

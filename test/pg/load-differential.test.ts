/**
 * Theorem: a table to which random changes are applied as folded segments is equal to a table to which PostgreSQL applied the same changes one by
 * one; in soft mode its rows that are not marked are, and the marked ones are the deleted keys with their last values.
 *
 * Method: changes (insert, update of some columns, delete, change of key with and without the value of a column that the log leaves out, TRUNCATE)
 * run as plain SQL on an oracle table, and are folded here, by a fold that is nothing but the contract of lib/stage/segment.ts. Then the table is
 * synchronised anew by chunks that were read at different times, and the chain is applied from a cut before all of them: the table is equal
 * again, when what the loader is in doubt of has been read again (load-doubts.test.ts has more of that). The seed is in the name; FC_SEED replays it.
 */
import type pg from 'pg';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { lsnOf } from '../../lib/lsn.ts';
import type { DoubtfulKeys } from '../../lib/ports/target.ts';
import {
  applyCut,
  CHUNKS_LSN,
  chunkOf,
  epochOf,
  HELD_LSN,
  INCARNATION,
  rowsOf,
  streamOf,
  synchronise,
  targetOn,
} from '../support/loading.ts';
import { startPostgres, type TestPostgres } from '../support/postgres.ts';
import { seededBelow } from '../support/seeded.ts';
import { type BlockOf, type Line, type SegmentOf, segmentOf, shapeOf, type Value } from '../support/segments.ts';

let server: TestPostgres;
let client: pg.Client;

beforeAll(async () => {
  server = await startPostgres();
  client = await server.connect();
  await client.query('CREATE SCHEMA oracle');
});
afterAll(async () => {
  await server.stop();
});

/** Two columns of key; `a` is always in the log, `big` only when it changes (I7). */
const SHAPE = shapeOf({ x: 'text', y: 'int4', a: 'text', big: 'text' }, ['x', 'y']);
const VALUES: Value[] = ['', null, 'v', '\\N', 'a\tb', 'line\nline', "it's", 'ünï'];
const KEYS_X = ['', 'a', 'a,b', '\\'];
const KEYS_Y = ['1', '2', '3', '4', '5'];

type Key = readonly [x: string, y: string];
interface Fields {
  a: Value;
  /** Undefined: the log has left it out. */
  big: Value | undefined;
}

/** One share of a cut, folded by key. A change that needs the target's row as it is after what is here begins another share. */
class Share {
  rows = new Map<string, { key: Key; fields: Fields }>();
  deletes = new Map<string, Key>();
  rekeys: { from: Key; to: Key; a: Value }[] = [];
  touched = new Set<string>();
  #soft: boolean;

  constructor(soft: boolean) {
    this.#soft = soft;
  }

  put(key: Key, fields: Fields): void {
    const id = JSON.stringify(key);
    const before = this.rows.get(id)?.fields;
    this.rows.set(id, { key, fields: fields.big === undefined && before ? { a: fields.a, big: before.big } : fields });
    this.deletes.delete(id);
    this.touched.add(id);
  }

  delete(key: Key): void {
    const id = JSON.stringify(key);
    if (!this.#soft) this.rows.delete(id);
    this.deletes.set(id, key);
    this.touched.add(id);
  }

  /** False: not in this share. */
  move(from: Key, to: Key, fields: Fields): boolean {
    const old = this.rows.get(JSON.stringify(from))?.fields;
    if (fields.big === undefined && old?.big === undefined) {
      if (this.touched.has(JSON.stringify(from)) || this.touched.has(JSON.stringify(to))) return false;
      this.rekeys.push({ from, to, a: fields.a });
      this.touched.add(JSON.stringify(to));
      this.delete(from);
      return true;
    }
    const whole = { a: fields.a, big: fields.big === undefined ? old?.big : fields.big };
    this.delete(from);
    this.put(to, whole);
    return true;
  }

  segment(deleted_at: string): SegmentOf {
    const rows = [...this.rows.values()];
    const blocks: BlockOf[] = [
      {
        kind: 'rekey',
        columns: ['x', 'y', 'a'],
        lines: this.rekeys.map(({ from, to, a }): Line => [...from, ...to, a]),
      },
      { kind: 'delete', lines: [...this.deletes.values()].map((key): Line => [...key, deleted_at]) },
      {
        kind: 'upsert',
        lines: rows.flatMap(({ key, fields: { a, big } }): Line[] => (big === undefined ? [] : [[...key, a, big]])),
      },
      {
        kind: 'update',
        columns: ['x', 'y', 'a'],
        lines: rows.flatMap(({ key, fields: { a, big } }): Line[] => (big === undefined ? [[...key, a]] : [])),
      },
    ];
    return { shape: SHAPE, blocks: blocks.filter(({ lines }) => lines.length > 0) };
  }
}

const CUTS = 12;
const CHANGES_PER_CUT = 25;
const SEEDS = 4;
const firstSeed = Number(process.env.FC_SEED ?? Date.now() % 1_000_000);

test.each(
  Array.from({ length: SEEDS }, (_, i) => firstSeed + i).flatMap((seed) => [
    { seed, soft: false },
    { seed, soft: true },
  ]),
)('FC_SEED=$seed soft=$soft', async ({ seed, soft }) => {
  const random = seededBelow(seed);
  const pick = <T>(of: readonly T[]): T => of[random(of.length)] as T;
  const oracle = { schema: 'oracle', table: `t${seed}_${soft}` };
  const stream = streamOf({ schema: 'differential', table: oracle.table });
  const target = targetOn(server, soft ? { hard_delete: false, add_metadata_columns: true } : { hard_delete: true });
  await synchronise(target, stream, SHAPE, [[]]);
  await client.query(`CREATE TABLE oracle.${oracle.table} (x text, y int, a text, big text, PRIMARY KEY (x, y))`);

  /** Rows that are there, as the source has them; and, for soft mode, the last values of those that are not. */
  const live = new Map<string, { key: Key; a: Value; big: Value }>();
  const dead = new Map<string, Line>();
  const run = async (sql: string, values: readonly Value[]): Promise<void> => {
    await client.query(sql.replaceAll('T!', `oracle.${oracle.table}`), [...values]);
  };
  const bury = (row: { key: Key; a: Value; big: Value }): void => {
    live.delete(JSON.stringify(row.key));
    dead.set(JSON.stringify(row.key), [...row.key, row.a, row.big]);
  };
  const raise = (row: { key: Key; a: Value; big: Value }): void => {
    live.set(JSON.stringify(row.key), row);
    dead.delete(JSON.stringify(row.key));
  };

  const chain: SegmentOf[][] = [];
  const states: Line[][] = [[]];
  for (let cut = 0; cut < CUTS; cut++) {
    const deleted_at = `2026-01-01 00:00:${String(cut).padStart(2, '0')}+00`;
    let share = new Share(soft);
    const segments: SegmentOf[] = [];
    const close = (): void => {
      segments.push(share.segment(deleted_at));
      share = new Share(soft);
    };
    for (let change = 0; change < CHANGES_PER_CUT; change++) {
      const key: Key = [pick(KEYS_X), pick(KEYS_Y)];
      const row = live.get(JSON.stringify(key));
      const [a, big] = [pick(VALUES), pick(VALUES)];
      if (!row) {
        if (random(3) > 0) continue;
        await run('INSERT INTO T! VALUES ($1, $2, $3, $4)', [...key, a, big]);
        raise({ key, a, big });
        share.put(key, { a, big });
        continue;
      }
      const to: Key = [pick(KEYS_X), pick(KEYS_Y)];
      const free = !live.has(JSON.stringify(to));
      switch (random(free ? 12 : 4)) {
        case 0:
          await run('DELETE FROM T! WHERE (x, y) = ($1, $2::int)', key);
          bury(row);
          share.delete(key);
          break;
        case 1:
          await run('UPDATE T! SET a = $3, big = $4 WHERE (x, y) = ($1, $2::int)', [...key, a, big]);
          raise({ key, a, big });
          share.put(key, { a, big });
          break;
        case 2:
        case 3:
          await run('UPDATE T! SET a = $3 WHERE (x, y) = ($1, $2::int)', [...key, a]);
          raise({ key, a, big: row.big });
          share.put(key, { a, big: undefined });
          break;
        default: {
          await run('UPDATE T! SET x = $3, y = $4, a = $5 WHERE (x, y) = ($1, $2::int)', [...key, ...to, a]);
          bury(row);
          raise({ key: to, a, big: row.big });
          // Whether the log has the value is PostgreSQL's business: both must come out the same.
          const fields = { a, big: random(5) === 0 ? row.big : undefined };
          if (!share.move(key, to, fields)) {
            close();
            expect(share.move(key, to, fields)).toBe(true);
          }
        }
      }
    }
    if (random(5) === 0) {
      await run('TRUNCATE T!', []);
      for (const row of Array.from(live.values())) bury(row);
      close();
      segments.push({ shape: SHAPE, operation: 'truncate' });
    }
    close();
    chain.push(segments);
    await applyCut(target, stream, segments.map(segmentOf));

    await expectEqual(true);
    states.push(await rowsOf(client, oracle));
  }
  // Each part of the keys is read by a chunk, as the table was after some cut past the held one.
  const held = random(CUTS);
  const reads = KEYS_X.map((x) => ({ x, after: held + random(CUTS - held + 1) }));
  const newest = Math.max(...reads.map(({ after }) => after));
  const chunks = reads.map(({ x, after }) => states[after]?.filter((line) => line[0] === x) ?? []);
  await synchronise(target, stream, SHAPE, chunks, { number: 2, kind: 'reset', plan: 'again', held_cut: held });
  await catchUp(held, newest);
  await expectEqual(false);

  /** What is in doubt is read again, as the table was then or later. */
  async function catchUp(after: number, newestChunk: number): Promise<void> {
    let upTo = newestChunk;
    let number = 2;
    for (let cut = after; cut < CUTS; cut++) {
      const advance = async (segments: readonly SegmentOf[]) =>
        await target.transaction(stream, async (tx) => {
          for (const segment of segments) await tx.apply(segmentOf(segment));
          return await tx.advance({ cut: cut + 1, lsn: lsnOf(BigInt(cut + 1)), caught_up: cut + 1 >= upTo });
        });
      let doubtful = await advance(chain[cut] ?? []);
      while (doubtful !== null) {
        const again = cut + 1 + random(CUTS - cut);
        await readAgain(++number, doubtful, again);
        upTo = again;
        doubtful = await advance([]);
      }
    }
  }

  async function readAgain(number: number, { columns, keys }: DoubtfulKeys, after: number): Promise<void> {
    const asked = new Set((keys ?? []).map((key) => JSON.stringify(key)));
    const lines = (states[after] ?? []).filter(([x, y]) => asked.has(JSON.stringify([x, y])));
    const epoch = epochOf(stream, { number, kind: 'repair', plan: `repair-${number}` });
    const range = { by: 'keys', columns, keys: keys ?? [] } as const;
    await target.prepareEpoch(stream, epoch, epoch.plan ?? '', SHAPE, INCARNATION, false);
    const segment = segmentOf({ shape: SHAPE, blocks: [{ kind: 'upsert', lines, rows: null }] });
    await target.loadChunk(stream, epoch, chunkOf(epoch, 0, { range }), segment);
    await target.finishEpoch(stream, epoch, epoch.plan ?? '', CHUNKS_LSN, HELD_LSN);
  }

  /** Marked rows are compared only where nothing was replayed: a replay over newer rows may leave a marked row other last values. */
  async function expectEqual(andMarked: boolean): Promise<void> {
    const expected = (await rowsOf(client, oracle)).map((line) => JSON.stringify(line));
    const got = soft
      ? await rowsOf(client, stream.target, 'x, y, a, big, "_sdc_deleted_at" IS NOT NULL')
      : await rowsOf(client, stream.target);
    const alive = soft ? got.filter((line) => line[4] === 'f').map((line) => line.slice(0, 4)) : got;
    expect(alive.map((line) => JSON.stringify(line)).sort()).toEqual(expected.sort());
    if (!soft || !andMarked) return;
    const marked = got.filter((line) => line[4] === 't').map((line) => JSON.stringify(line.slice(0, 4)));
    expect(marked.sort()).toEqual([...dead.values()].map((line) => JSON.stringify(line)).sort());
  }
});

/** Status, resume and reset against a ledger on a real server. */
import { Readable } from 'node:stream';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { dynamoLedger } from '../../lib/ledger/dynamo.ts';
import { lsnOf } from '../../lib/lsn.ts';
import {
  appliedLagSeconds,
  type OperatePorts,
  requestResets,
  requestResync,
  resume,
  status,
} from '../../lib/operate.ts';
import type { ExtractBell, Halt, LoadBell } from '../../lib/ports.ts';
import { rejectedLine } from '../../lib/validation/rejected.ts';
import { rejectedCount } from '../../lib/validation/rejected-count.ts';
import { discardRejects, firstRejects, listRejects } from '../../lib/validation/rejects.ts';
import { startAws, type TestAws } from '../support/aws.ts';
import { aBookmark, aChunk, aCut, anEpoch, aReport, HandClock, keptLog, STAGED } from '../support/ledger-nouns.ts';

let aws: TestAws;
beforeAll(async () => {
  aws = await startAws();
});
afterAll(async () => {
  await aws[Symbol.asyncDispose]();
});

const HALT: Halt = { code: 'TARGET_REJECTS', message: 'm', remedy: 'r', cut: 2, at_ms: 0, must_reset: false };
const named = (table: string) => ({
  stream: `public.${table}-id`,
  table: { schema: 'public', table },
  target: { schema: 'dwh', table },
});

describe('a person', () => {
  let pipelines = 0;
  let ports: OperatePorts & { readonly load: LoadBell[]; readonly extract: ExtractBell[]; readonly clock: HandClock };
  beforeEach(async () => {
    pipelines += 1;
    const clock = new HandClock();
    clock.now_ms = 60_000;
    const ledger = dynamoLedger({ client: aws.dynamo, table: aws.table, pipeline: `p${pipelines}`, clock });
    const load: LoadBell[] = [];
    const extract: ExtractBell[] = [];
    const doorbell = {
      ringLoad: (bells: readonly LoadBell[]) => Promise.resolve(void load.push(...bells)),
      ringExtract: (bells: readonly ExtractBell[]) => Promise.resolve(void extract.push(...bells)),
    };
    ports = { clock, ledger, doorbell, log: keptLog(), load, extract };
    // GIVEN a chain of three cuts, a stream that is live and behind, one that is halted, one in its first sync.
    for (const number of [1, 2, 3]) {
      await ledger.append(
        aCut({
          number,
          begin_lsn: lsnOf(BigInt(number) * 100n),
          end_lsn: lsnOf(BigInt(number) * 100n + 100n),
          committed_at_ms: number * 10_000,
          streams: { [named('live').stream]: { changes: 1, text_bytes: 1 } },
        }),
      );
    }
    await ledger.addBookmark(
      aBookmark({ ...named('live'), state: 'live', applied_cut: 1, applied_lsn: lsnOf(200n), applied_at_ms: 5 }),
    );
    await ledger.addBookmark(aBookmark({ ...named('halted'), state: 'live', halt: HALT, applied_cut: 1 }));
    await ledger.addBookmark(aBookmark(named('copied')));
    const { stream } = named('copied');
    await ledger.openEpoch(anEpoch({ stream }));
    await ledger.updateEpoch(
      anEpoch({ stream, state: 'planned', plan: 'plan-1', chunks: 3, rows_estimate: 9 }),
      'opened',
    );
    await ledger.saveChunks([0, 1, 2].map((number) => aChunk({ stream, number })));
    await ledger.stageChunk(aChunk({ stream, number: 0, staged: STAGED }));
    await ledger.stageChunk(aChunk({ stream, number: 1, staged: STAGED }));
    await ledger.markChunkLoaded(aChunk({ stream, number: 0 }));
    await ledger.saveReport(aReport());
  });

  test('is told how many rows were left out (target.on_invalid: reject), and sees the first of them', async () => {
    const { ledger } = ports;
    const { stream } = named('live');
    const line = (id: number) => {
      const key = { columns: ['id'], values: [String(id)] };
      const faults = [{ column: 'n', keyword: 'minimum', wants: 'must be >= 0' }];
      return rejectedLine({ stream, operation: 'copy', key, committed_at: null, faults, row: { id: String(id) } }).text;
    };
    const object = Buffer.concat(Array.from({ length: 150 }, (_, id) => line(id)));
    const reject = { stream, object: 'o', object_bytes: object.length, cut: 2, epoch: null, rejected_at_ms: 7 };
    await ledger.addReject({ ...reject, id: 'cut-2', rows: 1 });
    await ledger.addReject({ ...reject, id: 'cut-2', rows: 150 });
    await ledger.addReject({ ...reject, stream: named('halted').stream, id: 'cut-2', rows: 3 });
    expect((await status(ports, 'shop')).streams.map(({ table, rejected_rows }) => [table, rejected_rows])).toEqual([
      ['public.copied', 0],
      ['public.halted', 3],
      ['public.live', 150],
    ]);
    expect(await rejectedCount(ledger)).toBe(153);
    expect(await listRejects(ledger)).toMatchObject([{ table: 'public.halted' }, { table: 'public.live', rows: 150 }]);
    const stage = { read: () => Promise.resolve(Readable.from([object])) };
    const { rows, more } = await firstRejects({ ledger, stage }, 'public.live');
    expect([rows.length, more, rows[99]?.key.values]).toEqual([100, true, ['99']]);
    expect(await discardRejects(ports, 'public.*')).toMatchObject([{ rows: 0 }, { rows: 3 }, { rows: 150 }]);
    expect(await ledger.rejects(null)).toEqual([]);
  });

  test('sees how every stream stands, ready for JSON', async () => {
    const seen = await status(ports, 'shop');
    expect(JSON.parse(JSON.stringify(seen))).toEqual(seen);
    expect(seen).toMatchObject({
      pipeline: 'shop',
      at: '1970-01-01T00:01:00.000Z',
      head: { cut: 3, lsn: '0/190', committed_at: '1970-01-01T00:00:30.000Z' },
      reports: [{ run: 'run-1', begin_lsn: '0/1', end_lsn: '0/2', source_lsn: null, stopped_by: 'end_lsn' }],
      streams: [
        {
          table: 'public.copied',
          target: 'dwh.copied',
          state: 'captured',
          lag: null,
          applied_at: null,
          epoch: {
            number: 1,
            kind: 'first_sync',
            state: 'planned',
            chunks: 3,
            chunks_staged: 2,
            chunks_loaded: 1,
            rows_staged: 6,
            rows_loaded: 3,
            rows_estimate: 9,
          },
        },
        {
          table: 'public.halted',
          state: 'halted',
          halt: { code: 'TARGET_REJECTS', cut: 2, at: '1970-01-01T00:00:00.000Z' },
          lag: { cuts: 0 },
          epoch: null,
        },
        {
          table: 'public.live',
          state: 'live',
          halt: null,
          lag: { cuts: 2, bytes: 200, seconds: 40 },
          applied_lsn: '0/C8',
        },
      ],
    });
  });

  test('sees an empty ledger as one', async () => {
    const ledger = dynamoLedger({ client: aws.dynamo, table: aws.table, pipeline: 'empty', clock: ports.clock });
    expect(await status({ ...ports, ledger }, 'empty')).toMatchObject({ head: null, streams: [], reports: [] });
    expect(await appliedLagSeconds({ ...ports, ledger })).toBeNull();
  });

  test('is told the lag of the live stream that is furthest behind', async () => {
    expect(await appliedLagSeconds(ports)).toBe(40);
    await ports.ledger.updateBookmark(named('live').stream, { applied_cut: 3 });
    expect(await appliedLagSeconds(ports)).toBe(0);
  });

  test('resumes what is halted, by its name, and it is rung for', async () => {
    const { stream } = named('halted');
    expect(await resume(ports, 'public.halted')).toEqual([{ stream, table: 'public.halted', resumed: true }]);
    expect((await ports.ledger.bookmark(stream))?.halt).toBeNull();
    expect(ports.load).toEqual([{ kind: 'cuts', stream, cut: 3 }]);
    // It is rung for once more: on a target that was restored, nobody else might.
    expect(await resume(ports, stream)).toMatchObject([{ resumed: false }]);
    expect(ports.load).toEqual([
      { kind: 'cuts', stream, cut: 3 },
      { kind: 'cuts', stream, cut: 3 },
    ]);
  });

  test('resumes a first sync with what it still lacks', async () => {
    const { stream } = named('copied');
    await ports.ledger.updateBookmark(stream, { halt: HALT, state: 'syncing' });
    await resume(ports, '*.*');
    expect(ports.extract).toEqual([{ kind: 'chunk', stream, epoch: 1, plan: 'plan-1', chunk: 2 }]);
    expect(ports.load).toContainEqual({ kind: 'chunk', stream, epoch: 1, plan: 'plan-1', chunk: 1 });
  });

  test('cannot resume a stream whose changes were passed over, nor anything beside it', async () => {
    const { stream } = named('live');
    await ports.ledger.updateBookmark(stream, { halt: { ...HALT, must_reset: true } });
    await expect(resume(ports, 'public.*')).rejects.toMatchObject({
      code: 'USAGE',
      remedy: expect.stringContaining('--reset'),
    });
    expect((await ports.ledger.bookmark(named('halted').stream))?.halt).toEqual(HALT);
    expect(ports.load).toEqual([]);
  });

  test('is told to resync where all have lost their position, and asks for that once for all', async () => {
    const lost = { ...HALT, code: 'SLOT_LOST', must_reset: true };
    await expect(requestResync(ports)).rejects.toMatchObject({ code: 'USAGE' });
    for (const table of ['live', 'halted']) await ports.ledger.updateBookmark(named(table).stream, { halt: lost });
    await ports.ledger.addBookmark(aBookmark({ ...named('by_query'), method: 'FULL_TABLE' }));
    await expect(resume(ports, 'public.live')).rejects.toMatchObject({
      code: 'USAGE',
      remedy: expect.stringContaining('sluice resume --resync'),
    });
    expect((await requestResync(ports)).map(({ table }) => table)).toEqual([
      'public.copied',
      'public.halted',
      'public.live',
    ]);
    const bookmarks = new Map((await ports.ledger.bookmarks()).map((bookmark) => [bookmark.table.table, bookmark]));
    expect(bookmarks.get('live')).toMatchObject({ resync_requested: true, halt: lost });
    expect(bookmarks.get('by_query')?.resync_requested ?? false).toBe(false);
    expect(ports.load).toEqual([]);
  });

  test('asks for resets of all that is named, once each', async () => {
    const reset = await requestResets(ports, ['public.live', 'public.l*', 'public.halted']);
    expect(reset.map(({ table }) => table)).toEqual(['public.live', 'public.halted']);
    const asked = (await ports.ledger.bookmarks()).filter((bookmark) => bookmark.reset_requested);
    expect(asked.map(({ table }) => table.table)).toEqual(['halted', 'live']);
  });

  test('is told the nearest name, and nothing is changed', async () => {
    await expect(requestResets(ports, ['public.live', 'public.halte'])).rejects.toMatchObject({
      code: 'USAGE',
      remedy: 'Did you mean public.halted?',
    });
    expect((await ports.ledger.bookmarks()).some((bookmark) => bookmark.reset_requested)).toBe(false);
  });
});

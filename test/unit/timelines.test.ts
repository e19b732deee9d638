/** Whether what had been read is in the log of a source that was promoted: by its history, never by the slot alone. */
import { describe, expect, test } from 'vitest';
import { SluiceError } from '../../lib/errors.ts';
import { type Lsn, lsnOf, parseLsn } from '../../lib/lsn.ts';
import { endOfTimeline, timelineFault } from '../../lib/slot/timelines.ts';
import { idOf, MemoryPipeline } from '../support/memory-pipeline.ts';

// https://www.postgresql.org/docs/current/continuous-archiving.html#BACKUP-TIMELINES: written by src/backend/access/transam/timeline.c.
const HISTORY =
  '1\t0/3008BA0\tno recovery target specified\n\n# somebody’s remark\n3\t16/B374D848\tbefore 2026-11-20 10:00:00+00\n';

describe('the history of a timeline', () => {
  test.each([
    [1, '0/3008BA0'],
    [3, '16/B374D848'],
    [2, null],
    [4, null],
  ])('says where timeline %i ended: %s', (timeline, lsn) => {
    expect(endOfTimeline(HISTORY, timeline)).toBe(lsn === null ? null : parseLsn(lsn));
  });
});

describe('a source that writes a later timeline', () => {
  const at = (lsn: number): Lsn => lsnOf(BigInt(lsn));
  const faultOf = async (timelineEnd: ((timeline: number, now: number) => Promise<Lsn | null>) | null) => {
    const source = timelineEnd === null ? {} : { timelineEnd };
    const fault = await timelineFault(source, { timeline: 3 }, { timeline: 1, end_lsn: at(100) });
    return fault === null ? null : `${fault.code}: ${fault.message}`;
  };

  test.each([
    ['ended where we stand', 100, null],
    ['ended later', 101, null],
    ['ended before', 99, /^CLUSTER_BEHIND: .*ended before 0\/64/],
  ] as const)('than one that %s', async (_how, ended, expected) => {
    const fault = await faultOf((timeline, now) => {
      expect([timeline, now]).toEqual([1, 3]);
      return Promise.resolve(at(ended));
    });
    if (expected === null) expect(fault).toBeNull();
    else expect(fault).toMatch(expected);
  });

  test('that nobody can trace back is another cluster, with the reason', async () => {
    expect(await faultOf(() => Promise.resolve(null))).toMatch(/^CLUSTER_CHANGED: .*timeline 3 does not come from it/);
    expect(await faultOf(null)).toMatch(/^CLUSTER_CHANGED: .*nobody can ask/);
    const refused = new SluiceError('REPLICATION_NOT_ALLOWED', { user: 'sluice' });
    expect(await faultOf(() => Promise.reject(refused))).toMatch(/^CLUSTER_CHANGED: .*sluice may not replicate/);
    const down = new SluiceError('SOURCE_TRANSIENT', { reason: 'it restarts', sqlstate: '57P01' });
    await expect(faultOf(() => Promise.reject(down))).rejects.toBe(down);
  });

  test('is asked once: the cuts from then on are of it', async () => {
    const p = new MemoryPipeline();
    p.database.makeTable('public.a');
    p.database.write({ table: 'public.a', put: { id: '1', v: 'a' } });
    await p.settle();
    const { end_lsn } = p.durable.chain.at(-1) ?? { end_lsn: lsnOf(0n) };
    p.database.timeline = 2;
    p.database.timeline_ends.set(1, lsnOf(end_lsn - 1n));
    expect((await p.window()).error).toMatchObject({ code: 'CLUSTER_BEHIND' });
    expect(p.durable.bookmarks.get(idOf('public.a'))?.halt).toMatchObject({ code: 'CLUSTER_BEHIND', must_reset: true });
  });

  test('that has all of it goes on by itself', async () => {
    const p = new MemoryPipeline();
    p.database.makeTable('public.a');
    p.database.write({ table: 'public.a', put: { id: '1', v: 'a' } });
    await p.settle();
    p.database.timeline_ends.set(1, p.database.lsn);
    p.database.timeline = 2;
    p.database.write({ table: 'public.a', put: { id: '2', v: 'b' } });
    expect((await p.window()).error).toBeNull();
    expect(p.durable.chain.at(-1)).toMatchObject({ timeline: 2 });
    p.database.timeline_ends.clear();
    expect((await p.window()).error).toBeNull();
  });
});

/** When a slot is at risk of being given up by the source; what the metrics of a window say of it. */
import { describe, expect, test } from 'vitest';
import { rememberGround, windowMetrics } from '../../functions/metrics.ts';
import { readFields, writeFields } from '../../lib/ledger/attributes.ts';
import { REPORT_FIELDS } from '../../lib/ledger/items.ts';
import { lsnOf } from '../../lib/lsn.ts';
import type { Ground, RunReport, SlotRow, Source } from '../../lib/ports.ts';
import { SAFE_WAL_BYTES_MIN, slotRoom } from '../../lib/slot/room.ts';
import { RunLog } from '../../lib/window/run-log.ts';

const GB = 1024 ** 3;

describe('a slot is at risk', () => {
  test.each([
    ['without a limit: never', 'extended', null, null, false],
    ['a large limit, and much is left', 'reserved', 100 * GB, 200 * GB, false],
    ['a large limit, and just enough is left', 'extended', SAFE_WAL_BYTES_MIN, 200 * GB, false],
    ['a large limit, and little is left', 'extended', SAFE_WAL_BYTES_MIN - 1, 200 * GB, true],
    ['a small limit, half of it is left', 'reserved', GB / 2, GB, false],
    ['a small limit, less than half of it is left', 'reserved', GB / 2 - 1, GB, true],
    ['a limit that is not known', 'reserved', GB, null, true],
    ['it lives until the next checkpoint', 'unreserved', -5, GB, true],
    ['it is lost', 'lost', null, GB, true],
  ] as const)('%s', (_how, wal_status, safe_wal_bytes, wal_limit_bytes, at_risk) => {
    const room = slotRoom({ wal_status, safe_wal_bytes, wal_limit_bytes, kept_wal_bytes: 7 });
    expect(room.at_risk).toBe(at_risk);
    expect(room.kept_wal_bytes).toBe(7);
    if (wal_status === 'lost' || wal_status === 'unreserved') expect(room.safe_wal_bytes).toBe(0);
    else expect(room.safe_wal_bytes).toBe(safe_wal_bytes);
  });
});

describe('the metrics of a window', () => {
  test('have the least that was left in it, and what is kept for a transaction that nobody has read', async () => {
    const looks = [300, 100, 200].map((safe_wal_bytes, i) => {
      const slot = { confirmed_lsn: lsnOf(900n), wal_status: 'extended', safe_wal_bytes, kept_wal_bytes: 1_000 * i };
      return { flush_lsn: lsnOf(1_000n), slot: slot as SlotRow } as Ground;
    });
    const look = () => Promise.resolve(looks.shift() as Ground);
    const { source, ground } = rememberGround({ look } as Source);
    expect(ground()).toBeNull();
    for (let i = 0; i < 3; i++) await source.look();
    expect(windowMetrics({ error: null }, ground())).toMatchObject({ safe_wal_bytes: 100, slot_lag_bytes: 2_000 });
  });
});

test('a report tells of it, and comes back from the ledger as it was', () => {
  const slot = { kept_wal_bytes: 7, safe_wal_bytes: null, at_risk: false };
  const report = new RunLog({ now: () => 5, sleep: () => Promise.resolve() }, 'run').report('end_lsn', null);
  const written = { ...report, slot };
  expect(readFields(REPORT_FIELDS, writeFields<RunReport>(REPORT_FIELDS, written))).toEqual(written);
});

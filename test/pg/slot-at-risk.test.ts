/** A small max_slot_wal_keep_size, and no window for long: doctor, the window's log, its report, `status` and the metric say so while the slot can still be read. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { statusPage } from '../../cli/view/status.ts';
import { rememberGround, windowMetrics } from '../../functions/metrics.ts';
import { doctor } from '../../lib/doctor/doctor.ts';
import { status } from '../../lib/operate.ts';
import { drain } from '../../lib/pipeline.ts';
import { type FreshLine, freshLine } from '../support/fresh-line.ts';
import { startPostgres, type TestPostgres } from '../support/postgres.ts';

const MB = 1024 * 1024;
const LIMIT_MB = 128;

let source: TestPostgres;
let target: TestPostgres;
beforeAll(async () => {
  [source, target] = await Promise.all([
    startPostgres({
      settings: { max_slot_wal_keep_size: `${LIMIT_MB}MB`, min_wal_size: '32MB', max_wal_size: '64MB' },
    }),
    startPostgres(),
  ]);
});
afterAll(async () => {
  await Promise.all([source.stop(), target.stop()]);
});

/** Of tables that are not followed. */
async function write({ from }: FreshLine, mb: number): Promise<void> {
  for (let i = 0; i < mb; i += 16) {
    await from.query("INSERT INTO other.filler SELECT repeat('x', 1000) FROM generate_series(1, 15000)");
    await from.query('TRUNCATE other.filler');
  }
  await from.query('CHECKPOINT');
}

async function slotOf({ from, line }: FreshLine): Promise<{ wal_status: string; safe: number } | undefined> {
  const { rows } = await from.query<{ wal_status: string; safe: number }>(
    'SELECT wal_status, safe_wal_size::float8 AS safe FROM pg_replication_slots WHERE slot_name = $1',
    [line.pipeline.source.replication_slot],
  );
  return rows[0];
}

const warned = ({ line }: FreshLine) => line.log.lines.filter(({ event }) => event === 'slot_at_risk');

async function found({ line, from, to }: FreshLine) {
  const connect = { source: () => source.connect(from.database), target: () => target.connect(to.database) };
  const chain = (await line.ledger.head()) ?? null;
  const findings = await doctor({
    pipeline: line.pipeline,
    chain,
    connect: { ...connect, replication: connect.source },
  });
  return findings.filter(({ check, severity }) => check === 'slot_wal' && severity === 'warning');
}

async function page({ line }: FreshLine): Promise<string> {
  const { clock, ledger } = line.ports();
  const paint = (_: string, text: string): string => text;
  const now_ms = clock.now();
  return statusPage({
    status: await status({ clock, ledger }, 'risk'),
    now_ms,
    running_pid: null,
    width: 200,
    paint,
  }).join('\n');
}

/** As functions/drain.ts does it; resolves with the metrics. */
async function windowOf({ line }: FreshLine) {
  const ports = line.ports();
  const { source: watched, ground } = rememberGround(ports.source);
  const now_ms = ports.clock.now();
  line.world.clock.now_ms += 120_000;
  const run = { run: `watched-${now_ms}`, owner: 'watched', lease_ms: 60_000, deadline_ms: now_ms + 60_000 };
  const report = await drain({ ...ports, source: watched }, line.pipeline, run);
  expect(report.error).toBeNull();
  return { report, metrics: windowMetrics(report, ground()) };
}

test('the warning comes before the slot is lost, and goes when windows run again', { timeout: 60_000 }, async () => {
  await using made = await freshLine(
    { source, target },
    'CREATE TABLE t (id int4 PRIMARY KEY); INSERT INTO t VALUES (1); CREATE SCHEMA other; CREATE TABLE other.filler (v text);',
    { tables: '[public.t]' },
  );
  await made.equal();
  await windowOf(made);
  expect(await found(made)).toEqual([]);
  expect(warned(made)).toEqual([]);
  expect(await page(made)).not.toContain('at risk');

  // GIVEN no window for some time, and more than half of what the slot may keep is written.
  await write(made, 80);
  const before = await slotOf(made);
  expect(before?.wal_status).not.toBe('lost');
  expect(before?.safe).toBeLessThan((LIMIT_MB / 2) * MB);
  expect(await found(made)).toEqual([
    expect.objectContaining({
      problem: expect.stringMatching(/can write \d+ MB more before it gives the slot up/),
      remedy: expect.stringContaining('max_slot_wal_keep_size'),
    }),
  ]);
  const { report, metrics } = await windowOf(made);
  expect(warned(made)).toHaveLength(1);
  expect(report.slot).toMatchObject({ at_risk: true });
  expect(report.slot?.safe_wal_bytes).toBeLessThanOrEqual(before?.safe ?? 0);
  // Looked at again in the window.
  expect(metrics.safe_wal_bytes).toBeLessThanOrEqual(report.slot?.safe_wal_bytes ?? 0);
  expect(metrics.slot_lag_bytes).toBeGreaterThan(50 * MB);
  expect(await page(made)).toMatch(/The slot is at risk\n\s+When a window began .* before it gives the slot up/);

  // Windows run: the slot has moved, and nobody warns any more. (What it keeps goes with the next checkpoint.)
  await made.from.query('INSERT INTO t VALUES (2); SELECT pg_log_standby_snapshot()');
  await windowOf(made);
  await made.from.query('SELECT pg_log_standby_snapshot()');
  await windowOf(made);
  await windowOf(made);
  expect((await windowOf(made)).report.slot).toMatchObject({ at_risk: false });
  expect(await found(made)).toEqual([]);
  expect(await page(made)).not.toContain('at risk');
  await made.equal();
});

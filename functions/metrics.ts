/**
 * What the functions report of a pipeline (lib/metrics.ts): gathered after the work and printed as one line. Failing to is logged, and fails nothing.
 */
import { asSluiceError } from '../lib/errors.ts';
import { lsnBytesBetween } from '../lib/lsn.ts';
import { type MetricValues, metricLine } from '../lib/metrics.ts';
import { appliedLagSeconds } from '../lib/operate.ts';
import type { Clock, Ground, Ledger, Log, RunReport, Source } from '../lib/ports.ts';
import { slotRoom } from '../lib/slot/room.ts';
import { rejectedCount } from '../lib/validation/rejected-count.ts';
import { printLine } from './clients.ts';

interface MetricPorts {
  readonly clock: Clock;
  readonly log: Log;
  readonly ledger: Ledger;
}

/** A source whose looks at the ground are remembered, so that a window's metrics ask for no other. */
export function rememberGround(source: Source): { readonly source: Source; readonly ground: () => Ground | null } {
  let ground: Ground | null = null;
  let safe_wal_bytes: number | null = null;
  const look = async () => {
    ground = await source.look();
    const safe = ground.slot?.safe_wal_bytes ?? null;
    if (safe !== null) safe_wal_bytes = Math.min(safe, safe_wal_bytes ?? safe);
    return ground;
  };
  // What was left when it was least, for the window that reads the slot makes room: the next gap will be as long as the last.
  return { source: { ...source, look }, ground: () => ground && leastSafe(ground, safe_wal_bytes) };
}

function leastSafe(ground: Ground, safe_wal_bytes: number | null): Ground {
  return ground.slot === null ? ground : { ...ground, slot: { ...ground.slot, safe_wal_bytes } };
}

/** What a window says of the slot and of itself. Pure. */
export function windowMetrics(report: Pick<RunReport, 'error' | 'unfinished'>, ground: Ground | null): MetricValues {
  const slot = ground?.slot ?? null;
  const lag_bytes = ground && slot ? lsnBytesBetween(slot.confirmed_lsn, ground.flush_lsn) : null;
  return {
    windows_succeeded: report.error === null ? 1 : 0,
    unfinished_windows: report.error === null ? (report.unfinished?.windows ?? 0) : null,
    slot_lag_bytes: slot?.kept_wal_bytes ?? lag_bytes,
    safe_wal_bytes: slot && slotRoom(slot).safe_wal_bytes,
  };
}

/** After a window; one that was skipped has nothing to report. */
export async function printWindow(
  ports: MetricPorts,
  pipeline: string,
  report: RunReport,
  ground: Ground | null,
): Promise<void> {
  if (report.stopped_by === 'skipped') return;
  await print(ports, pipeline, async () => ({
    ...windowMetrics(report, ground),
    applied_lag_seconds: await appliedLagSeconds(ports),
    rejected_rows: await rejectedCount(ports.ledger),
  }));
}

/** After a load that halted a stream, or found it halted. */
export async function printHalts(ports: MetricPorts, pipeline: string): Promise<void> {
  await print(ports, pipeline, () => Promise.resolve({}));
}

async function print(ports: MetricPorts, pipeline: string, values: () => Promise<MetricValues>): Promise<void> {
  try {
    const halted = (await ports.ledger.bookmarks()).filter(({ halt }) => halt !== null);
    printLine(metricLine({ ...(await values()), streams_halted: halted.length }, pipeline, ports.clock.now()));
  } catch (thrown) {
    ports.log.warn('metrics_not_printed', { error: asSluiceError(thrown) });
  }
}

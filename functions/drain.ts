/** One window, on a schedule: `{ kind: 'window', pipeline }`. Answers with its report; a window that failed is an answer too. */
import * as z from 'zod';
import { type ReportStatus, reportStatus } from '../lib/operate.ts';
import { drain } from '../lib/pipeline.ts';
import { clock, runtime } from './clients.ts';
import { deadlineOf, edge, mustBeFor } from './edge.ts';
import { printWindow, rememberGround } from './metrics.ts';
import { drainPorts } from './ports.ts';

/** To stage, record and confirm what is in hand, and to report. */
const MARGIN_MS = 30_000;

const windowEvent = z.strictObject({
  kind: z.literal('window'),
  pipeline: z.string(),
  /** Overrides the pipeline's. */
  break_at_end_lsn: z.boolean().optional(),
  /** Ring for everything that is outstanding, even if it was rung for a moment ago. */
  ring_all: z.boolean().optional(),
  /** Streams that are read by query have a run only if their last was opened before this time, ms since the Unix epoch. */
  runs_since_ms: z.int().nonnegative().optional(),
  /** Tables are loaded and read by query as if none had a schedule of its own. */
  ignore_schedules: z.boolean().optional(),
});

export const handler = edge('drain', windowEvent, async (event, context): Promise<ReportStatus> => {
  const shared = runtime();
  const { pipeline, environment } = shared;
  const ports = drainPorts(shared);
  mustBeFor(pipeline.pipeline, event);
  const { source, ground } = rememberGround(ports.source);
  const report = await drain({ ...ports, source }, pipeline, {
    run: context.awsRequestId,
    owner: `${context.functionName}/${context.awsRequestId}`,
    lease_ms: environment.SLUICE_LEASE_MS,
    deadline_ms: deadlineOf(context, MARGIN_MS, clock.now()),
    // The local engine takes the remaining time away when it is to stop.
    asked: () => context.getRemainingTimeInMillis() <= MARGIN_MS,
    ...(event.break_at_end_lsn !== undefined && { break_at_end_lsn: event.break_at_end_lsn }),
    ...(event.ring_all !== undefined && { ring_all: event.ring_all }),
    ...(event.runs_since_ms !== undefined && { runs_since_ms: event.runs_since_ms }),
    ...(event.ignore_schedules !== undefined && { ignore_schedules: event.ignore_schedules }),
  });
  await printWindow(ports, pipeline.pipeline, report, ground());
  return reportStatus(report);
});

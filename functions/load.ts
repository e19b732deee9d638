/** Answers the doorbells of the load queue: cuts, a chunk, the end of an epoch. */
import { parseLoadBell } from '../lib/ledger/bells.ts';
import { refusalsOf } from '../lib/load/quarantine.ts';
import { load } from '../lib/pipeline.ts';
import { clock, runtime } from './clients.ts';
import { answerDoorbells, doorbellEvent } from './doorbells.ts';
import { deadlineOf, edge } from './edge.ts';
import { printHalts } from './metrics.ts';
import { loadPorts } from './ports.ts';

/** For the cut that is being applied when time runs out: a killed load is rolled back, and its work done again. */
const MARGIN_MS = 60_000;

const OUTLASTS =
  'If it comes again and again, one step is longer than the function may run: sluice run --stack NAME -c FILE loads without its limit.';

export const handler = edge('load', doorbellEvent, async (event, context) => {
  const shared = runtime();
  const { pipeline, environment, sqs } = shared;
  const { consistency } = pipeline.target;
  const ports = loadPorts(shared);
  const refusals = refusalsOf(pipeline, shared.ports.newId);
  const name = pipeline.pipeline;
  const bells = { sqs, queue_url: environment.SLUICE_LOAD_QUEUE_URL, log: ports.log, random: Math.random };
  return await answerDoorbells(bells, event, async (body) => {
    const bell = parseLoadBell(name, body);
    const began_ms = clock.now();
    // One transaction of the source is one on the target (I3), however long it is: who is killed in it begins anew, and again.
    const late = setTimeout(
      () => ports.log.warn('load_outlasts_function', { bell: bell.kind, stream: bell.stream, remedy: OUTLASTS }),
      Math.max(0, deadlineOf(context, MARGIN_MS, began_ms) - began_ms),
    );
    const report = await load(ports, bell, {
      consistency,
      refusals,
      get deadline_ms() {
        return deadlineOf(context, MARGIN_MS, clock.now());
      },
    }).finally(() => clearTimeout(late));
    ports.log.info('loaded', { bell: bell.kind, ...report, seconds: (clock.now() - began_ms) / 1000 });
    if (report.outcome === 'halted') await printHalts(ports, name);
  });
});

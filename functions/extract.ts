/** Answers the doorbells of the extract queue: the plan of an epoch, or one of its chunks. */
import { parseExtractBell } from '../lib/ledger/bells.ts';
import { extract } from '../lib/pipeline.ts';
import { clock, runtime } from './clients.ts';
import { answerDoorbells, doorbellEvent } from './doorbells.ts';
import { edge } from './edge.ts';
import { printHalts } from './metrics.ts';
import { extractPorts } from './ports.ts';

export const handler = edge('extract', doorbellEvent, async (event) => {
  const shared = runtime();
  const { pipeline, environment, sqs } = shared;
  const ports = extractPorts(shared);
  const name = pipeline.pipeline;
  const bells = { sqs, queue_url: environment.SLUICE_EXTRACT_QUEUE_URL, log: ports.log, random: Math.random };
  return await answerDoorbells(bells, event, async (body) => {
    const bell = parseExtractBell(name, body);
    const began_ms = clock.now();
    const report = await extract(ports, pipeline, bell);
    ports.log.info('extracted', { bell: bell.kind, ...report, seconds: (clock.now() - began_ms) / 1000 });
    if (report.outcome === 'halted') await printHalts(ports, name);
  });
});

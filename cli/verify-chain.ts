/**
 * `sluice verify --chain`: the ledger from what the target has applied to where the slot stands, and the objects in the stage that are still needed. Changes nothing.
 */
import { streamRowOf, streamRowSql } from '../lib/load/control.ts';
import { targetFault } from '../lib/load/faults.ts';
import type { Bookmark, Ground } from '../lib/ports.ts';
import { closeClient } from '../lib/postgres/connection.ts';
import { sqlstateOf } from '../lib/postgres/faults.ts';
import { displayName } from '../lib/shape.ts';
import { postgresSource } from '../lib/slot/source.ts';
import { s3Stage } from '../lib/stage/s3.ts';
import { type ChainFindings, verifyChain } from '../lib/verify/chain.ts';
import { chainSlotFault } from '../lib/window/lost-slot.ts';
import { Ended } from './failure.ts';
import type { CliIo } from './io.ts';
import { readPipelineFile } from './pipeline-file.ts';
import { beside, type Place } from './place/beside.ts';
import { type Connections, connectionsTo } from './place/connect.ts';
import { Block, type Terminal } from './view/terminal.ts';
import { count, counted, printable } from './view/text.ts';

/** undefined_table: nothing was ever loaded. */
const NO_TABLE: ReadonlySet<string> = new Set(['42P01', '3F000']);

/** Throws Ended(1) where there are faults. */
export async function verifyChainCommand(place: Place, json: boolean, io: CliIo, terminal: Terminal): Promise<void> {
  const name = place.file.pipeline.pipeline;
  const block = terminal.isLive && !json ? new Block(terminal) : null;
  const found = await beside(place, async ({ backend, ports }) => {
    const { pipeline } = await readPipelineFile(backend.configPath);
    const connections = connectionsTo({ pipeline, config_path: backend.configPath, environment: backend.environment });
    const source = postgresSource({
      config: pipeline.source,
      connect: connections.source,
      openSlot: () => Promise.reject(new RangeError('the chain is looked at, and the slot not read')),
    });
    try {
      return await verifyChain({
        ledger: ports.ledger,
        stage: s3Stage({ client: backend.clients.s3, bucket: backend.resources.bucket, log: ports.log }),
        look: (): Promise<Ground> => source.look(),
        slotFault: (ground, head) => chainSlotFault(pipeline, ground, head),
        row: (bookmark) => rowOn(connections, name, bookmark),
        onProgress: ({ cut, to_cut }) => block?.draw([`cut ${count(cut)} of ${count(to_cut)}`]),
      });
    } finally {
      block?.clear();
    }
  });
  if (json) io.out(JSON.stringify({ pipeline: name, ...found }));
  else for (const line of chainPage(found)) io.out(line);
  if (found.fault_count > 0) throw new Ended(1);
}

async function rowOn(
  { target }: Connections,
  pipeline: string,
  { stream, table, target: name }: Bookmark,
): Promise<ReturnType<typeof streamRowOf>> {
  const client = await target();
  try {
    return streamRowOf(await client.query(streamRowSql({ pipeline, stream: { stream, target: name } }, '')));
  } catch (error) {
    if (NO_TABLE.has(sqlstateOf(error))) return null;
    throw targetFault(error, { stream, table: displayName(table), action: 'read _sluice.streams', server: null });
  } finally {
    await closeClient(client);
  }
}

/** A line of what was walked, and each fault with what to do. Pure. */
export function chainPage({
  from_cut,
  to_cut,
  slot_lsn,
  head_lsn,
  cuts,
  objects,
  segments,
  object_bytes,
  faults,
  fault_count,
}: ChainFindings): string[] {
  const walked = `cuts ${count(from_cut)} to ${count(to_cut)} (${counted(cuts, 'cut')}), ${counted(objects, 'object')} of ${count(object_bytes)} bytes in ${counted(segments, 'segment')}`;
  const places = `slot at ${slot_lsn ?? 'no place'}, chain to ${head_lsn}`;
  const told = faults.flatMap(({ code, subject, problem, remedy }) => [
    `${code} ${printable(subject)}: ${printable(problem)}`,
    `  → ${printable(remedy)}`,
  ]);
  const more = fault_count > faults.length ? [`and ${count(fault_count - faults.length)} more`] : [];
  const verdict = fault_count === 0 ? 'nothing is missing, nothing is damaged' : counted(fault_count, 'fault');
  return [...told, ...more, `${walked}; ${places}: ${verdict}`];
}

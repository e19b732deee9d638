/**
 * The ports of each function, over what all of them share: databases are reached here, and a function's bundle has the adapters of its own ports only.
 */
import { postgresComparer } from '../lib/epoch/comparer.ts';
import { postgresExtractor } from '../lib/epoch/extractor.ts';
import { postgresTarget } from '../lib/load/target.ts';
import type { DrainPorts, ExtractPorts, LoadPorts } from '../lib/pipeline.ts';
import type { Source, Target } from '../lib/ports.ts';
import { appendPublicationName } from '../lib/slot/append-publication.ts';
import { openPeekReader } from '../lib/slot/peek-reader.ts';
import { openSlotReader } from '../lib/slot/reader.ts';
import { postgresSource } from '../lib/slot/source.ts';
import type { SchemaCompiler } from '../lib/validation/compiler.ts';
import { sessionName } from '../lib/window/free-slot.ts';
import type { Runtime } from './clients.ts';

/** A file of its own, for those that validate. */
async function schemas(): Promise<SchemaCompiler> {
  return (await import('../lib/validation/ajv-compiler.ts')).ajvCompiler;
}

export function drainPorts(runtime: Runtime): DrainPorts {
  return { ...runtime.ports, mask_salt: runtime.mask_salt, schemas, source: sourceOf(runtime) };
}

export function extractPorts(runtime: Runtime): ExtractPorts {
  const { ports, pipeline, connector, mask_salt } = runtime;
  const { publication_name, use_secondary } = pipeline.source;
  const extractor = postgresExtractor({
    connect: () => connector.connect('source'),
    connectReplication: () => connector.connect('source', { replication: true }),
    publications: [publication_name, appendPublicationName(publication_name)],
    secondary: use_secondary
      ? { connect: () => connector.connect('source', { secondary: true }), clock: ports.clock }
      : null,
  });
  const comparer = postgresComparer({
    connectSource: () => connector.connect('source'),
    connectTarget: () => connector.connect('target'),
    pipeline,
  });
  return { ...ports, mask_salt, schemas, extractor, comparer, target: targetOf(runtime) };
}

export function loadPorts(runtime: Runtime): LoadPorts {
  return { ...runtime.ports, target: targetOf(runtime) };
}

function sourceOf({ pipeline, connector, ports }: Runtime): Source {
  const { source: config } = pipeline;
  return postgresSource({
    config,
    connect: () => connector.connect('source'),
    connectReplication: () => connector.connect('source', { replication: true }),
    openSlot: async (from, session, appends, tables) => {
      const application_name = sessionName(config.application_name, session);
      const read = {
        clock: ports.clock,
        slot: config.replication_slot,
        plugin: config.plugin,
        publication: config.publication_name,
        tables,
        append_publication: appends ? appendPublicationName(config.publication_name) : null,
        from,
      };
      if (config.slot_reader === 'peek') {
        return await openPeekReader({ ...read, connect: () => connector.connect('source', { application_name }) });
      }
      const client = await connector.connect('source', { replication: true, application_name });
      return await openSlotReader({ ...read, client, wal_sender_timeout_ms: config.wal_sender_timeout });
    },
  });
}

function targetOf({ pipeline, connector, ports }: Runtime): Target {
  return postgresTarget({
    connect: () => connector.connect('target'),
    pipeline: pipeline.pipeline,
    options: pipeline.target,
    clock: ports.clock,
    log: ports.log,
  });
}

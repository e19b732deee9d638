/**
 * An Extractor for one stream whose rows are checked (target.validate_records): lines of a chunk that are not valid end it, or are left out and lie in the stage
 * beside it, known to the ledger before the chunk is (I1). Other streams have their extractor as it is.
 */
import { pipeline as connected } from 'node:stream';
import type { Pipeline } from '../config/schema.ts';
import { withoutLsnColumn } from '../lsn-column.ts';
import type { ChunkRead, Clock, ExtractBell, Extractor, Ledger, Stage } from '../ports.ts';
import { tableShape } from '../slot/table-shape.ts';
import { compilerOf, type SchemaPort, schemaOf } from './checked-streams.ts';
import { CheckingLines } from './lines.ts';
import { keepRejects, RejectWriter } from './reject-writer.ts';
import { rejectedObject } from './rejected.ts';
import { StreamChecks } from './stream-checks.ts';

interface CheckPorts extends SchemaPort {
  readonly clock: Pick<Clock, 'now'>;
  readonly stage: Stage;
  readonly ledger: Pick<Ledger, 'addReject'>;
  readonly extractor: Extractor;
}

/** For one chunk. `object`: where the chunk will lie. Throws CONFIG_INVALID for a schema that cannot be. */
export async function checkedExtractor(
  ports: CheckPorts,
  pipeline: Pipeline,
  bell: ExtractBell & { readonly kind: 'chunk' },
  object: string,
): Promise<Extractor> {
  const { extractor, stage } = ports;
  const { validate_records, on_invalid } = pipeline.target;
  if (!validate_records) return extractor;
  const compiler = await compilerOf(ports);
  return {
    ...extractor,
    readChunk: async (table, range, asked) => {
      const schema = schemaOf(pipeline, table);
      const checks = new StreamChecks({ stream: bell.stream, table, on_invalid, schema, compiler });
      const read = await extractor.readChunk(table, range, asked);
      const rejects = new RejectWriter(stage, rejectedObject(object));
      // Of a copy no position in the log is known: its lines lack that column.
      const check = checks.forShape(withoutLsnColumn(tableShape(read.table)));
      const lines = new CheckingLines(checks, check, rejects);
      // An error of either ends the other, and is thrown to whoever reads the lines.
      connected(read.lines, lines, (error) => {
        if (error) void rejects.abandon();
      });
      return { ...read, lines, result: () => settled(ports, bell, { read, lines, rejects }) };
    },
  };
}

/** The rows that are left, when those that are not are durable. */
async function settled(
  { clock, ledger }: CheckPorts,
  { epoch, plan, chunk }: ExtractBell & { readonly kind: 'chunk' },
  { read, lines, rejects }: { readonly read: ChunkRead; readonly lines: CheckingLines; readonly rejects: RejectWriter },
): ReturnType<ChunkRead['result']> {
  const { rows, lsn } = await read.result();
  const left_out = await keepRejects(ledger, await rejects.complete(), { epoch, plan, chunk }, clock.now());
  return { rows: rows - left_out, lsn, left_out: lines.leftOut };
}

/**
 * The streams of a window with how their rows are checked (target.validate_records), and what of their rows has been left out so far. On the path between the
 * capture and the reading.
 */
import type { Pipeline } from '../config/schema.ts';
import { streamOptions } from '../config/stream-options.ts';
import type { CapturedStream } from '../cut/captured.ts';
import { SluiceError } from '../errors.ts';
import type { Bookmark, Ledger, Stage } from '../ports.ts';
import { displayName, type TableName } from '../shape.ts';
import type { JsonSchema } from './catalog-schema.ts';
import type { SchemaCompiler } from './compiler.ts';
import { rejectedKeys } from './rejected-keys.ts';
import { StreamChecks } from './stream-checks.ts';

export interface SchemaPort {
  /** Loaded when a pipeline asks for it. */
  readonly schemas?: () => Promise<SchemaCompiler>;
}

interface CheckPorts extends SchemaPort {
  readonly stage: Pick<Stage, 'read'>;
  readonly ledger: Pick<Ledger, 'rejects' | 'removeRejects' | 'epoch'>;
}

/** `head`: number of the chain's newest cut. Throws CONFIG_INVALID for a schema that cannot be: then no row may be taken. */
export async function checkedStreams(
  ports: CheckPorts,
  pipeline: Pipeline,
  streams: readonly CapturedStream[],
  at: { readonly captured: readonly Bookmark[]; readonly head: number },
): Promise<readonly CapturedStream[]> {
  const { validate_records, on_invalid } = pipeline.target;
  if (!validate_records) return streams;
  const compiler = await compilerOf(ports);
  // Also where nothing is put aside any more: what was, is still not on the target.
  const rejected = await rejectedKeys(ports, at);
  return streams.map((captured) => {
    const { stream } = captured;
    const table = { schema: captured.schema, table: captured.table };
    const schema = schemaOf(pipeline, table);
    const checks = new StreamChecks({
      stream,
      table,
      on_invalid,
      schema,
      compiler,
      rejected: rejected.get(stream) ?? [],
    });
    return { ...captured, checks };
  });
}

export async function compilerOf({ schemas }: SchemaPort): Promise<SchemaCompiler> {
  const compiler = await schemas?.();
  if (compiler) return compiler;
  throw new SluiceError('UNEXPECTED', { reason: 'rows are to be validated, and nothing here knows JSON Schema' });
}

/** The file's; null: it names none. Throws CONFIG_INVALID where only the name of a file came along. */
export function schemaOf(pipeline: Pick<Pipeline, 'tables'>, table: TableName): JsonSchema | null {
  const json_schema = streamOptions(pipeline, table)?.json_schema ?? null;
  if (typeof json_schema !== 'string') return json_schema;
  throw new SluiceError('CONFIG_INVALID', {
    problem: `tables: json_schema of ${displayName(table)} names a file, and what reads rows has no files`,
    remedy: 'Deploy the pipeline again, with the version of Sluice that reads it.',
  });
}

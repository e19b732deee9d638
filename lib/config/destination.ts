/**
 * Where a table of the source goes, and whether that is the database that it comes from. Asked of the file alone (`rules.ts`) and again of what the
 * source has (`selection.ts`).
 */
import type { TableName } from '../shape.ts';
import type { PipelineFile, TableConfig } from './schema.ts';

type Place = Readonly<{ host: string; port: number }>;
type Address = Readonly<{
  host: string | null;
  port: number;
  database?: string | undefined;
  ssh?: Place | null | undefined;
}>;

/** What its entry says, else by its schema, else the default schema, else as on the source. */
export function targetOf(
  source: TableName,
  entry: TableConfig,
  target: Pick<PipelineFile['target'], 'schema_mapping' | 'default_target_schema'>,
): TableName {
  const mapping = target.schema_mapping;
  const mapped = Object.hasOwn(mapping, source.schema) ? mapping[source.schema] : undefined;
  return {
    schema: entry.target_schema ?? mapped ?? target.default_target_schema ?? source.schema,
    table: entry.target_table ?? source.table,
  };
}

/** By name: two spellings of one address are not found out here. Embedded servers are never the same; what a name means, the SSH server before it decides. */
export function isSameDatabase(source: Address, target: Address): boolean {
  return (
    source.host !== null &&
    source.host.toLowerCase() === target.host?.toLowerCase() &&
    source.port === target.port &&
    source.database === target.database &&
    placeOf(source.ssh) === placeOf(target.ssh)
  );
}

function placeOf(ssh: Place | null | undefined): string | null {
  return ssh ? `${ssh.host.toLowerCase()}:${ssh.port}` : null;
}

/**
 * Which tables of the source become streams, and where each goes: the entries of `tables`, applied in order to what the source has.
 *
 * A table that is named is wanted: when it is missing or cannot be followed, that is a fault. A glob takes what can be followed and says what it
 * left out and why. Two streams never write one target table.
 */
import { SluiceError } from '../errors.ts';
import { wantsLsnColumn } from '../lsn-column.ts';
import type { SourceTable } from '../ports.ts';
import { type Projection, projectionFault } from '../projection/projection.ts';
import { displayName, type TableName } from '../shape.ts';
import { isSameDatabase, targetOf } from './destination.ts';
import { followFault, isReservedSchema, partitionFault, unfoldedFault } from './followable.ts';
import { byQuery, isByQuery, queryFault } from './queryable.ts';
import type { Pipeline, TableConfig } from './schema.ts';
import { streamId } from './stream-id.ts';
import { streamOptions } from './stream-options.ts';
import { exactName, formatTableName, matchesPattern, parseTablePattern, type TablePattern } from './table-pattern.ts';

export interface StreamDefinition {
  readonly id: string;
  readonly source: TableName;
  readonly target: TableName;
  /** As it is read: one that is read by query has the key that the file names, and its generated columns among the others. */
  readonly table: SourceTable;
  /** What the file says of it. */
  readonly options: TableConfig;
  /** What is hidden of its columns (lib/projection), and the digest of what the file says of its rows; known to a window, which has the salt. */
  readonly projection?: Projection | null;
  readonly selection?: string;
}

export interface Skipped {
  readonly table: TableName;
  readonly reason: string;
  readonly fault: SluiceError;
}

export interface Selection {
  /** In the order of the source's names. */
  readonly streams: readonly StreamDefinition[];
  /** What must be mended before anything is replicated; empty: nothing. */
  readonly faults: readonly SluiceError[];
  /** Tables that a glob matches and that cannot be followed. */
  readonly skipped: readonly Skipped[];
}

/** What an entry has made of a table; a later entry replaces it. */
interface Choice {
  readonly table: SourceTable;
  readonly entry: TableConfig;
  readonly byGlob: boolean;
}

/** Skipped tables that a fault names, before it says how many more there are. */
const SKIPPED_SHOWN_MAX = 3;

/** Selects from `tables`, everything that the role sees on the source. Pure: the same answer in a window, in `plan` and in `doctor`. */
export function selectTables(tables: readonly SourceTable[], pipeline: Pipeline): Selection {
  const byName = new Map(tables.map((table) => [formatTableName(table), table]));
  const { fold_partitions } = pipeline.source;
  const { primary_key_required } = pipeline.target;
  const faultOf = followFaults(tables, { ...pipeline.source, primary_key_required });
  const faultFor = (table: SourceTable, entry: TableConfig): SluiceError | null => {
    const read = isByQuery(entry) ? byQuery(table, entry.key_properties) : table;
    const fault = isByQuery(entry) ? queryFault(read, pipeline.source.user, entry) : (faultOf.get(table) ?? null);
    return fault ?? projectionFault(read, entry);
  };
  const choices = new Map<SourceTable, Choice>();
  const faults: SluiceError[] = [];

  for (const entry of pipeline.tables) {
    const pattern = parseTablePattern(entry.table);
    if (!pattern) {
      faults.push(new SluiceError('CONFIG_INVALID', { problem: `tables: ${entry.table} is no table and no glob` }));
      continue;
    }
    const name = exactName(pattern);
    if (name) {
      const table = byName.get(formatTableName(name));
      if (table) choices.set(table, { table, entry, byGlob: false });
      else faults.push(tableMissing(name, tables));
      continue;
    }
    const matching = matches(pattern, tables);
    for (const table of matching) choices.set(table, { table, entry, byGlob: true });
    const own = fold_partitions ? withoutFolded(matching) : matching;
    if (own.every((table) => faultFor(table, entry))) {
      faults.push(nothingSelected(entry.table, own, (table) => faultFor(table, entry)?.message ?? ''));
    }
  }

  if (fold_partitions) faults.push(...foldPartitions(choices));

  const streams: StreamDefinition[] = [];
  const skipped: Skipped[] = [];
  for (const { table, entry, byGlob } of [...choices.values()].sort((a, b) => compareNames(a.table, b.table))) {
    const fault = faultFor(table, entry);
    const source = { schema: table.schema, table: table.table };
    if (!fault) streams.push(streamOf(table, entry, pipeline));
    else if (byGlob) skipped.push({ table: source, reason: fault.message, fault });
    else faults.push(fault);
  }
  faults.push(...targetFaults(streams, pipeline));
  return { streams, faults, skipped };
}

function streamOf(table: SourceTable, options: TableConfig, pipeline: Pipeline): StreamDefinition {
  const source = { schema: table.schema, table: table.table };
  const read = isByQuery(options) ? byQuery(table, options.key_properties) : table;
  const followed = wantsLsnColumn(pipeline, options, read) ? { ...read, lsn: true } : read;
  const target = targetOf(source, options, pipeline.target);
  return { id: streamId(source), source, target, table: followed, options };
}

/** Whether some entry of `tables` means this name: its table is wanted, whether it is there or not. */
export function isWanted(pipeline: Pipeline, name: TableName): boolean {
  return streamOptions(pipeline, name) !== null;
}

export interface FollowOptions {
  readonly user: string;
  readonly fold_partitions: boolean;
  /** Where it is not said, it is. */
  readonly primary_key_required?: boolean;
}

/** What keeps each of `tables` from being followed by itself or with its partitions; null: nothing. */
export function followFaults(
  tables: readonly SourceTable[],
  { user, fold_partitions, primary_key_required = true }: FollowOptions,
): Map<SourceTable, SluiceError | null> {
  const byOid = new Map(tables.map((table) => [table.oid, table]));
  const foldFault = (table: SourceTable): SluiceError | null => {
    if (!table.partitions) return null;
    if (!fold_partitions) return unfoldedFault(table);
    for (const { oid } of table.partitions) {
      const partition = byOid.get(oid);
      const fault = partition ? partitionFault(table, partition) : null;
      if (fault) return fault;
    }
    return null;
  };
  return new Map(tables.map((table) => [table, followFault(table, user, primary_key_required) ?? foldFault(table)]));
}

/** Without the partitions of those among them that are partitioned. */
export function withoutFolded(tables: readonly SourceTable[]): SourceTable[] {
  const oids = new Set(tables.map(({ oid }) => oid));
  return tables.filter(({ partition_of = [] }) => !partition_of.some((oid) => oids.has(oid)));
}

/** Takes out what comes with its partitioned table. A partition that is named has been meant: that is a fault. */
function foldPartitions(choices: Map<SourceTable, Choice>): SluiceError[] {
  const chosen = new Map([...choices.keys()].map((table) => [table.oid, table]));
  const faults: SluiceError[] = [];
  for (const [table, { byGlob }] of choices) {
    const root = (table.partition_of ?? []).flatMap((oid) => chosen.get(oid) ?? []).at(-1);
    if (!root) continue;
    choices.delete(table);
    if (byGlob) continue;
    const problem = `tables: ${formatTableName(table)} is a partition of ${formatTableName(root)}, which is selected and followed as one stream`;
    const remedy = 'Leave one of them out; or set source.fold_partitions: false to follow each partition by itself.';
    faults.push(new SluiceError('CONFIG_INVALID', { problem, remedy }));
  }
  return faults;
}

function matches(pattern: TablePattern, tables: readonly SourceTable[]): SourceTable[] {
  return tables.filter((table) => !isReservedSchema(table.schema) && matchesPattern(pattern, table));
}

function tableMissing(name: TableName, tables: readonly SourceTable[]): SluiceError {
  const folded = displayName(name).toLowerCase();
  const nearest = tables.find((table) => displayName(table).toLowerCase() === folded);
  return new SluiceError('TABLE_MISSING', {
    table: formatTableName(name),
    nearest: nearest ? formatTableName(nearest) : undefined,
  });
}

function nothingSelected(
  pattern: string,
  matching: readonly SourceTable[],
  why: (table: SourceTable) => string,
): SluiceError {
  const shown = matching.slice(0, SKIPPED_SHOWN_MAX).map(why);
  const more = matching.length - shown.length;
  if (more > 0) shown.push(`${more} more.`);
  return new SluiceError('NOTHING_SELECTED', { pattern, skipped: shown.join(' ') });
}

function targetFaults(streams: readonly StreamDefinition[], pipeline: Pipeline): SluiceError[] {
  const faults: SluiceError[] = [];
  const writers = new Map<string, StreamDefinition>();
  const ids = new Map<string, StreamDefinition>();
  const sources = new Set(
    isSameDatabase(pipeline.source, pipeline.target) ? streams.map((stream) => formatTableName(stream.source)) : [],
  );
  for (const stream of streams) {
    const table = displayName(stream.target);
    const key = formatTableName(stream.target);
    const other = writers.get(key);
    const reason = other
      ? `${displayName(other.source)} and ${displayName(stream.source)} would both be written to it.`
      : isReservedSchema(stream.target.schema)
        ? "its schema is the system's or Sluice's own."
        : sources.has(key)
          ? 'source and target are the same database, and it is a table that is replicated.'
          : null;
    if (reason) faults.push(new SluiceError('TARGET_TABLE_TAKEN', { table, reason }));
    writers.set(key, other ?? stream);

    const twin = ids.get(stream.id);
    if (twin) {
      const problem = `${displayName(twin.source)} and ${displayName(stream.source)} have the same stream id ${stream.id}; select one of them`;
      faults.push(new SluiceError('CONFIG_INVALID', { problem }));
    }
    ids.set(stream.id, stream);
  }
  return faults;
}

function compareNames(a: TableName, b: TableName): number {
  if (a.schema !== b.schema) return a.schema < b.schema ? -1 : 1;
  if (a.table === b.table) return 0;
  return a.table < b.table ? -1 : 1;
}

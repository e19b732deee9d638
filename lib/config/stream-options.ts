/**
 * What the pipeline file says of one table of the source: the last entry of `tables` that means it. And the digest of what it says of the table's rows
 * (Bookmark.selection), by which a window sees that a stream was captured under another file.
 *
 * Pure; asked wherever something depends on a stream's options: selecting, windows, chunks, verify, doctor.
 */
import { createHash } from 'node:crypto';
import type { TableName } from '../shape.ts';
import { isReservedSchema } from './followable.ts';
import type { Pipeline, TableConfig } from './schema.ts';
import { exactName, matchesPattern, parseTablePattern } from './table-pattern.ts';

/** What the file says of `name`, be the table there or not; null: it does not mean it. */
export function streamOptions(pipeline: Pick<Pipeline, 'tables'>, name: TableName): TableConfig | null {
  return pipeline.tables.findLast((entry) => means(entry, name)) ?? null;
}

/** Whether an entry means a table of this name. Globs do not reach into schemas of the system and of Sluice. */
export function means(entry: Pick<TableConfig, 'table'>, name: TableName): boolean {
  const pattern = parseTablePattern(entry.table);
  if (!pattern || (exactName(pattern) === null && isReservedSchema(name.schema))) return false;
  return matchesPattern(pattern, name);
}

/** What of an entry decides which rows a stream has, and what they look like. */
export type Selecting = Pick<TableConfig, 'replication_method' | 'columns' | 'mask' | 'where'> &
  Partial<Record<'replication_key' | 'key_properties', unknown>>;

/** Text digests, cut: they are compared with one another, and with nothing that somebody could choose. */
const DIGEST_LETTERS = 22;

/**
 * Another text for each other choice of method, replication key, key, columns, masks and filter. `salt`: of the hashes; it counts where a column is hashed, and
 * the digest does not tell it. The order in which columns are named does not count.
 */
export function selectionDigest(options: Selecting, salt: string | null): string {
  const { replication_method, replication_key = null, key_properties = null, columns, mask, where } = options;
  const masks = Object.entries(mask).toSorted(([a], [b]) => (a < b ? -1 : 1));
  const hashes = masks.some(([, kind]) => kind === 'hash');
  const said = [
    replication_method,
    replication_key,
    key_properties,
    columns && [columns.include?.toSorted() ?? null, columns.exclude?.toSorted() ?? null],
    masks,
    where,
    hashes && salt !== null ? digest(`sluice mask salt\0${salt}`) : null,
  ];
  return digest(JSON.stringify(said));
}

/** Of a stream that was captured before digests were kept: nothing was chosen then. */
export const SELECTION_OF_OLD = selectionDigest(
  { replication_method: 'LOG_BASED', columns: null, mask: {}, where: null },
  null,
);

function digest(text: string): string {
  return createHash('sha256').update(text, 'utf8').digest('base64url').slice(0, DIGEST_LETTERS);
}

/**
 * What a stream followed when the last window looked, held against what is there now: whether changes of its table may have been passed over, or rows may
 * have come or gone without a word in the log. Pure; capture.ts asks and acts.
 *
 * A table is its OID, not its name; and it is followed only as long as the publication holds it the same way.
 */
import { createHash } from 'node:crypto';
import { nameFault } from '../config/followable.ts';
import { SluiceError } from '../errors.ts';
import type { Bookmark, Followed, Partition, SourceTable } from '../ports.ts';
import type { Projection } from '../projection/projection.ts';
import { hiddenNumbers } from '../projection/table.ts';
import { displayName, type TableName, tableKey } from '../shape.ts';

/** Partitions that a bookmark names one by one, 15 bytes each: an item of the ledger has room for ten times as many. Of more it knows a digest. */
const PARTITIONS_LISTED_MAX = 2_000;
const MARK_CHARACTERS = 8;

export type Change =
  | { readonly kind: 'none' }
  /** Partitions that were not there. Rows that they had before they became partitions are not in the log. */
  | { readonly kind: 'grown'; readonly partitions: readonly number[] }
  /** What went past the log; a sentence without its subject. */
  | { readonly kind: 'lost'; readonly reason: string };

const NONE: Change = { kind: 'none' };
const lost = (reason: string): Change => ({ kind: 'lost', reason });

/** What a bookmark remembers of a table that is captured now. */
export function followedOf(table: SourceTable, published: string, projection: Projection | null = null): Followed {
  return {
    table_oid: table.oid,
    published,
    partitions: table.partitions ? partitionsText(table.partitions) : null,
    key: keyText(table),
    file: table.filenode ?? null,
    ...(projection ? { hidden: hiddenNumbers(table, projection) } : {}),
  };
}

/** By number: a column's name may change. */
function keyText({ key, columns, generated = [] }: SourceTable): string {
  const numbers = new Map([...columns, ...generated].map(({ name, number }) => [name, number]));
  return key
    .map((name) => String(numbers.get(name) ?? name))
    .sort()
    .join(' ');
}

/** `published`: how the publication holds the table now; null: it does not. `followed` null: an older version did not note what it followed. */
export function followedChange(followed: Followed | null, table: SourceTable, published: string | null): Change {
  if (published === null) return lost('it was not in the publication');
  if (followed === null) return NONE;
  if (followed.table_oid !== table.oid) return lost('it was dropped, and another table was made under its name');
  if (followed.published !== published) {
    return lost(
      published.startsWith('wal2json ')
        ? 'what identifies its rows was changed, or its name, and the log may have left out changes of it'
        : 'the publication was altered, and may have left out changes of it',
    );
  }
  if (typeof followed.key === 'string' && followed.key !== keyText(table)) return lost('it has another key, or none');
  return partitionsChange(followed.partitions, table.partitions ?? null);
}

/**
 * Why a stream whose table is wanted and is not followed under its name halts: it was renamed, or dropped, or has a column by now whose name the target would
 * cut. Null: none of them, as far as is known.
 * `tables`: all of the source's.
 */
export function goneFault(
  { table, followed }: Pick<Bookmark, 'table' | 'followed'>,
  tables: readonly SourceTable[],
): SluiceError | null {
  if (!followed) return null;
  const now = tables.find(({ oid }) => oid === followed.table_oid);
  if (now) return isSame(now, table) ? nameFault(now) : renamedFault(table, now);
  // Another one goes by its name, and something else keeps it from being followed.
  if (tables.some((other) => isSame(other, table))) return null;
  return new SluiceError('TABLE_DROPPED', { table: displayName(table) });
}

function renamedFault(table: TableName, now: TableName): SluiceError {
  return new SluiceError('TABLE_RENAMED', { table: displayName(table), now: displayName(now) });
}

function partitionsChange(remembered: string | null, partitions: readonly Partition[] | null): Change {
  const now = partitions && partitionsText(partitions);
  if (remembered === now) return NONE;
  if (remembered === null || partitions === null) return lost('it was made a partitioned table, or is one no longer');
  if (remembered.startsWith('#') || now?.startsWith('#')) return lost('its partitions have changed');
  const known = new Map(remembered.split(' ').flatMap((text) => (text === '' ? [] : [split(text)])));
  const grown: number[] = [];
  for (const partition of partitions) {
    const [oid, mark] = split(partitionText(partition));
    const before = known.get(oid);
    known.delete(oid);
    if (before === undefined) grown.push(partition.oid);
    else if (before !== mark) {
      return lost('a partition was truncated by itself, written anew, or detached and attached again');
    }
  }
  if (known.size > 0) return lost('a partition was detached or dropped');
  return { kind: 'grown', partitions: grown };
}

/** `oid:mark` of each; `#count:digest` where there are too many. */
function partitionsText(partitions: readonly Partition[]): string {
  const texts = partitions.map(partitionText);
  if (texts.length <= PARTITIONS_LISTED_MAX) return texts.join(' ');
  return `#${texts.length}:${createHash('sha256').update(texts.join(' ')).digest('base64url')}`;
}

function partitionText({ oid, mark }: Partition): string {
  const digest = createHash('sha256').update(mark).digest('base64url');
  return `${oid.toString(36)}:${digest.slice(0, MARK_CHARACTERS)}`;
}

function split(text: string): readonly [oid: string, mark: string] {
  const at = text.indexOf(':');
  return [text.slice(0, at), text.slice(at + 1)];
}

function isSame(a: TableName, b: TableName): boolean {
  return tableKey(a) === tableKey(b);
}

/**
 * Indexes that the pipeline file asks for on a stream's table, under names of ours that stay the same (target.indices).
 *
 * Those that are not unique are made on the shadow after its rows, and go with it into the table's place; what is missing on a live table (the option is younger than the
 * table, or a column came later) is made after a load. CREATE INDEX keeps out writers, and nobody writes but the loader.
 *
 * Unique ones are constraints that are checked at commit, for the rows of a cut are written in another order than the source wrote them. And only a live table has
 * them: while rows of different moments lie side by side (a copy, catching up), two may have the same value that never were there together.
 * https://www.postgresql.org/docs/current/sql-createindex.html, https://www.postgresql.org/docs/current/sql-set-constraints.html
 */
import { createHash } from 'node:crypto';
import { streamId } from '../config/stream-id.ts';
import { exactName, parseTablePattern } from '../config/table-pattern.ts';
import { SluiceError } from '../errors.ts';
import type { Log } from '../ports.ts';
import { displayName, type Shape, type TableName } from '../shape.ts';
import { fittingName, quoteIdentifier, quoteTable } from '../sql-text.ts';
import type { Owner } from './control.ts';
import { flattenedNames } from './flatten.ts';
import { KEY_LIMITS, type Row, type Session } from './session.ts';

const id = quoteIdentifier;
const DIGEST_DIGITS = 8;

export interface IndexOption {
  readonly columns: readonly string[];
  readonly unique: boolean;
  /** SQL of a partial index's condition; null: all rows. */
  readonly where: string | null;
}

/** By the source table's name, `schema.table`. */
export type IndexOptions = Readonly<Record<string, readonly IndexOption[]>>;

export function indicesOf(options: IndexOptions | undefined, stream: string): readonly IndexOption[] {
  return Object.entries(options ?? {}).flatMap(([table, indices]) => {
    const pattern = parseTablePattern(table);
    const name = pattern && exactName(pattern);
    return name && streamId(name) === stream ? indices : [];
  });
}

/** The same for the same index of the same table, and told apart from any other. */
export function indexName(target: TableName, index: IndexOption): string {
  return fittingName([target.table, ...index.columns].join('_'), `_${digestOf(target, index)}`);
}

function shadowIndexName(shadow: TableName, target: TableName, index: IndexOption): string {
  return `${shadow.table}_${digestOf(target, index)}`;
}

function digestOf({ schema, table }: TableName, { columns, unique, where }: IndexOption): string {
  const parts = JSON.stringify([schema, table, columns, unique, where]);
  return createHash('sha256').update(parts).digest('hex').slice(0, DIGEST_DIGITS);
}

interface Place {
  readonly session: Session;
  readonly owner: Owner;
  readonly indices: readonly IndexOption[];
  readonly log: Log;
}

/** On the shadow, when its rows are in. `lock`: a statement that keeps another finisher from making the same beside it. */
export async function indexShadow(place: Place, shadow: TableName, shape: Shape, lock: string): Promise<void> {
  const { target } = place.owner.stream;
  for (const index of place.indices.filter(({ unique }) => !unique)) {
    await make(place, shape, index, `${lock}; ${createSql(shadow, shadowIndexName(shadow, target, index), index)}`);
  }
}

/** After the shadow has taken the table's name: statements that give its indexes theirs, where these are free. */
export function renameIndicesSql(
  shadow: TableName,
  target: TableName,
  indices: readonly IndexOption[],
  taken: ReadonlySet<string>,
): string[] {
  return indices.flatMap((index) => {
    const name = indexName(target, index);
    if (index.unique || taken.has(name)) return [];
    const before = { schema: target.schema, table: shadowIndexName(shadow, target, index) };
    return [`ALTER INDEX IF EXISTS ${quoteTable(before)} RENAME TO ${id(name)}`];
  });
}

/** Before rows of another moment come beside those that are there. */
export async function dropUniques(session: Session, target: TableName, indices: readonly IndexOption[]): Promise<void> {
  const uniques = indices.filter(({ unique }) => unique);
  const there = uniques.length === 0 ? new Set<string>() : await namesThere(session, target, uniques);
  const drop = [...there].map((name) => `DROP CONSTRAINT IF EXISTS ${id(name)}`);
  if (drop.length === 0) return;
  await session.run(`ALTER TABLE ${quoteTable(target)} ${drop.join(', ')}`, { action: `alter ${displayName(target)}` });
}

/** What a live table lacks. */
export async function missingIndices(
  session: Session,
  target: TableName,
  indices: readonly IndexOption[],
): Promise<readonly IndexOption[]> {
  if (indices.length === 0) return [];
  const there = await namesThere(session, target, indices);
  return indices.filter((index) => !there.has(indexName(target, index)));
}

/** On the live table, each in a transaction of its own. Resolves with those that could not be made: the rows are there all the same. */
export async function addIndices(place: Place, shape: Shape): Promise<readonly IndexOption[]> {
  const { target } = place.owner.stream;
  const failed: IndexOption[] = [];
  for (const index of place.indices) {
    const name = indexName(target, index);
    const columns = index.columns.map(id).join(', ');
    const unique = `ALTER TABLE ${quoteTable(target)} ADD CONSTRAINT ${id(name)} UNIQUE (${columns}) DEFERRABLE INITIALLY DEFERRED`;
    const isMade = await make(place, shape, index, index.unique ? unique : createSql(target, name, index));
    if (!isMade) failed.push(index);
  }
  return failed;
}

/** Names of these indexes that something in the target's schema has. */
export async function namesThere(
  session: Session,
  target: TableName,
  indices: readonly IndexOption[],
): Promise<Set<string>> {
  const { rows } = await session.query<Row & { name: string }>(
    `SELECT c.relname::text AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
      WHERE n.nspname = $1 AND c.relname = ANY ($2::name[])`,
    [target.schema, indices.map((index) => indexName(target, index))],
  );
  return new Set(rows.map(({ name }) => name));
}

function createSql(table: TableName, name: string, { columns, where }: IndexOption): string {
  // A line of its own, so that a comment at its end does not swallow the rest.
  const partial = where === null ? '' : ` WHERE (${where}\n)`;
  return `CREATE INDEX IF NOT EXISTS ${id(name)} ON ${quoteTable(table)} (${columns.map(id).join(', ')})${partial}`;
}

/** False: it could not be made, and that was told: an index is no reason to keep rows waiting. Throws what is worth another try of all. */
async function make({ session, owner, log }: Place, shape: Shape, index: IndexOption, sql: string): Promise<boolean> {
  const { stream, target } = owner.stream;
  const facts = { stream, table: displayName(target), columns: index.columns, unique: index.unique };
  const names = new Set([...shape.columns.map(({ name }) => name), ...flattenedNames(shape)]);
  const missing = index.columns.filter((column) => !names.has(column));
  if (missing.length > 0) {
    log.warn('index_not_made', { ...facts, reason: `the table has no column ${missing.join(', ')}` });
    return false;
  }
  try {
    await session.runAlone(KEY_LIMITS, sql, { action: `make an index on ${displayName(target)}` });
    log.info('index_made', { ...facts, index: indexName(target, index) });
    return true;
  } catch (error) {
    if (!(error instanceof SluiceError) || error.disposition === 'retry') throw error;
    log.warn('index_not_made', { ...facts, reason: error.message });
    return false;
  }
}

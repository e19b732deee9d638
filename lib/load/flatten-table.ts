/**
 * Keeps the columns beside json columns true (flatten.ts): adds them when rows bring new keys, gives them another type when a key has changed its kind, and fills them in
 * rows that are there when the option is set, or set deeper, later.
 *
 * On the path inside a load's transaction, between the COPY into a temporary table and what is made of it (apply.ts). A table that is copied anew has its own way
 * (flatten-shadow.ts).
 */
import { SluiceError } from '../errors.ts';
import type { Log } from '../ports.ts';
import { displayName, type Flattened, type FlattenedColumn, type Shape, type TableName } from '../shape.ts';
import { quoteIdentifier, quoteTable } from '../sql-text.ts';
import { METADATA_COLUMNS } from './columns.ts';
import { dependentsFault } from './faults.ts';
import { FLATTENED_COLUMNS_MAX, type FoundKey, grown, type JsonColumn, jsonColumnsOf, keyId, NONE } from './flatten.ts';
import {
  alterFlattenedSql,
  FIND_PLAINLY_SQL,
  fillSql,
  foundKeysOf,
  foundKeysSql,
  readFunctionSql,
  withFlattened,
} from './flatten-sql.ts';
import type { Purpose, Session } from './session.ts';
import type { Landed, TableForm } from './sql.ts';

/** MaxHeapAttributeNumber: https://www.postgresql.org/docs/current/limits.html. Those that were dropped count. */
const TABLE_COLUMNS_MAX = 1600;
/** Of these, left for columns of the source that are yet to come. */
const COLUMNS_SPARED = 100;
/**
 * Columns of a table of which every row fits into its page of 8 kB, whatever is in them: a value of up to 24 bytes stays in the row, a longer one may be moved out of it
 * (https://www.postgresql.org/docs/current/storage-toast.html). Beyond it a row that the source takes might be refused here, and the table has fewer columns of ours.
 */
const FITTING_COLUMNS = 300;
/** Tables that are filled where they stand; what is larger is copied anew, for one transaction would have to write all of it. */
export const FILL_BYTES_MAX = 1024 ** 3;

/** A table whose columns are kept true, in one transaction. */
export interface FlattenedTable {
  readonly session: Session;
  readonly stream: string;
  readonly log: Log;
  /** target.data_flattening_max_level. */
  readonly level: number;
  /** FILL_BYTES_MAX. */
  readonly fill_bytes_max: number;
  form(): TableForm;
  /** Notes what the table is by now. */
  change(form: TableForm): Promise<void>;
  /** Where others alter the table beside this transaction: locks it, and brings its form up. */
  lock(): Promise<void>;
}

/** Kinds of blocks that bring values. */
const BRINGING = new Set<Landed['kind']>(['insert', 'upsert', 'update', 'rekey', 'add']);

/** What has landed, with the columns beside its json; these are made first where rows bring new keys. */
export async function flattenLanded(on: FlattenedTable, landed: Landed): Promise<Landed> {
  const known = on.form().shape.flattened?.columns ?? [];
  if ((on.level === 0 && known.length === 0) || !BRINGING.has(landed.kind)) return landed;
  const json = jsonColumnsOf(on.form().shape).filter(({ name }) => landed.columns.includes(name));
  if (json.length === 0) return landed;
  const at = (name: string): string => `s.c${landed.columns.indexOf(name)}`;
  await grow(on, await findKeys(on.session, `${landed.temp} s`, json, at, on.level, known));
  const columns = besides(on.form().shape, json);
  return columns.length === 0 ? landed : withFlattened(landed, json, columns);
}

function besides({ flattened }: Shape, json: readonly JsonColumn[]): FlattenedColumn[] {
  return (flattened?.columns ?? []).filter(({ of }) => json.some(({ name }) => name === of));
}

/** Whether rows that are there lack columns: keys have not been looked for so deep. */
export function isShallow(shape: Shape, level: number): boolean {
  return level > (shape.flattened?.level ?? 0) && jsonColumnsOf(shape).length > 0;
}

/**
 * Makes true what the option says by now: looks for keys in all rows where it is another level than before, and notes where it is 0; columns that are there stay, and stay true.
 * `added`: names of json columns that have come with values for rows that are there. Throws TABLE_REWRITTEN where the table is too large to be filled.
 */
export async function deepen(on: FlattenedTable, added: readonly string[]): Promise<void> {
  const { shape } = on.form();
  const before = shape.flattened?.level ?? 0;
  if (isShallow(shape, on.level)) return await fill(on, jsonColumnsOf(shape));
  // An object at what is the last level now is shown, in older rows too.
  if (on.level > 0 && on.level < before && jsonColumnsOf(shape).length > 0) return await fill(on, jsonColumnsOf(shape));
  if (on.level < before) await on.change({ ...on.form(), shape: withFlattenedOf(shape, { level: on.level }) });
  const late = on.level === 0 ? [] : jsonColumnsOf(shape).filter(({ name }) => added.includes(name));
  if (late.length > 0) await fill(on, late);
}

async function fill(on: FlattenedTable, json: readonly JsonColumn[]): Promise<void> {
  const { session, level, fill_bytes_max } = on;
  const { name } = on.form();
  const table = quoteTable(name);
  const { rows } = await session.query<{ large: boolean }>(
    'SELECT pg_total_relation_size($1::regclass) > $2::int8 AS large',
    [table, fill_bytes_max],
  );
  if (rows[0]?.large) {
    const what =
      'target.data_flattening_max_level asks for columns that it lacks, and it is too large to be filled in one go.';
    throw new SluiceError('TABLE_REWRITTEN', { stream: on.stream, what });
  }
  const known = on.form().shape.flattened?.columns ?? [];
  await grow(on, await findKeys(session, `${table} t`, json, (column) => `t.${quoteIdentifier(column)}`, level, known));
  const columns = besides(on.form().shape, json);
  if (columns.length > 0) await session.run(fillSql(table, json, columns), { action: `write to ${displayName(name)}` });
  await on.change({ ...on.form(), shape: withFlattenedOf(on.form().shape, { level }) });
}

function withFlattenedOf(shape: Shape, changed: Partial<Flattened>): Shape {
  return { ...shape, flattened: { ...(shape.flattened ?? NONE), ...changed } };
}

/** Any role may write in plpgsql, unless somebody has revoked that. */
function mayRead(session: Session): Purpose {
  return {
    action: 'make a temporary function in plpgsql, which reads json',
    grant_sql: `GRANT USAGE ON LANGUAGE plpgsql TO ${quoteIdentifier(session.user)}`,
  };
}

/** Keys down to the level; and below it, where it was deeper before, those that have columns: these stay true whatever comes there. */
async function findKeys(
  session: Session,
  from: string,
  json: readonly JsonColumn[],
  at: (name: string) => string,
  level: number,
  known: readonly FlattenedColumn[],
): Promise<FoundKey[]> {
  const look = async (deep: number): Promise<FoundKey[]> => {
    const statements = [...readFunctionSql(json), FIND_PLAINLY_SQL, foundKeysSql(from, json, at, deep, known)];
    const { rows } = await session.run(statements.join('; '), mayRead(session));
    return foundKeysOf(rows, json);
  };
  const found = level > 0 ? await look(level) : [];
  const deepest = Math.max(0, ...known.map(({ path }) => path.length));
  if (deepest <= level) return found;
  const below = new Set(known.filter(({ path }) => path.length > level).map(keyId));
  const left = (await look(deepest)).filter((key) => below.has(keyId(key)));
  // Whether they show objects was decided when they were made.
  return [...found, ...left.map((key) => ({ ...key, kinds: key.kinds.filter((kind) => kind !== 'object') }))];
}

/** Alters the table for keys that it has no columns for, or columns of another type. */
async function grow(on: FlattenedTable, found: readonly FoundKey[]): Promise<void> {
  if (!isNews(on.form().shape, found)) return;
  await on.lock();
  const form = on.form();
  const { shape, name } = form;
  const before = shape.flattened ?? { ...NONE, level: on.level };
  const { names, room } = await namesThere(on.session, name);
  const taken = new Set([...names, ...shape.columns.map((column) => column.name)]);
  const { flattened, added, retyped } = grown(before, found, { taken, room });
  // There is no room for what is new, and that is known.
  if (JSON.stringify(flattened) === JSON.stringify(shape.flattened)) return;
  const altered = alterFlattenedSql(added, retyped);
  if (altered.length > 0) {
    const purpose = {
      action: `alter ${displayName(name)}`,
      grant_sql: `ALTER TABLE ${quoteTable(name)} OWNER TO ${quoteIdentifier(on.session.user)}`,
    };
    try {
      await on.session.run(`ALTER TABLE ${quoteTable(name)} ${altered.join(', ')}`, purpose);
    } catch (error) {
      throw dependentsFault(error);
    }
  }
  tell(on.log, { stream: on.stream, table: name }, before, flattened, { added: added.length, retyped: retyped.length });
  await on.change({ ...form, shape: { ...shape, flattened } });
}

/** Without a look at the table: names do not matter for whether there is something to be done. */
function isNews({ flattened = NONE }: Shape, found: readonly FoundKey[]): boolean {
  const after = grown(flattened, found, { taken: new Set(), room: FLATTENED_COLUMNS_MAX });
  return JSON.stringify(after.flattened) !== JSON.stringify(flattened);
}

/** In the log: columns that came, and once, that there are too many for all of them. */
export function tell(
  log: Log,
  { stream, table }: { readonly stream: string; readonly table: TableName },
  before: Flattened,
  after: Flattened,
  { added, retyped }: { readonly added: number; readonly retyped: number },
): void {
  const facts = { stream, table: displayName(table) };
  if (added > 0) log.info('json_columns_added', { ...facts, columns: added });
  if (retyped > 0) log.info('json_columns_made_text', { ...facts, columns: retyped });
  if (after.is_full && !before.is_full) log.warn('json_columns_full', { ...facts, columns: after.columns.length });
}

/** Names of what the table has, whoever made it, and how many columns it can still take. */
export async function namesThere(
  session: Session,
  table: TableName,
): Promise<{ readonly names: readonly string[]; readonly room: number }> {
  const { rows } = await session.query<{ names: string[]; used: number; there: number }>(
    `SELECT array_agg(attname::text) FILTER (WHERE NOT attisdropped) AS names, COALESCE(max(attnum), 0)::int4 AS used,
            count(*) FILTER (WHERE attnum > 0 AND NOT attisdropped)::int4 AS there
       FROM pg_attribute WHERE attrelid = $1::regclass`,
    [quoteTable(table)],
  );
  const [found] = rows;
  const used = (found?.used ?? 0) + METADATA_COLUMNS.length + COLUMNS_SPARED;
  const room = Math.min(TABLE_COLUMNS_MAX - used, FITTING_COLUMNS - (found?.there ?? 0));
  return { names: found?.names ?? [], room: Math.max(0, room) };
}

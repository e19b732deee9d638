/**
 * Puts a shadow table in the place of the stream's table, in the transaction that releases the hold (design §3, Epochs): readers see the old
 * rows or the new ones, and wait for moments.
 *
 * The fast way is DROP and RENAME. It would lose whatever somebody has built on the old table (views, indexes, triggers, policies, comments, …):
 * where there is any such thing, the old table stays and gets the shadow's rows instead. Both lose the rows that soft deletion had kept, but
 * where a whole copy is swapped in again and again: the shadow holds what the source has.
 */
import { SluiceError } from '../errors.ts';
import { isLsnColumn } from '../lsn-column.ts';
import type { Aside, Log } from '../ports.ts';
import { type Column, displayName, type Shape, sameType, type TableName } from '../shape.ts';
import { quoteIdentifier, quoteTable } from '../sql-text.ts';
import { carried, carryOver, type Keeping } from './carry.ts';
import { carryDeletedRows } from './carry-rows.ts';
import { keyNames, METADATA_COLUMNS, withoutNumber } from './columns.ts';
import type { Owner, PlanRow, StreamRow } from './control.ts';
import { addKeySql, addMetadataSql, keyName, shadowKeyName } from './ddl.ts';
import { dependentsFault } from './faults.ts';
import { asKept, flattenedNames, withKept } from './flatten.ts';
import { generatedNames } from './generated.ts';
import { dropUniques, type IndexOption, indexName, namesThere, renameIndicesSql } from './indices.ts';
import { tableTaken } from './prepare.ts';
import { refillBut, refillSql } from './refill.ts';
import type { Row, Session } from './session.ts';

const id = quoteIdentifier;

interface Replacing {
  readonly keeping: Keeping;
  readonly indices: readonly IndexOption[];
  /** For rows that the table refuses; null: the first is thrown. */
  readonly aside: Aside | null;
}

/** What the table in place is made for. */
export type Form = Pick<StreamRow, 'shape' | 'metadata'>;

/** Resolves with the form of the table that is in place now. Throws TARGET_TABLE_TAKEN and TARGET_DEPENDENTS. */
export async function putInPlace(
  session: Session,
  owner: Owner,
  row: StreamRow,
  planned: PlanRow,
  shadow: TableName,
  { keeping, indices, aside }: Replacing,
  log: Log,
): Promise<Form> {
  const { target } = owner.stream;
  const kind = await relationKind(session, target);
  if (kind === null) {
    await rename(session, shadow, target, indices);
    return planned;
  }
  if (!row.made) throw tableTaken(owner, 'it exists, and Sluice did not make it');
  if (kind !== 'r' && kind !== 'p') throw tableTaken(owner, 'something else has its name');
  const purpose = {
    action: `replace ${displayName(target)}`,
    grant_sql: `ALTER TABLE ${quoteTable(target)} OWNER TO ${id(session.user)}`,
  };
  // Readers need not wait for this: nobody but the loader writes to the table, and the stream is held.
  const from = { name: target, shape: withKept(row.shape, planned.shape) };
  const shape = await carryOver(session, from, { name: shadow, shape: planned.shape }, keeping);
  const plan = { ...planned, shape };
  if (keeping.gone_at_ms !== null && row.metadata && planned.metadata) {
    const kept = carried(from.shape, planned.shape, keeping).filter(({ as }) =>
      shape.columns.some(({ name }) => name === as),
    );
    await carryDeletedRows(session, from, { name: shadow, shape }, kept, keeping.gone_at_ms);
  }
  await session.run(`LOCK TABLE ${quoteTable(target)} IN ACCESS EXCLUSIVE MODE`, purpose);
  if (!(await isPlain(session, target, row, indices)))
    return await refill(session, owner, row, plan, shadow, { keeping, indices, aside }, log);
  await carryRights(session, target, shadow);
  await session.run(`DROP TABLE ${quoteTable(target)}`, purpose);
  await rename(session, shadow, target, indices);
  return plan;
}

async function relationKind(session: Session, table: TableName): Promise<string | null> {
  const { rows } = await session.query<{ relkind: string }>(
    'SELECT c.relkind::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1 AND c.relname = $2',
    [table.schema, table.table],
  );
  return rows[0]?.relkind ?? null;
}

/** Gives the shadow the table's name, and its key the name that PostgreSQL would have given it, where that is free. */
async function rename(
  session: Session,
  shadow: TableName,
  target: TableName,
  indices: readonly IndexOption[],
): Promise<void> {
  await session.run(`ALTER TABLE ${quoteTable(shadow)} RENAME TO ${id(target.table)}`);
  if (indices.length > 0) {
    const taken = await namesThere(session, target, indices);
    const renames = renameIndicesSql(shadow, target, indices, taken);
    if (renames.length > 0) await session.run(renames.join('; '));
  }
  // A table without a key has none there.
  if ((await relationKind(session, { schema: target.schema, table: shadowKeyName(shadow) })) === null) return;
  const key = keyName(target);
  if ((await relationKind(session, { schema: target.schema, table: key })) !== null) return;
  await session.run(`ALTER TABLE ${quoteTable(target)} RENAME CONSTRAINT ${id(shadowKeyName(shadow))} TO ${id(key)}`);
}

/**
 * $1 the table's OID, $2 names of the columns and $3 of the indexes that are ours → whether nothing would be lost with the table but its rows: an ordinary table with
 * default properties, our columns without rights or options of their own, no comment and no label, and nothing that depends on it but its row
 * type, its TOAST table, its key and what its generated columns compute (https://www.postgresql.org/docs/current/catalog-pg-depend.html).
 */
const IS_PLAIN_SQL = `
  SELECT c.relkind = 'r' AND c.relpersistence = 'p' AND c.relreplident = 'd' AND c.reltablespace = 0 AND c.reloptions IS NULL
    AND NOT c.relrowsecurity AND NOT c.relforcerowsecurity
    AND NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
      AND (a.attacl IS NOT NULL OR a.attoptions IS NOT NULL OR a.attname <> ALL ($2::name[])))
    AND NOT EXISTS (SELECT FROM pg_description d WHERE d.classoid = 'pg_class'::regclass AND d.objoid = c.oid)
    AND NOT EXISTS (SELECT FROM pg_seclabel l WHERE l.classoid = 'pg_class'::regclass AND l.objoid = c.oid)
    AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.refclassid = 'pg_type'::regclass AND d.refobjid = c.reltype AND d.deptype <> 'i')
    AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid = c.oid
      AND NOT (d.classid = 'pg_type'::regclass AND d.objid = c.reltype)
      AND NOT (d.classid = 'pg_class'::regclass AND d.objid = c.reltoastrelid)
      AND NOT (d.classid = 'pg_attrdef'::regclass AND EXISTS (SELECT FROM pg_attrdef f JOIN pg_attribute a ON a.attrelid = f.adrelid
        AND a.attnum = f.adnum WHERE f.oid = d.objid AND f.adrelid = c.oid AND to_jsonb(a) ->> 'attgenerated' <> ''))
      AND NOT (d.classid = 'pg_class'::regclass AND EXISTS (SELECT FROM pg_class x WHERE x.oid = d.objid AND x.relkind = 'i'
        AND x.relname = ANY ($3::name[])))
      AND NOT (d.classid = 'pg_constraint'::regclass
        AND EXISTS (SELECT FROM pg_constraint k WHERE k.oid = d.objid AND k.conrelid = c.oid AND (k.contype IN ('p', 'n')
          OR k.contype = 'u' AND k.conname = ANY ($3::name[]))))) AS plain
  FROM pg_class c WHERE c.oid = $1::regclass`;

async function isPlain(
  session: Session,
  table: TableName,
  row: StreamRow,
  indices: readonly IndexOption[],
): Promise<boolean> {
  const { columns, generated = [] } = row.shape;
  const ours = [
    ...[...columns, ...generated].map(({ name }) => name),
    ...flattenedNames(row.shape),
    ...METADATA_COLUMNS,
  ];
  const { rows } = await session.query<{ plain: boolean }>(IS_PLAIN_SQL, [
    quoteTable(table),
    ours,
    indices.map((index) => indexName(table, index)),
  ]);
  return rows[0]?.plain === true;
}

/** $1 the table's OID → what others than its owner may do with it. */
const RIGHTS_SQL = `
  SELECT CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END AS grantee, a.privilege_type, a.is_grantable
  FROM pg_class c, aclexplode(c.relacl) a WHERE c.oid = $1::regclass AND a.grantee <> c.relowner`;

interface Right extends Row {
  readonly grantee: string;
  readonly privilege_type: string;
  readonly is_grantable: boolean;
}

/** Gives the shadow exactly the rights and the owner of the table. */
async function carryRights(session: Session, table: TableName, shadow: TableName): Promise<void> {
  const before = await session.query<Right>(RIGHTS_SQL, [quoteTable(shadow)]);
  const rights = await session.query<Right>(RIGHTS_SQL, [quoteTable(table)]);
  const owners = await session.query<{ owner: string; same: boolean }>(
    'SELECT pg_get_userbyid(t.relowner)::text AS owner, t.relowner = s.relowner AS same FROM pg_class t, pg_class s WHERE t.oid = $1::regclass AND s.oid = $2::regclass',
    [quoteTable(table), quoteTable(shadow)],
  );
  const on = quoteTable(shadow);
  const statements = [
    ...new Set(before.rows.map(({ grantee }) => `REVOKE ALL ON ${on} FROM ${grantee}`)),
    ...rights.rows.map(
      ({ grantee, privilege_type, is_grantable }) =>
        `GRANT ${privilege_type} ON ${on} TO ${grantee}${is_grantable ? ' WITH GRANT OPTION' : ''}`,
    ),
  ];
  // Last: what others may do is then theirs from the owner.
  const [owner] = owners.rows;
  if (owner && !owner.same) statements.push(`ALTER TABLE ${on} OWNER TO ${id(owner.owner)}`);
  if (statements.length > 0)
    await session.run(statements.join('; '), { action: `carry over the rights on ${displayName(table)}` });
}

/** Keeps the table and replaces its rows. Writes them once more than a swap does, under the lock that keeps readers out. */
async function refill(
  session: Session,
  owner: Owner,
  row: StreamRow,
  plan: PlanRow,
  shadow: TableName,
  { keeping, indices, aside }: Replacing,
  log: Log,
): Promise<Form> {
  const { target } = owner.stream;
  const table = quoteTable(target);
  try {
    await session.run(`TRUNCATE ${table}`);
    await dropUniques(session, target, indices);
    const told = (column: string): void =>
      log.warn('column_kept', { stream: owner.stream.stream, table: displayName(target), column });
    const shape = await reform(session, target, shadow, row, plan, keeping, told);
    const computed = generatedNames(plan.shape);
    const carried = plan.shape.columns.map(({ name }) => name).filter((name) => !computed.has(name));
    const written = [...carried, ...flattenedNames(plan.shape), ...(plan.metadata ? METADATA_COLUMNS : [])];
    if (aside === null || plan.shape.key.length === 0) await session.run(refillSql(target, shadow, written));
    else await refillBut(session, owner, aside, { table: target, shadow, columns: written, shape: plan.shape });
    await session.run(`DROP TABLE ${quoteTable(shadow)}`);
    return { shape, metadata: row.metadata || plan.metadata };
  } catch (error) {
    throw dependentsFault(error);
  }
}

/** Makes the empty table able to hold the shadow's rows; resolves with the shape that it has then. `told`: of a column that could not be dropped. */
async function reform(
  session: Session,
  target: TableName,
  shadow: TableName,
  row: StreamRow,
  plan: PlanRow,
  { on_drop_column }: Keeping,
  told: (column: string) => void,
): Promise<Shape> {
  const [there, wanted] = [await columnsOf(session, target), await columnsOf(session, shadow)];
  const known = new Map(row.shape.columns.map((column) => [column.name, column]));
  const columns = new Map(plan.shape.columns.map((column) => [column.name, column]));
  const planned = new Set([
    ...[...plan.shape.columns, ...(plan.shape.generated ?? [])].map(({ name }) => name),
    ...flattenedNames(plan.shape),
  ]);
  const left = row.shape.columns.filter(({ name }) => !planned.has(name) && there.has(name));
  // One without a number was kept when the source dropped it.
  const hidden = new Set(plan.shape.hidden);
  const dropped = left.filter(
    ({ number }) =>
      number !== undefined && (on_drop_column === 'drop' || hidden.has(number) || isLsnColumn({ number })),
  );
  const kept = left.filter((column) => !dropped.includes(column));
  const beside = (row.shape.flattened?.columns ?? []).filter(({ name }) => !planned.has(name) && there.has(name));
  dropped.push(...beside.map(asKept));
  const table = quoteTable(target);
  const statements = plan.metadata ? [addMetadataSql(target)] : [];
  // Those that are computed go first: they may be made of columns whose type changes.
  const anew = [...there].filter(([name, column]) => {
    const now = wanted.get(name);
    return (
      now !== undefined && (column.generated !== null || now.generated !== null) && column.definition !== now.definition
    );
  });
  statements.push(...anew.map(([name]) => `ALTER TABLE ${table} DROP COLUMN ${id(name)}`));
  const gone = new Set(anew.map(([name]) => name));
  for (const ofGenerated of [false, true]) {
    for (const name of planned) {
      const [before, now] = [there.get(name), wanted.get(name)];
      if (now === undefined || (now.generated !== null) !== ofGenerated) continue;
      if (before === undefined || gone.has(name)) statements.push(`ALTER TABLE ${table} ADD COLUMN ${now.definition}`);
      else if (before.type !== now.type && !staysAsItIs(known.get(name), columns.get(name)))
        statements.push(`ALTER TABLE ${table} ALTER COLUMN ${id(name)} TYPE ${now.type} USING NULL`);
    }
  }
  statements.push(...(await newKey(session, target, plan.shape)));
  if (statements.length > 0) await session.run(statements.join('; '));
  for (const column of dropped) {
    if (await dropColumn(session, target, column.name)) continue;
    kept.push(column);
    told(column.name);
  }
  // What the source no longer has has no number.
  return { ...plan.shape, columns: [...plan.shape.columns, ...kept.map(withoutNumber)] };
}

/** False: something is built on it (dependent_objects_still_exist), and it stays, without values from here on. */
async function dropColumn(session: Session, target: TableName, column: string): Promise<boolean> {
  await session.run('SAVEPOINT drop_column');
  try {
    await session.run(`ALTER TABLE ${quoteTable(target)} DROP COLUMN ${id(column)}; RELEASE SAVEPOINT drop_column`);
    return true;
  } catch (error) {
    if (!(error instanceof SluiceError) || error.facts.sqlstate !== '2BP01') throw error;
    await session.run('ROLLBACK TO SAVEPOINT drop_column; RELEASE SAVEPOINT drop_column');
    return false;
  }
}

/** A type of PostgreSQL's own that the source has not changed may have been changed here by somebody, who knows why. */
function staysAsItIs(before: Column | undefined, now: Column | undefined): boolean {
  return (
    before !== undefined &&
    now !== undefined &&
    sameType(before, now) &&
    before.type === undefined &&
    now.type === undefined
  );
}

/** A column as its table has it. */
interface TableColumn extends Row {
  readonly name: string;
  readonly type: string;
  /** The expression that computes it; null for an ordinary column. */
  readonly generated: string | null;
  /** For ADD COLUMN. */
  readonly definition: string;
}

/** The 18th release's virtual columns are known by their letter; a server without generated columns has none in its catalog. */
async function columnsOf(session: Session, table: TableName): Promise<ReadonlyMap<string, TableColumn>> {
  const { rows } = await session.query<TableColumn>(
    `SELECT c.name, c.type, c.generated, quote_ident(c.name) || ' ' || c.type || COALESCE(' GENERATED ALWAYS AS (' || c.generated
       || CASE c.kind WHEN 'v' THEN ') VIRTUAL' ELSE ') STORED' END, '') AS definition
     FROM (SELECT a.attname::text AS name, format_type(a.atttypid, a.atttypmod) AS type, to_jsonb(a) ->> 'attgenerated' AS kind,
         CASE WHEN to_jsonb(a) ->> 'attgenerated' <> '' THEN pg_get_expr(d.adbin, d.adrelid) END AS generated
       FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
       WHERE a.attrelid = $1::regclass AND a.attnum > 0 AND NOT a.attisdropped) AS c`,
    [quoteTable(table)],
  );
  return new Map(rows.map((column) => [column.name, column]));
}

/** Statements that give the table the shape's key, where it has another one or none. */
async function newKey(session: Session, target: TableName, shape: Shape): Promise<string[]> {
  const { rows } = await session.query<{ conname: string; columns: string[] }>(
    `SELECT k.conname::text, array(SELECT a.attname::text FROM pg_attribute a WHERE a.attrelid = k.conrelid AND a.attnum = ANY (k.conkey)) AS columns
     FROM pg_constraint k WHERE k.conrelid = $1::regclass AND k.contype = 'p'`,
    [quoteTable(target)],
  );
  const [old] = rows;
  const key = keyNames(shape);
  const same =
    old !== undefined && old.columns.length === key.length && key.every((name) => old.columns.includes(name));
  if (same || (old === undefined && key.length === 0)) return [];
  const table = quoteTable(target);
  const drop = old === undefined ? [] : [`ALTER TABLE ${table} DROP CONSTRAINT ${id(old.conname)}`];
  const loosen = (old?.columns ?? [])
    .filter((name) => !key.includes(name))
    .map((name) => `ALTER TABLE ${table} ALTER COLUMN ${id(name)} DROP NOT NULL`);
  return [...drop, ...loosen, ...(key.length === 0 ? [] : [addKeySql(target, old?.conname ?? keyName(target), shape)])];
}

/**
 * The columns beside json columns of a table that is copied anew: made when all chunks are in, for then every key and its kinds are known, and the copy itself is not slowed down.
 *
 * On the path between the last chunk and the shadow's key (finish.ts). The rows go into another table with the columns, which takes the shadow's place: an UPDATE would leave
 * it twice as large as it need be. Two statements, each of which the server finishes whether or not anybody waits for it: the keys are noted in the plan's row, and
 * found there by whoever comes next.
 */
import type { Log } from '../ports.ts';
import type { Flattened, FlattenedColumn, Shape, TableName } from '../shape.ts';
import { quoteIdentifier, quoteLiteral, quoteTable } from '../sql-text.ts';
import { METADATA_COLUMNS } from './columns.ts';
import {
  beginIfMade,
  isOwner,
  type Owner,
  type PlanRow,
  planRowOf,
  planRowSql,
  streamRowOf,
  streamRowSql,
} from './control.ts';
import { grown, type JsonColumn, jsonColumnsOf, knownAgain, NONE, nameOf } from './flatten.ts';
import {
  alterFlattenedSql,
  FIND_PLAINLY_SQL,
  foundKeysOf,
  foundKeysSql,
  readFunctionSql,
  readRow,
} from './flatten-sql.ts';
import { namesThere, tell } from './flatten-table.ts';
import { generatedNames } from './generated.ts';
import { KEY_LIMITS, type Row, type Session } from './session.ts';

const id = quoteIdentifier;

interface Flattening {
  readonly epoch: number;
  readonly plan: string;
  /** target.data_flattening_max_level. */
  readonly level: number;
}

/** To be called when every chunk is in. Done already, or nothing to be done: changes nothing. */
export async function flattenShadow(session: Session, owner: Owner, what: Flattening, log: Log): Promise<void> {
  if (what.level === 0) return;
  for (let failed = null as { readonly sql: string; readonly error: unknown } | null; ; ) {
    const next = await nextStep(session, owner, what, log);
    if (next === null) return;
    // What another finisher has done meanwhile fails here, and is not to be done at the next look.
    if (next.sql === failed?.sql) throw failed.error;
    try {
      await session.runAlone(KEY_LIMITS, next.sql, { action: 'give its shadow table columns for keys of json' });
      next.done();
    } catch (error) {
      failed = { sql: next.sql, error };
    }
  }
}

/** The shape of a plan in between: the keys of its rows are known, down to a level. */
interface FoundShape extends Shape {
  readonly found?: { readonly level: number; readonly keys: readonly Row[] };
}

interface NextStep {
  /** Statements that are a transaction by themselves, with the plan's row locked. */
  readonly sql: string;
  readonly done: () => void;
}

/** Null: all is done. */
async function nextStep(session: Session, owner: Owner, what: Flattening, log: Log): Promise<NextStep | null> {
  const { epoch, plan, level } = what;
  // Locked: another finisher must not rebuild the shadow between a look at the plan and one at the shadow's columns.
  const answer = await beginIfMade(session, planRowSql(owner, epoch, plan, 'FOR SHARE'));
  try {
    const planned = answer && planRowOf(answer);
    if (!planned?.shadow || planned.shape.flattened !== undefined) return null;
    const { shadow } = planned;
    const json = jsonColumnsOf(planned.shape);
    if (json.length === 0) return null;
    const row = streamRowOf(await session.run(streamRowSql(owner, '')));
    const before = row?.shape.flattened ?? NONE;
    const known = row === null ? [] : knownAgain(row.shape, planned.shape, level);
    const lock = planRowSql(owner, epoch, plan, 'FOR UPDATE');
    const mine = `${isOwner(owner)} AND epoch = ${epoch} AND plan = ${quoteLiteral(plan)}`;
    const { found, ...shape } = planned.shape as FoundShape;
    // The option may have been changed since.
    if (found?.level !== level) {
      const keys = foundKeysSql(`${quoteTable(shadow)} t`, json, (name) => `t.${id(name)}`, level, known);
      const note = `UPDATE _sluice.plans SET shape = jsonb_set(shape, '{found}', jsonb_build_object('level', ${level}, 'keys', (SELECT COALESCE(jsonb_agg(to_jsonb(k)), '[]') FROM (${keys}) AS k)))
        WHERE ${mine}`;
      return { sql: [lock, ...readFunctionSql(json), FIND_PLAINLY_SQL, note].join('; '), done: () => undefined };
    }
    const { names, room } = await namesThere(session, shadow);
    const again = { level, columns: renamed(known.slice(0, room), names), is_full: false };
    const rest = { taken: new Set(names), room: room - again.columns.length };
    const { flattened, added } = grown(again, foundKeysOf(found.keys, json), rest);
    const made = quoteLiteral(JSON.stringify({ ...shape, flattened }));
    return {
      sql: [
        lock,
        ...(flattened.columns.length === 0 ? [] : rebuildSql(planned, shadow, json, flattened)),
        `UPDATE _sluice.plans SET shape = ${made}::jsonb WHERE ${mine}`,
      ].join('; '),
      done: () => {
        const facts = { stream: owner.stream.stream, table: owner.stream.target };
        tell(log, facts, before, flattened, { added: added.length, retyped: 0 });
      },
    };
  } finally {
    await session.rollback();
  }
}

/** Under the names that they had, where the new table has nothing of that name. */
function renamed(columns: readonly FlattenedColumn[], there: readonly string[]): FlattenedColumn[] {
  const taken = new Set(there);
  return columns.map((column) => {
    const name = nameOf(column.of, column.path, taken, column.name);
    taken.add(name);
    return { ...column, name };
  });
}

/** The shadow's rows with the columns, in a table that has its name then. Its key is made later (finish.ts). */
function rebuildSql(
  { shape, metadata }: PlanRow,
  shadow: TableName,
  json: readonly JsonColumn[],
  { columns }: Flattened,
): string[] {
  const computed = generatedNames(shape);
  const carried = [...shape.columns.map(({ name }) => name), ...(metadata ? METADATA_COLUMNS : [])]
    .filter((name) => !computed.has(name))
    .map(id);
  const row = readRow(json, (name) => `s.${id(name)}`);
  const [from, into] = [quoteTable(shadow), quoteTable({ ...shadow, table: `${shadow.table}_flat` })];
  const names = [...carried, ...columns.map(({ name }) => id(name))];
  const values = [...carried.map((name) => `s.${name}`), ...columns.map((column) => row.valueOf(column))];
  return [
    ...readFunctionSql(json),
    `DROP TABLE IF EXISTS ${into}`,
    `CREATE TABLE ${into} (LIKE ${from} INCLUDING ALL EXCLUDING INDEXES)`,
    `ALTER TABLE ${into} ${alterFlattenedSql(columns, []).join(', ')}`,
    `INSERT INTO ${into} (${names.join(', ')}) SELECT ${values.join(', ')} FROM ${from} s CROSS JOIN ${row.from}`,
    `DROP TABLE ${from}`,
    `ALTER TABLE ${into} RENAME TO ${id(shadow.table)}`,
  ];
}

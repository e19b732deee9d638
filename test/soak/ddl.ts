/** Changes of a table's shape, one at a time, chosen from what the catalog says at that moment. */
import type { Client } from 'pg';
import { quoteIdentifier as id } from '../../lib/sql-text.ts';

export const DDL_KINDS = ['add', 'drop', 'rename', 'alter', 'rewrite'] as const;
export type DdlKind = (typeof DDL_KINDS)[number];

/** Of columns that are there beside the first three. Few: what is dropped counts against the 1,600 that a table ever has. */
const COLUMNS_MAX = 12;

/** What a column of a type may become, by the type's text, and how its values are made of the old ones. */
const BECOMES: Readonly<Record<string, string>> = {
  integer: 'bigint',
  bigint: 'numeric',
  numeric: 'text',
  'character varying(20)': 'character varying(60)',
  'character varying(60)': 'text',
  date: 'timestamp',
  'timestamp without time zone': 'text',
};
const NEW = [
  'int',
  'int NOT NULL DEFAULT 7',
  'varchar(20)',
  "varchar(20) DEFAULT 'given'",
  'date',
  'jsonb',
  'numeric',
  'boolean DEFAULT true',
] as const;

interface Column {
  readonly name: string;
  readonly type: string;
}

/** Runs one change of `table`; null: there was nothing to do it to. */
export async function changeShape(
  client: Client,
  table: string,
  below: (n: number) => number,
): Promise<DdlKind | null> {
  const { rows } = await client.query<Column>(
    `SELECT attname AS name, format_type(atttypid, atttypmod) AS type FROM pg_attribute
      WHERE attrelid = $1::regclass AND attnum > 1 AND NOT attisdropped ORDER BY attnum`,
    [table],
  );
  const kind = DDL_KINDS[below(DDL_KINDS.length)] ?? 'add';
  const sql = shapeSql(kind, rows, below);
  if (sql === null) return null;
  await client.query(`ALTER TABLE ${table} ${sql}`);
  return kind;
}

function shapeSql(kind: DdlKind, columns: readonly Column[], below: (n: number) => number): string | null {
  const more = columns.slice(2);
  const one = more[below(Math.max(1, more.length))];
  const name = `c${below(1_000_000)}`;
  switch (kind) {
    case 'add':
      return more.length < COLUMNS_MAX ? `ADD COLUMN ${name} ${NEW[below(NEW.length)]}` : null;
    case 'drop':
      return one ? `DROP COLUMN ${id(one.name)}` : null;
    case 'rename':
      return one ? `RENAME COLUMN ${id(one.name)} TO ${name}` : null;
    case 'alter': {
      const able = more.filter(({ type }) => BECOMES[type] !== undefined);
      const column = able[below(Math.max(1, able.length))];
      return column ? `ALTER COLUMN ${id(column.name)} TYPE ${BECOMES[column.type]}` : null;
    }
    case 'rewrite': // The values change, and no row of it is in the log.
      return one?.type === 'integer' ? `ALTER COLUMN ${id(one.name)} TYPE integer USING ${id(one.name)} + 1` : null;
    default:
      return kind satisfies never;
  }
}

/** A row or an update of the table, whatever it looks like by now. */
export async function writeShape(client: Client, table: string, below: (n: number) => number): Promise<number> {
  if (below(3) > 0) {
    const inserted = await client.query(
      `INSERT INTO ${table} (a, b) SELECT ${below(1000)}, 'b' || i FROM generate_series(1, ${1 + below(20)}) i`,
    );
    return inserted.rowCount ?? 0;
  }
  const updated = await client.query(`UPDATE ${table} SET a = COALESCE(a, 0) + 1 WHERE id % 10 = ${below(10)}`);
  const deleted = await client.query(`DELETE FROM ${table} WHERE id < (SELECT max(id) - 3000 FROM ${table})`);
  return (updated.rowCount ?? 0) + (deleted.rowCount ?? 0);
}

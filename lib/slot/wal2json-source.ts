/**
 * What a source that is read by wal2json is asked, and one by pgoutput is not: how its tables stand without a publication, and the numbers that the plugin
 * does not print.
 */
import type { Client } from 'pg';
import { SluiceError } from '../errors.ts';
import type { Published, SourceTable, SpecialNumbers, SpecialNumbersQuery } from '../ports.ts';
import { beginReadOnlySql } from '../postgres/read-only.ts';
import { tableKey } from '../shape.ts';
import { quoteIdentifier, quoteTable } from '../sql-text.ts';

const SEEN_WAIT_MS_MAX = 30_000;
const SEEN_POLL_MS = 50;

/**
 * Without a publication every change is in the log (port Source.published), but for updates and deletions of a table without a replica identity, which a
 * publication would make the source refuse: they pass without a word. So a table is published by what identifies its rows; when that is another
 * one, changes may have been passed over, and the stream is copied anew.
 *
 * A key is known by its constraint, which outlives REINDEX; an index that no constraint stands for, by itself.
 *
 * The log knows a table by its name only: what it did under another name is passed over, and what another did under its name is taken for its own. The
 * row of the table's row type is written anew with each change of its name or schema (and of its owner), and with little else.
 */
const IDENTITIES_SQL = `
  SELECT c.oid::text AS oid,
         c.relreplident::text || ' ' || COALESCE((
           SELECT COALESCE('c' || k.oid::text, 'i' || i.indexrelid::text)
             FROM pg_index i
             LEFT JOIN pg_constraint k ON k.conindid = i.indexrelid AND k.conrelid = i.indrelid AND k.contype IN ('p', 'u')
            WHERE i.indrelid = c.oid AND CASE c.relreplident WHEN 'i' THEN i.indisreplident ELSE i.indisprimary END), '')
           || ' n' || t.xmin::text AS identity
    FROM pg_class c JOIN pg_type t ON t.oid = c.reltype
   WHERE c.oid = ANY ($1::oid[])`;

export async function readIdentities(client: Client, tables: readonly SourceTable[]): Promise<Published> {
  const { rows } = await client.query<{ oid: string; identity: string }>(IDENTITIES_SQL, [
    tables.map(({ oid }) => oid),
  ]);
  const identities = new Map(rows.map(({ oid, identity }) => [Number(oid), identity]));
  return new Map(
    tables.flatMap((table) => {
      const identity = identities.get(table.oid);
      return identity === undefined ? [] : [[tableKey(table), `wal2json ${identity}`]];
    }),
  );
}

/** The names of a table and of some of its columns, as they are now, and the types of these by name. */
const NAMES_SQL = `
  SELECT n.nspname AS schema, c.relname AS table, a.attnum AS number, a.attname AS name,
         format('%I.%I', tn.nspname, t.typname) AS type
    FROM pg_class c
    JOIN pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = ANY ($2::int2[]) AND NOT a.attisdropped
    JOIN pg_type t ON t.oid = a.atttypid
    JOIN pg_namespace tn ON tn.oid = t.typnamespace
   WHERE c.oid = $1::oid`;

interface Name {
  readonly schema: string;
  readonly table: string;
  readonly number: number;
  readonly name: string;
  readonly type: string;
}

/**
 * Rows of the query that have NaN, Infinity or -Infinity now (port Source.specialNumbers). Both statements see one snapshot, so that no name changes in
 * between. A table or a column that is gone has none: what the log left out of it is gone as well.
 */
export async function readSpecialNumbers(
  client: Client,
  { transactions, table, key, columns, rows }: SpecialNumbersQuery,
): Promise<readonly SpecialNumbers[]> {
  await untilSeen(client, transactions);
  await client.query(beginReadOnlySql('REPEATABLE READ'));
  try {
    const { rows: names } = await client.query<Name>(NAMES_SQL, [table, [...key, ...columns]]);
    const byNumber = new Map(names.map((name) => [name.number, name]));
    const keys = key.flatMap((number) => byNumber.get(number) ?? []);
    const [first] = names;
    if (first === undefined || keys.length !== key.length) return [];
    const sql = specialNumbersSql(
      first,
      keys,
      columns.map((number) => byNumber.get(number) ?? null),
    );
    const parameters = key.map((_, i) => rows.map((row) => row[i]));
    const found = await client.query<{ row: string; values: (string | null)[] }>(sql, parameters);
    return found.rows.map(({ row, values }) => ({ row: Number(row) - 1, values }));
  } finally {
    await client.query('ROLLBACK');
  }
}

/**
 * A transaction holds the lock of its own xid until others see what it did. The log has its commit before that; long before, where it waits for a
 * synchronous standby.
 */
async function untilSeen(client: Client, transactions: readonly number[]): Promise<void> {
  const xids = transactions.map(String);
  for (let waited_ms = 0; ; waited_ms += SEEN_POLL_MS) {
    const { rows } = await client.query<{ pid: number | null }>(
      `SELECT pid FROM pg_locks WHERE locktype = 'transactionid' AND mode = 'ExclusiveLock' AND transactionid::text = ANY ($1::text[]) LIMIT 1`,
      [xids],
    );
    const [holder] = rows;
    if (!holder) return;
    if (waited_ms >= SEEN_WAIT_MS_MAX) {
      const reason = `process ${holder.pid} has committed and is not seen by others yet (it may wait for a synchronous standby)`;
      throw new SluiceError('SOURCE_TRANSIENT', { reason, sqlstate: '55P03' });
    }
    await client.query('SELECT pg_sleep($1)', [SEEN_POLL_MS / 1000]);
  }
}

/** One array of text a column of the key; `row` counts from 1. */
function specialNumbersSql(table: Name, key: readonly Name[], columns: readonly (Name | null)[]): string {
  const letters = key.map((_, i) => `k${i}`);
  const special = columns.map((column) => {
    if (column === null) return 'NULL::text';
    const text = `t.${quoteIdentifier(column.name)}::text`;
    return `CASE WHEN ${text} IN ('NaN', 'Infinity', '-Infinity') THEN ${text} END`;
  });
  return `
    SELECT k.n::text AS row, v.values
      FROM unnest(${key.map((_, i) => `$${i + 1}::text[]`).join(', ')}) WITH ORDINALITY AS k(${letters.join(', ')}, n)
      JOIN ONLY ${quoteTable(table)} t
        ON ${key.map(({ name, type }, i) => `t.${quoteIdentifier(name)} = k.k${i}::${type}`).join(' AND ')}
     CROSS JOIN LATERAL (SELECT ARRAY[${special.join(', ')}] AS values) v
     WHERE array_remove(v.values, NULL) <> '{}'`;
}

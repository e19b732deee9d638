/**
 * What is measured: tables of the source with their rows, and the changes that are made to them. Sizes are multiples of those that the names stand for, so that
 * a smaller run does the same in less time.
 */
import type { Client } from 'pg';

/** Of W1 in full. */
const ROWS = 2_000_000;
const INSERTS = 500_000;
const UPDATES = 300_000;
const DELETES = 100_000;
/** Of W2: changes of one transaction. */
const TRANSACTION_CHANGES = 100;
const HOT_UPDATES = 1_000_000;
const HOT_ROWS = 1_000;
const TABLES = 200;
const OTHERS_BYTES = 2e9;

export interface Workload {
  /** Table, as a pipeline file selects it, and a peer copies it. */
  readonly tables: string;
  /** The rows that are there before anything is read; the number of them. */
  fill(client: Client, scale: number): Promise<number>;
  /** What is written after; the number of changes. */
  change(client: Client, scale: number): Promise<number>;
}

/** About 200 bytes a row. */
const WIDE_COLUMNS =
  'id bigint PRIMARY KEY, n int, name text, amount numeric, note text, doc jsonb, made timestamptz, changed timestamptz';

function rowsSql(table: string, from: number, to: number): string {
  return `INSERT INTO ${table} SELECT i, i % 1000, 'name ' || i, i / 7.0, rpad(md5(i::text), 60, 'x'), '{"a": 1, "b": "two"}', now(), now()
    FROM generate_series(${from}, ${to}) i`;
}

async function settled(client: Client): Promise<void> {
  await client.query('VACUUM ANALYZE');
  await client.query('CHECKPOINT');
}

/** W1, and W2 on it: inserts, updates over the whole table, deletes, in transactions of 100. */
export const ROWS_AND_CHANGES: Workload = {
  tables: '[public.w]',
  fill: async (client, scale) => {
    const rows = Math.round(ROWS * scale);
    await client.query(`CREATE TABLE w (${WIDE_COLUMNS})`);
    await client.query(rowsSql('w', 1, rows));
    await settled(client);
    return rows;
  },
  change: async (client, scale) => {
    const rows = Math.round(ROWS * scale);
    const transactions = Math.round(((INSERTS + UPDATES + DELETES) * scale) / TRANSACTION_CHANGES);
    const share = (of: number): number => Math.round((of / (INSERTS + UPDATES + DELETES)) * TRANSACTION_CHANGES);
    const [updates, deletes] = [share(UPDATES), share(DELETES)];
    const inserts = TRANSACTION_CHANGES - updates - deletes;
    // Each row is updated or deleted once: a step that shares no factor with their number comes to all of them, spread over the table.
    const step = coprime(Math.round(rows * 0.618), rows);
    await client.query(`CREATE OR REPLACE PROCEDURE change() LANGUAGE plpgsql AS $$
      DECLARE touched bigint := 0;
      BEGIN
        FOR k IN 0 .. ${transactions - 1} LOOP
          INSERT INTO w SELECT ${rows} + k::bigint * ${inserts} + g, g, 'new ' || g, g / 3.0, rpad(md5(g::text), 60, 'y'), '{"c": 3}', now(), now() FROM generate_series(1, ${inserts}) g;
          UPDATE w SET n = n + 1, changed = now() WHERE id IN (SELECT 1 + ((touched + g) * ${step}) % ${rows} FROM generate_series(1, ${updates}) g);
          DELETE FROM w WHERE id IN (SELECT 1 + ((touched + ${updates} + g) * ${step}) % ${rows} FROM generate_series(1, ${deletes}) g);
          touched := touched + ${updates + deletes};
          COMMIT;
        END LOOP;
      END $$`);
    await client.query('CALL change()');
    return transactions * TRANSACTION_CHANGES;
  },
};

function coprime(from: number, to: number): number {
  const divisor = (a: number, b: number): number => (b === 0 ? a : divisor(b, a % b));
  let step = from;
  while (divisor(step, to) !== 1) step++;
  return step;
}

/** W3: the same few rows again and again. */
export const HOT_KEYS: Workload = {
  tables: '[public.hot]',
  fill: async (client) => {
    await client.query(`CREATE TABLE hot (${WIDE_COLUMNS})`);
    await client.query(rowsSql('hot', 1, HOT_ROWS));
    await settled(client);
    return HOT_ROWS;
  },
  change: async (client, scale) => {
    const transactions = Math.round((HOT_UPDATES * scale) / TRANSACTION_CHANGES);
    await client.query(`CREATE OR REPLACE PROCEDURE heat() LANGUAGE plpgsql AS $$
      BEGIN
        FOR k IN 0 .. ${transactions - 1} LOOP
          UPDATE hot SET n = n + 1, changed = now() WHERE id BETWEEN 1 + (k * ${TRANSACTION_CHANGES}) % ${HOT_ROWS} AND ${TRANSACTION_CHANGES} + (k * ${TRANSACTION_CHANGES}) % ${HOT_ROWS};
          COMMIT;
        END LOOP;
      END $$`);
    await client.query('CALL heat()');
    return transactions * TRANSACTION_CHANGES;
  },
};

/** W4: 200 columns and a text of 20 to 200 KB that lies outside of its row; half of the updates leave it as it is, and half change it. */
export const WIDE_ROWS: Workload = {
  tables: '[public.wide]',
  fill: async (client, scale) => {
    const rows = Math.round(5_000 * scale);
    const columns = Array.from({ length: 200 }, (_, i) => `c${i} ${i % 2 === 0 ? 'text' : 'int'}`).join(', ');
    const values = Array.from({ length: 200 }, (_, i) => (i % 2 === 0 ? `'value ' || i` : 'i')).join(', ');
    await client.query(`CREATE TABLE wide (id bigint PRIMARY KEY, ${columns}, big text)`);
    await client.query(`ALTER TABLE wide ALTER big SET STORAGE EXTERNAL`);
    await client.query(
      `INSERT INTO wide SELECT i, ${values}, repeat(md5(i::text), 640 * (1 + i % 10)) FROM generate_series(1, ${rows}) i`,
    );
    await settled(client);
    return rows;
  },
  change: async (client, scale) => {
    const rows = Math.round(5_000 * scale);
    await client.query(`UPDATE wide SET c1 = c1 + 1 WHERE id % 2 = 0`);
    await client.query(
      `UPDATE wide SET c1 = c1 + 1, big = repeat(md5('x' || id), 640 * (1 + id::int % 10)) WHERE id % 2 = 1`,
    );
    return rows;
  },
};

/** W5: many tables with a few changes each. */
export const manyTables = (tables = TABLES): Workload => ({
  tables: '["many.*"]',
  fill: async (client) => {
    await client.query('CREATE SCHEMA many');
    for (let i = 0; i < tables; i++) {
      await client.query(`CREATE TABLE many.t${i} (${WIDE_COLUMNS})`);
      await client.query(rowsSql(`many.t${i}`, 1, 100));
    }
    await settled(client);
    return tables * 100;
  },
  change: async (client, scale) => {
    const each = Math.max(1, Math.round(scale * 50));
    for (let i = 0; i < tables; i++) {
      await client.query(`UPDATE many.t${i} SET n = n + 1 WHERE id <= ${each}`);
      await client.query(rowsSql(`many.t${i}`, 101, 100 + each));
    }
    return 2 * each * tables;
  },
});

/** W6: one transaction. */
export const ONE_TRANSACTION: Workload = {
  tables: '[public.once]',
  fill: async (client) => {
    await client.query(`CREATE TABLE once (${WIDE_COLUMNS})`);
    return 0;
  },
  change: async (client, scale) => {
    const rows = Math.round(ROWS * scale);
    await client.query(rowsSql('once', 1, rows));
    return rows;
  },
};

/** W7: a selected table that nobody writes to, beside one that is written to and not selected. */
export const OTHERS: Workload = {
  tables: '[public.idle]',
  fill: async (client) => {
    await client.query(`CREATE TABLE idle (${WIDE_COLUMNS})`);
    await client.query(`CREATE TABLE busy (${WIDE_COLUMNS})`);
    return 0;
  },
  change: async (client, scale) => {
    const { rows } = await client.query<{ lsn: string }>('SELECT pg_current_wal_insert_lsn()::text AS lsn');
    const from = rows[0]?.lsn ?? '0/0';
    let next = 1;
    for (;;) {
      await client.query(rowsSql('busy', next, next + 9_999));
      next += 10_000;
      const { rows: far } = await client.query<{ bytes: string }>(
        'SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), $1)::text AS bytes',
        [from],
      );
      if (Number(far[0]?.bytes) >= OTHERS_BYTES * scale) return next - 1;
    }
  },
};

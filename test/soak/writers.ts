/**
 * The load of the soak: several writers, each with a connection and seeded choices of its own, that go on when the source is gone for a while. What became of a
 * transaction whose answer was lost nobody asks: in the end the source itself says what there must be.
 */
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Client } from 'pg';
import { from as copyFrom } from 'pg-copy-streams';
import type { TestPostgres } from '../support/postgres.ts';
import { seededBelow } from '../support/seeded.ts';
import { changeShape, type DdlKind, writeShape } from './ddl.ts';
import { WIDE_COLUMNS } from './tables.ts';

export interface LoadOptions {
  readonly server: TestPostgres;
  readonly seed: number;
  /** Rows of the largest transactions. */
  readonly big_rows: number;
  /** Between two transactions of one writer, on average. */
  readonly pause_ms: number;
}

export interface LoadCounts {
  transactions: number;
  rows: number;
  truncates: number;
  subtransactions: number;
  /** Rows of transactions that rolled back. */
  rolled_back_rows: number;
  /** Times that a connection was lost, or could not be had. */
  interrupted: number;
  readonly ddl: Partial<Record<DdlKind, number>>;
}

export interface Load {
  readonly counts: LoadCounts;
  /** Ends the writers and waits for them. Throws what a writer could not do that is no fault of the line. */
  stop(): Promise<void>;
}

type Below = (n: number) => number;
/** One transaction or more; the answer is how many rows it wrote. */
type Write = (client: Client, below: Below, counts: LoadCounts, options: LoadOptions) => Promise<number>;

const ACCOUNTS = 100_000;
const AGAIN_MS = 250;
/** SQLSTATE classes and codes of a server that goes, comes, or has no room: not the writer's fault. */
const PASSING = /^(08|53|57)/;

export function startLoad(options: LoadOptions): Load {
  const counts: LoadCounts = {
    transactions: 0,
    rows: 0,
    truncates: 0,
    subtransactions: 0,
    rolled_back_rows: 0,
    interrupted: 0,
    ddl: {},
  };
  const stopping = new AbortController();
  const writers = Object.values(WRITERS).map((write, i) =>
    writer(write, options, seededBelow(options.seed + i * 7919), counts, stopping.signal),
  );
  const ended = Promise.all(writers);
  ended.catch(() => undefined); // It is waited for in `stop`.
  return {
    counts,
    stop: async () => {
      stopping.abort();
      await ended;
    },
  };
}

async function writer(write: Write, options: LoadOptions, below: Below, counts: LoadCounts, signal: AbortSignal) {
  let client: Client | null = null;
  while (!signal.aborted) {
    try {
      client ??= await options.server.connect();
      counts.rows += await write(client, below, counts, options);
      counts.transactions += 1;
      await sleep(below(2 * options.pause_ms) + 1);
    } catch (thrown) {
      if (!isPassing(thrown)) throw thrown;
      counts.interrupted += 1;
      // A connection that is not there any more cannot be ended.
      client?.end().catch(() => undefined);
      client = null;
      await sleep(AGAIN_MS);
    }
  }
  await client?.end().catch(() => undefined);
}

function isPassing(thrown: unknown): boolean {
  const { code, message } = thrown as { code?: string; message?: string };
  return (
    PASSING.test(code ?? '') ||
    /^(ECONN|EPIPE)/.test(code ?? '') ||
    /connection|terminat|not queryable/i.test(message ?? '')
  );
}

const affected = async (client: Client, sql: string): Promise<number> => (await client.query(sql)).rowCount ?? 0;

const WRITERS: Readonly<Record<string, Write>> = {
  /** pgbench's transaction. */
  tpcb: async (client, below) => {
    const [aid, tid, delta] = [1 + below(ACCOUNTS), 1 + below(10), below(10_000) - 5_000];
    await client.query(`BEGIN;
      UPDATE pgbench_accounts SET abalance = abalance + ${delta} WHERE aid = ${aid};
      UPDATE pgbench_tellers SET tbalance = tbalance + ${delta} WHERE tid = ${tid};
      UPDATE pgbench_branches SET bbalance = bbalance + ${delta} WHERE bid = 1;
      INSERT INTO pgbench_history (tid, bid, aid, delta, mtime) VALUES (${tid}, 1, ${aid}, ${delta}, CURRENT_TIMESTAMP);
      END`);
    return 4;
  },

  /** Rows that come, change, change their key and go; some within savepoints, some of these rolled back. */
  orders: async (client, below, counts) => {
    let rows = 0;
    await client.query('BEGIN');
    const savepoints = below(8) === 0 ? 1 + below(60) : 0;
    rows += await affected(
      client,
      `INSERT INTO soak.orders (customer, amount, note, placed) SELECT ${below(1000)}, (i * ${below(10_000)})::numeric / 100, E'n\\t' || i || '\\\\', clock_timestamp() FROM generate_series(1, ${1 + below(50)}) i`,
    );
    for (let i = 0; i < savepoints; i++) {
      counts.subtransactions += 1;
      await client.query('SAVEPOINT s');
      const written = await affected(client, `INSERT INTO soak.orders (customer, note) VALUES (${i}, NULL)`);
      const keeps = below(3) > 0;
      await client.query(keeps ? 'RELEASE s' : 'ROLLBACK TO s; RELEASE s');
      if (keeps) rows += written;
      else counts.rolled_back_rows += written;
    }
    rows += await affected(
      client,
      `UPDATE soak.orders SET amount = amount + 0.01, note = CASE WHEN id % 3 = 0 THEN NULL ELSE note END WHERE id % 97 = ${below(97)}`,
    );
    if (below(4) === 0)
      rows += await affected(
        client,
        `UPDATE soak.orders SET id = nextval('soak.orders_id_seq') WHERE id IN (SELECT id FROM soak.orders ORDER BY id LIMIT 5)`,
      );
    rows += await affected(client, 'DELETE FROM soak.orders WHERE id < (SELECT max(id) - 20000 FROM soak.orders)');
    const keeps = below(20) > 0;
    await client.query(keeps ? 'COMMIT' : 'ROLLBACK');
    if (keeps) return rows;
    counts.rolled_back_rows += rows;
    return 0;
  },

  /** Large values that stay where they are, and some that do not. */
  documents: async (client, below) => {
    const id = `id % 20 = ${below(20)}`;
    switch (below(4)) {
      case 0:
        return await affected(
          client,
          `UPDATE soak.documents SET body = repeat(md5(random()::text), ${50 + below(2000)}), version = version + 1 WHERE ${id}`,
        );
      case 1:
        return await affected(
          client,
          `INSERT INTO soak.documents SELECT max(id) + 1, 0, repeat('x', ${below(300_000)}), '{"k": [${below(9)}]}', '[1,  2]' FROM soak.documents`,
        );
      case 2:
        return await affected(
          client,
          'DELETE FROM soak.documents WHERE id < (SELECT max(id) - 300 FROM soak.documents)',
        );
      default:
        return await affected(
          client,
          `UPDATE soak.documents SET version = version + 1, meta = jsonb_build_object('v', version, 't', E'a\\nb') WHERE ${id}`,
        );
    }
  },

  wide: async (client, below) =>
    await affected(client, `UPDATE soak.wide SET c${below(WIDE_COLUMNS)} = ${below(1e9)} WHERE id % 10 = ${below(10)}`),

  keyless: async (client, below) => {
    switch (below(3)) {
      case 0:
        return await affected(client, `UPDATE soak.keyless SET b = b || '.' WHERE a = ${below(30)} AND length(b) < 30`);
      case 1:
        return await affected(
          client,
          `DELETE FROM soak.keyless WHERE ctid IN (SELECT ctid FROM soak.keyless WHERE a = ${below(30)} LIMIT 3)`,
        );
      default:
        return await affected(
          client,
          `INSERT INTO soak.keyless SELECT ${below(30)}, CASE WHEN i % 4 > 0 THEN 'same' END FROM generate_series(1, ${1 + below(5)}) i`,
        );
    }
  },

  /** Bulk loads by COPY, transactions that are large, TRUNCATE. */
  bulk: async (client, below, counts, { big_rows, pause_ms }) => {
    await sleep(below(pause_ms * 60));
    const { rows } = await client.query<{ first: string }>(
      `SELECT setval('soak.bulk_ids', nextval('soak.bulk_ids') + ${big_rows}) - ${big_rows} AS first`,
    );
    const first = Number(rows[0]?.first ?? 0);
    switch (below(6)) {
      case 0: {
        await client.query('TRUNCATE soak.bulk');
        counts.truncates += 1;
        return 0;
      }
      case 1: {
        const lines = Array.from({ length: big_rows }, (_, i) => `${first + i}\tcopied ${i}\n`);
        await pipeline(Readable.from(lines), client.query(copyFrom('COPY soak.bulk FROM STDIN')));
        return big_rows;
      }
      case 2:
        return await affected(client, `UPDATE soak.bulk SET payload = payload || '+' WHERE length(payload) < 100`);
      case 3:
        return await affected(client, `DELETE FROM soak.bulk WHERE id % 3 = ${below(3)}`);
      case 4: {
        // TRUNCATE and rows in one transaction; sometimes it did not happen.
        await client.query('BEGIN; TRUNCATE soak.bulk');
        const written = await affected(
          client,
          `INSERT INTO soak.bulk SELECT ${first} + i, 'after' FROM generate_series(1, 500) i`,
        );
        const keeps = below(3) > 0;
        await client.query(keeps ? 'COMMIT' : 'ROLLBACK');
        if (keeps) counts.truncates += 1;
        else counts.rolled_back_rows += written;
        return keeps ? written : 0;
      }
      default:
        return await affected(
          client,
          `INSERT INTO soak.bulk SELECT ${first} + i, md5(i::text) FROM generate_series(1, ${big_rows}) i`,
        );
    }
  },

  /** A table whose shape changes under its writes. */
  evolving: async (client, below, counts) => {
    const rows = await writeShape(client, 'soak.evolving', below);
    if (below(6) === 0) {
      const kind = await changeShape(client, 'soak.evolving', below);
      if (kind) counts.ddl[kind] = (counts.ddl[kind] ?? 0) + 1;
    }
    return rows;
  },

  /** The one writer of the table that is read by its version: versions are committed in their order. */
  events: async (client, below) =>
    await affected(
      client,
      `INSERT INTO soak.events VALUES (${below(5000)}, nextval('soak.versions'), 'k${below(9)}')
       ON CONFLICT (id) DO UPDATE SET version = EXCLUDED.version, kind = EXCLUDED.kind`,
    ),

  settings: async (client, below) =>
    below(5) === 0
      ? await affected(client, `DELETE FROM soak.settings WHERE name = 'setting ${below(100)}'`)
      : await affected(
          client,
          `INSERT INTO soak.settings VALUES ('setting ${below(100)}', '{"v": ${below(1e6)}}')
           ON CONFLICT (name) DO UPDATE SET value = EXCLUDED.value`,
        ),

  beat: async (client) => await affected(client, 'UPDATE soak.beat SET at = clock_timestamp()'),
};

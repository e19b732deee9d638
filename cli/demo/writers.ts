/**
 * Customers and staff of the demo's shop: a few connections that write to it, each transaction by transaction, as an application does. What they do is
 * chosen so that every kind of change goes through: over several tables, of a key, to a row beside a large value that stays, a TRUNCATE, a rollback.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Client } from 'pg';
import { type Lsn, parseLsn } from '../../lib/lsn.ts';
import { closeClient } from '../../lib/postgres/connection.ts';
import { isTransientState, sqlstateOf } from '../../lib/postgres/faults.ts';
import type { Connect } from '../../lib/postgres/session.ts';
import { quoteTable } from '../../lib/sql-text.ts';
import { PRICES, type ShopSize } from './shop.ts';

export const WRITERS = 4;
/** Between two transactions of a writer, on average: a shop that is busy, on a machine that does something else as well. */
const PAUSE_MS = 18;
/** 32 digits each: about 40 kB, which TOAST keeps outside the row. */
const DESCRIPTION_PARTS = 1250;
const BASKETS_EMPTIED_MS = 8_000;

/** A transaction that has been committed. */
export interface Committed {
  readonly changes: number;
  /** For transactions that put an order into the shop: past its commit, and the time before it. */
  readonly order: { readonly lsn: Lsn; readonly at_ms: number } | null;
}

interface Work {
  /** Of a hundred transactions, how many are this. */
  readonly share: number;
  readonly sql: (size: ShopSize, random: (below: number) => number) => string;
  readonly isOrder?: boolean;
  /** Only when every table has been copied: a key that is left and taken again while its row is copied may halt the stream. */
  readonly isLater?: boolean;
}

const sku = (number: number): string => String(number).padStart(6, '0');
/** The product by its number, whatever its key is at the moment. */
const product = (number: number): string => `sku IN ('P-${sku(number)}', 'R-${sku(number)}')`;

/** Each ends by saying how many rows it has changed. */
const WORKS: readonly Work[] = [
  {
    share: 40,
    isOrder: true,
    sql: ({ customers, products }, random) => {
      const first = 1 + random(products);
      const second = 1 + (first % products);
      const [low, high] = [Math.min(first, second), Math.max(first, second)];
      return `
        WITH made AS (INSERT INTO shop.orders (customer_id, status, total) VALUES (${1 + random(customers)}, 'new', ${random(9000)} / 7.0) RETURNING id),
             lines AS (INSERT INTO shop.order_items SELECT id, line, 'P-${sku(low)}', 1 + line, 3.5 FROM made, generate_series(1, 2) AS line RETURNING 1),
             low AS (UPDATE shop.products SET stock = stock - 1 WHERE ${product(low)} RETURNING 1),
             high AS (UPDATE shop.products SET stock = stock - 2 WHERE ${product(high)} RETURNING 1),
             event AS (INSERT INTO shop.events (kind, payload, amount) SELECT 'order', jsonb_build_object('order', id, 'sku', ${low}), ${random(900)} / 9.0 FROM made RETURNING 1)
        SELECT (SELECT count(*) FROM made) + (SELECT count(*) FROM lines) + (SELECT count(*) FROM low) + (SELECT count(*) FROM high) + (SELECT count(*) FROM event) AS changes`;
    },
  },
  {
    share: 22,
    sql: ({ orders }, random) => `
        WITH moved AS (UPDATE shop.orders SET status = 'shipped', shipped_on = current_date WHERE id = ${1 + random(orders)} RETURNING id),
             event AS (INSERT INTO shop.events (kind, payload, took) SELECT 'shipped', jsonb_build_object('order', id), interval '1.5 ms' FROM moved RETURNING 1)
        SELECT (SELECT count(*) FROM moved) + (SELECT count(*) FROM event) AS changes`,
  },
  {
    share: 10,
    sql: (_, random) =>
      counting(`INSERT INTO shop.events (kind, payload, ip) SELECT 'visit', jsonb_build_object('page', '/p/' || i), '198.51.100.7'
                FROM generate_series(1, ${5 + random(40)}) AS i`),
  },
  {
    share: 8,
    sql: ({ customers }, random) =>
      counting(`INSERT INTO shop.baskets VALUES (${1 + random(customers)}, '[{"sku": "P-000001", "n": 2}]')
                ON CONFLICT (customer_id) DO UPDATE SET items = shop.baskets.items || '[{"sku": "P-000002", "n": 1}]', changed_at = now()`),
  },
  {
    share: 6,
    sql: ({ customers }, random) =>
      counting(
        `UPDATE shop.customers SET credit = COALESCE(credit, 0) + 0.25, note = NULLIF(note, '') WHERE id = ${1 + random(customers)}`,
      ),
  },
  {
    share: 6,
    sql: ({ orders }, random) => {
      const id = 1 + random(orders);
      return `
        WITH lines AS (DELETE FROM shop.order_items WHERE order_id = ${id} RETURNING 1), gone AS (DELETE FROM shop.orders WHERE id = ${id} RETURNING 1)
        SELECT (SELECT count(*) FROM lines) + (SELECT count(*) FROM gone) AS changes`;
    },
  },
  // The price changes, and the description beside it does not: the log leaves it out.
  {
    share: 3,
    sql: ({ products }, random) =>
      counting(`UPDATE shop.products SET price = price * 1.01 WHERE ${product(1 + random(products))}`),
  },
  {
    share: 2,
    sql: ({ products }, random) =>
      counting(`UPDATE shop.products SET description = (SELECT string_agg(md5(i::text || ${random(1e6)}), ' ') FROM generate_series(1, ${DESCRIPTION_PARTS}) AS i)
                WHERE ${product(1 + random(products))}`),
  },
  // The key changes: a delete and an insert on the other side.
  {
    share: 2,
    isLater: true,
    sql: ({ products }, random) =>
      counting(
        `UPDATE shop.products SET sku = translate(left(sku, 1), 'PR', 'RP') || substr(sku, 2) WHERE ${product(1 + random(products))}`,
      ),
  },
  {
    share: 1,
    sql: ({ products }, random) =>
      counting(`INSERT INTO ${quoteTable(PRICES)} VALUES ('P-${sku(1 + random(products))}', date '2027-01-01' + ${random(300)}, ${random(1000)} / 7.0)
                ON CONFLICT (sku, "Valid from") DO UPDATE SET price = excluded.price`),
  },
];

/** `RETURNING` and a count around one INSERT, UPDATE or DELETE. */
function counting(sql: string): string {
  return `WITH changed AS (${sql} RETURNING 1) SELECT count(*) AS changes FROM changed`;
}

export interface Writing {
  /** Ends the writers after the transactions that they are in. */
  stop(): Promise<void>;
  /** Rejects when a writer fails. */
  readonly failed: Promise<never>;
}

export interface Shop {
  readonly connect: Connect;
  readonly size: ShopSize;
  /** Every table has been copied. */
  readonly isCopied: () => boolean;
  readonly onCommitted: (committed: Committed) => void;
}

export function startWriting(shop: Shop): Writing {
  const stopping = new AbortController();
  const failed = Promise.withResolvers<never>();
  failed.promise.catch(() => undefined); // Whoever waits for it hears of it.
  const writers = Array.from({ length: WRITERS }, (_, i) => write(shop, i === 0, stopping.signal).catch(failed.reject));
  return {
    stop: async () => {
      stopping.abort();
      await Promise.all(writers);
    },
    failed: failed.promise,
  };
}

async function write(shop: Shop, empties: boolean, signal: AbortSignal): Promise<void> {
  const { connect, onCommitted } = shop;
  const client = await connect();
  let emptied_ms = performance.now();
  try {
    while (!signal.aborted) {
      if (empties && performance.now() - emptied_ms >= BASKETS_EMPTIED_MS) {
        emptied_ms = performance.now();
        await client.query('TRUNCATE shop.baskets');
        onCommitted({ changes: 1, order: null });
      }
      const committed = await transaction(client, shop);
      if (committed) onCommitted(committed);
      await sleep(Math.random() * 2 * PAUSE_MS, undefined, { signal }).catch(() => undefined); // Cut short by the stop.
    }
  } finally {
    await closeClient(client);
  }
}

const ROLLED_BACK_SHARE = 0.02;

/** Null: it was rolled back, by intent or because two were in each other's way. */
async function transaction(client: Client, { size, isCopied }: Shop): Promise<Committed | null> {
  const work = choose(Math.random(), isCopied());
  try {
    await client.query('BEGIN');
    const { rows } = await client.query<{ changes: string }>(
      work.sql(size, (below) => Math.floor(Math.random() * below)),
    );
    if (Math.random() < ROLLED_BACK_SHARE) {
      await client.query('ROLLBACK');
      return null;
    }
    const at_ms = Date.now();
    await client.query('COMMIT');
    const changes = Number(rows[0]?.changes ?? 0);
    return { changes, order: work.isOrder ? { lsn: await position(client), at_ms } : null };
  } catch (error) {
    if (!isTransientState(sqlstateOf(error))) throw error;
    await client.query('ROLLBACK');
    return null;
  }
}

async function position(client: Client): Promise<Lsn> {
  const { rows } = await client.query<{ lsn: string }>('SELECT pg_current_wal_insert_lsn()::text AS lsn');
  return parseLsn(rows[0]?.lsn ?? '0/0');
}

/** `at` in [0, 1). */
function choose(at: number, isCopied: boolean): Work {
  const works = WORKS.filter(({ isLater }) => isCopied || !isLater);
  let left = at * works.reduce((sum, { share }) => sum + share, 0);
  for (const work of works) {
    left -= work.share;
    if (left < 0) return work;
  }
  throw new RangeError(`no work at ${at}`);
}

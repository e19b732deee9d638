/**
 * The demo's database: a small shop, with what makes replication hard in small doses (keys of two columns and of text, jsonb, arrays, values that TOAST
 * takes out of their rows, a schema and a table with names that need quotes).
 */
import type { Client } from 'pg';
import type { TableName } from '../../lib/shape.ts';
import { quoteTable } from '../../lib/sql-text.ts';

export const PRICES: TableName = { schema: 'Back Office', table: 'Prices, "old" & new' };

export const SHOP_TABLES: readonly TableName[] = [
  PRICES,
  ...['baskets', 'customers', 'events', 'order_items', 'orders', 'products'].map((table) => ({
    schema: 'shop',
    table,
  })),
];

/** How many of each there are. */
export interface ShopSize {
  readonly customers: number;
  readonly products: number;
  readonly orders: number;
  readonly events: number;
}

const LINES_PER_ORDER = 3;
const PRICES_PER_PRODUCT = 2;

/** A shop of about `rows` rows in all. */
export function shopSize(rows: number): ShopSize {
  const part = (share: number): number => Math.max(10, Math.round(rows * share));
  return { customers: part(0.1), products: part(0.02), orders: part(0.16), events: part(0.22) };
}

const SCHEMA_SQL = `
  CREATE SCHEMA shop;
  CREATE SCHEMA "Back Office";
  CREATE TABLE shop.customers (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL, email text NOT NULL, joined_at timestamptz NOT NULL DEFAULT now(), credit numeric(12, 2), note text);
  CREATE TABLE shop.products (
    sku text PRIMARY KEY,
    title text NOT NULL, price numeric(10, 2) NOT NULL, stock int NOT NULL, tags text[] NOT NULL, description text);
  CREATE TABLE shop.orders (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    customer_id bigint NOT NULL, status text NOT NULL, placed_at timestamptz NOT NULL DEFAULT now(), shipped_on date, total numeric(12, 2));
  CREATE TABLE shop.order_items (
    order_id bigint, line smallint, sku text NOT NULL, quantity int NOT NULL, price numeric(10, 2) NOT NULL, PRIMARY KEY (order_id, line));
  CREATE TABLE shop.events (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT clock_timestamp(), kind text NOT NULL, payload jsonb NOT NULL, amount numeric, took interval, ip inet);
  CREATE TABLE shop.baskets (customer_id bigint PRIMARY KEY, items jsonb NOT NULL, changed_at timestamptz NOT NULL DEFAULT now());
  CREATE TABLE ${quoteTable(PRICES)} (sku text, "Valid from" date, price numeric NOT NULL, PRIMARY KEY (sku, "Valid from"))`;

function fillSql({ customers, products, orders, events }: ShopSize): string {
  return `
  INSERT INTO shop.customers (name, email, joined_at, credit, note)
    SELECT 'Customer ' || i, 'c' || i || '@example.org', now() - i * interval '1 hour', i % 500 / 3.0,
           CASE WHEN i % 7 = 0 THEN E'calls\\ttwice\\na day' WHEN i % 5 = 0 THEN '' END
      FROM generate_series(1, ${customers}) AS i;
  INSERT INTO shop.products
    SELECT 'P-' || lpad(i::text, 6, '0'), 'Product ' || i, 1 + i % 900 / 7.0, 1000 + i % 100, ARRAY['tag ' || i % 9, 'a "b", c'], 'Plain.'
      FROM generate_series(1, ${products}) AS i;
  INSERT INTO shop.orders (customer_id, status, placed_at, shipped_on, total)
    SELECT 1 + i % ${customers}, 'paid', now() - i * interval '1 minute', CASE WHEN i % 3 = 0 THEN current_date - i % 90 END, i % 1000 / 9.0
      FROM generate_series(1, ${orders}) AS i;
  INSERT INTO shop.order_items
    SELECT i, line, 'P-' || lpad((1 + (i * 7 + line) % ${products})::text, 6, '0'), 1 + i % 5, line * 2.5
      FROM generate_series(1, ${orders}) AS i, generate_series(1, ${LINES_PER_ORDER}) AS line;
  INSERT INTO shop.events (at, kind, payload, amount, took, ip)
    SELECT now() - i * interval '13 seconds', 'visit', jsonb_build_object('page', '/p/' || i % 50, 'n', i, 'ok', i % 2 = 0),
           CASE WHEN i % 4 = 0 THEN i / 8.0 END, i % 1000 * interval '1 ms', '192.0.2.1'::inet + i % 200
      FROM generate_series(1, ${events}) AS i;
  INSERT INTO ${quoteTable(PRICES)}
    SELECT 'P-' || lpad(i::text, 6, '0'), date '2026-01-01' + month * 30, i / 7.0
      FROM generate_series(1, ${products}) AS i, generate_series(1, ${PRICES_PER_PRODUCT}) AS month;
  ANALYZE`;
}

/** Makes and fills the shop, unless it is there from an earlier demo. */
export async function makeShop(client: Client, size: ShopSize): Promise<void> {
  const { rows } = await client.query<{ there: boolean }>("SELECT to_regnamespace('shop') IS NOT NULL AS there");
  if (rows[0]?.there) return;
  await client.query('BEGIN');
  await client.query(SCHEMA_SQL);
  await client.query(fillSql(size));
  await client.query('COMMIT');
}

/** Rows of the shop as they are now. */
export async function countRows(client: Client): Promise<number> {
  const counts = SHOP_TABLES.map((table) => `(SELECT count(*) FROM ${quoteTable(table)})`).join(' + ');
  const { rows } = await client.query<{ rows: string }>(`SELECT ${counts} AS rows`);
  return Number(rows[0]?.rows ?? 0);
}

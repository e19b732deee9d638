/**
 * The oracle of columns beside json columns: what each row's json says, walked through here, is what the columns have, and every key has one.
 */
import type pg from 'pg';
import { expect } from 'vitest';
import { streamId } from '../../lib/config/stream-id.ts';
import type { Flattened } from '../../lib/shape.ts';
import { quoteIdentifier, quoteTable } from '../../lib/sql-text.ts';
import type { FreshLine } from './fresh-line.ts';

export type Json = null | boolean | number | string | Json[] | { [key: string]: Json };

/** What the target remembers of the table's columns; null: there are none. */
export async function flattenedOf(to: pg.Client, table: string): Promise<Flattened | null> {
  const { rows } = await to.query<{ shape: { flattened?: Flattened } }>(
    'SELECT shape FROM _sluice.streams WHERE target_table = $1',
    [table],
  );
  return rows[0]?.shape.flattened ?? null;
}

/** Differences between the columns and the json of the rows, as sentences. `deep`: down to which level keys must have columns. */
export async function besideFaults(to: pg.Client, table: string, deep: number): Promise<string[]> {
  const flattened = await flattenedOf(to, table);
  const columns = flattened?.columns ?? [];
  const json = await to.query<{ name: string }>(
    `SELECT attname AS name FROM pg_attribute WHERE attrelid = $1::regclass AND atttypid IN ('json'::regtype, 'jsonb'::regtype)
       AND NOT attisdropped AND attname <> ALL ($2)`,
    [quoteTable({ schema: 'public', table }), columns.map(({ name }) => name)],
  );
  const names = [...json.rows, ...columns].map(({ name }) => `${quoteIdentifier(name)}::text`);
  const { rows } = await to.query<(string | null)[]>({
    text: `SELECT ${names.join(', ')} FROM ${quoteTable({ schema: 'public', table })}`,
    rowMode: 'array',
  });
  const faults: string[] = [];
  for (const row of rows) {
    const values = new Map(json.rows.map(({ name }, i) => [name, parsed(row[i] ?? null)]));
    for (const [i, column] of columns.entries()) {
      const got = row[json.rows.length + i] ?? null;
      const value = at(values.get(column.of) ?? null, column.path);
      const want = isObject(value) && !column.objects ? null : value;
      if (!isShownAs(want, got)) faults.push(`${column.name} is ${got} and must be ${JSON.stringify(want)}`);
    }
    for (const [of, value] of values)
      for (const path of leavesOf(value, deep))
        if (!columns.some((column) => column.of === of && isOnTheWay(path, column.path)))
          faults.push(`no column for ${of} ${JSON.stringify(path)}`);
  }
  return faults;
}

/** The key itself, or one that leads to it: an object whose own keys have columns needs none. */
function isOnTheWay(path: readonly string[], to: readonly string[]): boolean {
  return path.every((key, i) => to[i] === key);
}

function parsed(text: string | null): Json {
  return text === null ? null : (JSON.parse(text) as Json);
}

function isObject(value: Json): value is { [key: string]: Json } {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function at(value: Json, path: readonly string[]): Json {
  let found = value;
  for (const key of path) found = isObject(found) && Object.hasOwn(found, key) ? (found[key] ?? null) : null;
  return found;
}

/** A scalar as its text, all else as json that means the same. */
function isShownAs(want: Json, got: string | null): boolean {
  if (want === null || got === null) return want === null && got === null;
  if (typeof want === 'object') return canonical(JSON.parse(got) as Json) === canonical(want);
  return got === String(want);
}

function canonical(value: Json): string {
  if (Array.isArray(value)) return `[${value.map(canonical).join()}]`;
  if (!isObject(value)) return JSON.stringify(value);
  const entries = Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1));
  return `{${entries.map(([key, inner]) => `${JSON.stringify(key)}:${canonical(inner)}`).join()}}`;
}

/** Keys that must have a column. An empty object at the last level has one when it comes; one that came while the level was deeper has no key to make one for. */
function leavesOf(value: Json, deep: number, path: readonly string[] = []): string[][] {
  if (isObject(value) && Object.keys(value).length === 0) return [];
  if (isObject(value) && path.length < deep)
    return Object.entries(value).flatMap(([key, inner]) => leavesOf(inner, deep, [...path, key]));
  return value === null || path.length === 0 ? [] : [[...path]];
}

const T = streamId({ schema: 'public', table: 't' });
export const MADE = `CREATE TABLE t (id int PRIMARY KEY, data jsonb, raw json, v text)`;
/** As the file has it. */
export const level = (n: number): string => `data_flattening_max_level: ${n}`;

/** Writes a row's json, as jsonb and as json. */
export async function put({ from }: FreshLine, id: number, data: Json, raw: Json = null): Promise<void> {
  await from.query(
    `INSERT INTO t (id, data, raw) VALUES ($1, $2, $3) ON CONFLICT (id) DO UPDATE SET data = EXCLUDED.data, raw = EXCLUDED.raw`,
    [id, JSON.stringify(data), raw === null ? null : JSON.stringify(raw)],
  );
}

/** Replicates; then the json is that of the source, and the columns say what it says. */
export async function isTrue(fresh: FreshLine, deep: number, table = 't'): Promise<void> {
  await fresh.equal();
  expect(await besideFaults(fresh.to, table, deep)).toEqual([]);
}

/** Names and types of the target's columns whose name begins so. */
export async function columns({ line }: FreshLine, like = 'data__'): Promise<string[]> {
  return (await line.columns('target', 'public.t')).filter((column) => column.replace('"', '').startsWith(like));
}

/** As the target has it. */
export async function row({ to }: FreshLine, id: number): Promise<Record<string, unknown>> {
  const { rows } = await to.query<Record<string, unknown>>('SELECT * FROM t WHERE id = $1', [id]);
  return rows[0] ?? {};
}

/** Has the table copied anew. */
export async function reset({ line }: FreshLine): Promise<void> {
  await line.ports().ledger.updateBookmark(T, { reset_requested: true });
}

/** How often it was logged. */
export const events = ({ line }: FreshLine, event: string): number =>
  line.log.lines.filter((each) => each.event === event).length;

/**
 * Goal: no name and no value becomes SQL, on either side. Method (quoting here is pg's, not lib's, which is what is tested): names of everything that has one, labels, defaults, comments and values are made of pieces that
 * end a literal, an identifier, a COPY or a comment and then drop a table; the whole line runs over them between real servers, with copies, changes and changes of
 * shape; in the end both sides are equal, and nothing is there that nobody has made, or gone that somebody has.
 */
import * as fc from 'fast-check';
import type pg from 'pg';
import { escapeIdentifier as id, escapeLiteral as text } from 'pg';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { IDENTIFIER_BYTES_MAX } from '../../lib/sql-text.ts';
import { skipDebian, startDebianPostgres } from '../support/debian-postgres.ts';
import { freshLine } from '../support/fresh-line.ts';
import { openLine } from '../support/line.ts';
import { query, startPostgres, type TestPostgres } from '../support/postgres.ts';

/** Databases with tables of their own, for each plugin; SLUICE_HOSTILE_RUNS has another number, and SLUICE_SEED says again what a failure has printed. */
const RUNS = Number(process.env.SLUICE_HOSTILE_RUNS ?? 1);
const TABLES = 4;
const DROP = 'DROP TABLE bystander';
const MAKE = 'CREATE TABLE pwned()';

const PIECES = [
  `"; ${DROP}; --`,
  `'; ${DROP}; --`,
  `\\'; ${DROP}; --`,
  `); ${DROP}; --`,
  `$$; ${MAKE}; --`,
  `$sluice$; ${MAKE}; --`,
  `*/ ${MAKE}; /*`,
  `\n\\.\n${DROP};\n`,
  `\\.\n`,
  '\\N',
  '\\',
  '"',
  "'",
  '""',
  "''",
  '"."',
  '--',
  '/*',
  '*/',
  '$1',
  '%s%I%L',
  '${env:SOURCE_PASSWORD}',
  'U&"\\0022"',
  "E'\\x27'",
  '\t',
  '\r\n',
  '\u001b[2J',
  '\u0001',
  'ʼ',
  '＇',
  '＂',
  '\u2028',
  '../',
  '/etc/passwd',
  ',',
  '.',
  '*',
  '?',
  '(',
  '{',
  '}',
  ' ',
  'x',
  'NULL',
  'pg_temp',
  '__proto__',
];
const piece = fc.constantFrom(...PIECES);
const value = fc.array(piece, { minLength: 1, maxLength: 5 }).map((pieces) => pieces.join(''));
/** The first characters that fit; never a name that PostgreSQL keeps for itself. */
const name = fc.array(piece, { minLength: 1, maxLength: 4 }).map((pieces) => {
  let fitting = '';
  for (const character of pieces.join('')) {
    if (Buffer.byteLength(fitting + character) > IDENTIFIER_BYTES_MAX) break;
    fitting += character;
  }
  return fitting.startsWith('pg_') ? `x${fitting.slice(1)}` : fitting;
});
let embedded: TestPostgres;
let debian: TestPostgres | null = null;
let target: TestPostgres;

beforeAll(async () => {
  [embedded, target] = await Promise.all([startPostgres(), startPostgres()]);
  if (!skipDebian) debian = await startDebianPostgres();
}, 60_000);

afterAll(async () => {
  for (const server of [embedded, debian, target]) await server?.stop();
});

/** Relations that are there: `schema.table` of all but the server's own and ours. */
async function relations(client: pg.Client): Promise<string[]> {
  const { rows } = await client.query<{ name: string }>(
    `SELECT n.nspname || '.' || c.relname AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
      WHERE c.relkind IN ('r', 'v', 'm', 'p') AND n.nspname NOT IN ('pg_catalog', 'information_schema', '_sluice', 'pg_toast')`,
  );
  return rows.map((row) => row.name).sort();
}

const BYSTANDER = 'CREATE TABLE public.bystander (id int PRIMARY KEY); INSERT INTO public.bystander VALUES (1)';
const NAMES = 13;
const VALUES = 8;

/** One table with types of its own, and what happens to it, as SQL. */
function hostileTable(names: readonly string[], values: readonly string[]) {
  const name = (i: number): string => names[i] ?? '';
  const value = (i: number): string => values[i % VALUES] ?? '';
  const at = (i: number): string => `${id(name(0))}.${id(name(i))}`;
  const [table, type, composite, domain] = [at(1), at(2), at(3), at(4)];
  const [key, words, mood, pair, list, field, later, renamed] = [5, 6, 7, 8, 9, 10, 11, 12].map((i) => id(name(i)));
  // A label is a name.
  const labels = ['a', 'b', 'c'].map((first, i) => text(first + value(i).slice(0, 12)));
  const row = (i: number): string =>
    `(${text(`${i}${value(i)}`)}, ${text(value(i + 3))}, ${labels[0]}, ROW(${text(value(i))}, ${i}), ARRAY[${text(value(i))}, NULL, ${text(value(i + 3))}])`;
  return {
    schema: name(0),
    place: `${name(0)}.${name(1)}`,
    create: `
      CREATE SCHEMA ${id(name(0))}; CREATE TYPE ${type} AS ENUM (${labels[0]}, ${labels[1]}); CREATE TYPE ${composite} AS (${field} text, n int);
      CREATE DOMAIN ${domain} AS text CHECK (VALUE <> ${text(`refused ${value(2)}`)});
      CREATE TABLE ${table} (${key} ${domain} PRIMARY KEY, ${words} text DEFAULT ${text(value(2))}, ${mood} ${type}, ${pair} ${composite}, ${list} text[]);
      COMMENT ON TABLE ${table} IS ${text(value(3))}; COMMENT ON COLUMN ${table}.${words} IS ${text(value(3))};
      INSERT INTO ${table} VALUES ${row(1)}, ${row(2)}, ${row(3)};`,
    change: `
      INSERT INTO ${table} VALUES ${row(4)}, ${row(5)}; UPDATE ${table} SET ${words} = ${text(value(7))} WHERE ${pair} IS NOT NULL;
      UPDATE ${table} SET ${key} = ${text(`moved${value(6)}`)} WHERE ${key} = ${text(`1${value(1)}`)}; DELETE FROM ${table} WHERE ${key} = ${text(`2${value(2)}`)};`,
    reshape: `
      ALTER TABLE ${table} ADD ${later} text DEFAULT ${text(value(5))}; ALTER TYPE ${type} ADD VALUE ${labels[2]};
      ALTER TABLE ${table} RENAME ${mood} TO ${renamed}; ALTER TABLE ${table} DROP ${list};`,
    use: `UPDATE ${table} SET ${renamed} = ${labels[2]}, ${later} = ${text(value(4))} WHERE ${words} IS NOT NULL;`,
    anew: `TRUNCATE ${table}; INSERT INTO ${table} (${key}) VALUES (${text(value(0))});`,
  };
}

const tables = fc
  .uniqueArray(name, { minLength: TABLES * NAMES, maxLength: TABLES * NAMES })
  .chain((names) =>
    fc
      .array(value, { minLength: VALUES, maxLength: VALUES })
      .map((values) =>
        Array.from({ length: TABLES }, (_, i) => hostileTable(names.slice(i * NAMES, (i + 1) * NAMES), values)),
      ),
  );

test.each(['pgoutput', 'wal2json'].filter((plugin) => plugin === 'pgoutput' || !skipDebian))(
  'names and values that try to be SQL are names and values: %s',
  { timeout: 600_000 },
  async (plugin) => {
    const source = plugin === 'wal2json' && debian ? debian : embedded;
    const check = fc.asyncProperty(tables, async (made) => {
      const all = (step: 'create' | 'change' | 'reshape' | 'use' | 'anew'): string =>
        made.map((one) => one[step]).join('');
      await using fresh = await freshLine({ source, target }, `${BYSTANDER}; ${all('create')}`, {
        tables: "['*.*']",
        source: `plugin: ${plugin}`,
      });
      const equal = (): Promise<void> => fresh.equal(...made.map(({ schema }) => schema));
      await equal();
      await fresh.from.query(all('change'));
      await equal();
      await fresh.from.query(all('reshape'));
      await fresh.from.query(all('use'));
      await equal();
      await fresh.from.query(all('anew'));
      await equal();
      const expected = ['public.bystander', ...made.map(({ place }) => place)].sort();
      expect(await relations(fresh.from)).toEqual(expected);
      expect(await relations(fresh.to)).toEqual(expected);
    });
    const seed = process.env.SLUICE_SEED;
    await fc.assert(check, { numRuns: RUNS, endOnFailure: true, ...(seed ? { seed: Number(seed) } : {}) });
  },
);

test('users, databases, publications, sessions, readers and tables of the target may be called anything', async () => {
  const hostile = (what: string): string => `${what} "'\\; ${DROP}; --`;
  const names = { role: hostile('r'), database: hostile('d'), reader: hostile('reader'), publication: hostile('p') };
  const there = { schema: hostile('s'), table: hostile('t') };
  const servers = [embedded, target];
  for (const server of servers) {
    await query(
      server,
      `CREATE ROLE ${id(names.role)} LOGIN SUPERUSER PASSWORD ${text(server.password)}; CREATE ROLE ${id(names.reader)}`,
    );
    await query(server, `CREATE DATABASE ${id(names.database)}`);
  }
  const at = ({ host, port, password }: TestPostgres) => ({
    host,
    port,
    password,
    user: names.role,
    database: names.database,
  });
  const [from, to] = [await embedded.connect(names.database), await target.connect(names.database)];
  try {
    await from.query(`${BYSTANDER}; CREATE TABLE loose (n int, v text); INSERT INTO loose VALUES (1, 'a')`);
    const quoted = JSON.stringify;
    await using line = await openLine({
      source: at(embedded),
      target: at(target),
      pipeline: 'hostile',
      config: {
        tables: `[{ table: public.bystander, target_schema: ${quoted(there.schema)}, target_table: ${quoted(there.table)} }, public.loose]`,
        source: `replication_slot: hostile, publication_name: ${quoted(names.publication)}, application_name: ${quoted(`a "'\\; ${DROP}; --`)}`,
        target: `default_target_schema_select_permissions: [${quoted(names.reader)}], primary_key_required: false`,
      },
    });
    await line.settle();
    await from.query(
      "INSERT INTO bystander VALUES (2); INSERT INTO loose VALUES (2, 'b'); DELETE FROM loose WHERE n = 1",
    );
    await line.settle();
    for (const { halt } of line.durable.bookmarks.values()) expect(halt).toBeNull();
    expect((await to.query(`SELECT id FROM ${id(there.schema)}.${id(there.table)} ORDER BY id`)).rows).toEqual([
      { id: 1 },
      { id: 2 },
    ]);
    expect(
      (await from.query('SELECT pubname FROM pg_publication WHERE pubname = $1', [names.publication])).rows,
    ).toHaveLength(1);
    const { rows } = await to.query(
      'SELECT has_table_privilege($1, c.oid, $2) AS reads FROM pg_class c WHERE relname = $3',
      [names.reader, 'SELECT', there.table],
    );
    expect(rows).toEqual([{ reads: true }]);
    expect(await relations(from)).toEqual(['public.bystander', 'public.loose']);
    expect(await relations(to)).toEqual([`${there.schema}.${there.table}`, 'public.loose'].sort());
  } finally {
    await Promise.all([from.end(), to.end()]);
  }
});

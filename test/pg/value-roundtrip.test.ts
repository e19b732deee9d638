/**
 * Every built-in type of every server, with its edge values, by every way that a row takes: PostgreSQL prints the same on both sides (I6).
 * What this finds is written to docs/TYPES.md (SLUICE_WRITE_DOCS=1), or compared with what stands there.
 */
import { readFile, writeFile } from 'node:fs/promises';
import { describe, expect, test } from 'vitest';
import { debianMissing, skipDebian, startDebianPostgres, suiteName } from '../support/debian-postgres.ts';
import { openLine } from '../support/line.ts';
import { startPostgres, type TestPostgres } from '../support/postgres.ts';
import { MAJORS_HERE, type Major } from '../support/servers.ts';
import { type Finding, TypeFindings } from '../support/type-findings.ts';
import {
  type EdgeTable,
  METHODS,
  type Method,
  makeEdgeTables,
  type Printed,
  perform,
  printed,
} from '../support/type-tables.ts';

const PAGE = new URL('../../docs/TYPES.md', import.meta.url);
interface Case {
  readonly from: number;
  readonly to: Major;
  readonly plugin: 'pgoutput' | 'wal2json';
}

/** Debian's, which has wal2json. */
const DEBIAN = 15;
const MAJOR_CASES: readonly Case[] = (
  [
    [10, 18],
    [12, 18],
    [14, 18],
    [16, 18],
    [17, 18],
    [18, 18],
    [18, 17],
    [18, 14],
    [18, 12],
    [18, 10],
    [10, 10],
  ] as const
).map(([from, to]) => ({ from, to, plugin: 'pgoutput' }));
const DEBIAN_CASES: readonly Case[] = [
  { from: DEBIAN, to: 18, plugin: 'pgoutput' },
  { from: DEBIAN, to: 18, plugin: 'wal2json' },
];
const isHere = (major: number): boolean => MAJORS_HERE.some((here) => here === major);
const majorCases = MAJOR_CASES.filter(({ from, to }) => isHere(from) && isHere(to));
/** Floats are printed with up to 17 digits before, and with as few as tell them apart since. */
const SHORT_FLOATS_SINCE = 12;

/** Defaults of both databases that would change what is written or how it is read, if every session did not pin its own. */
const ADVERSE_DEFAULTS = Object.entries({
  datestyle: "'German'",
  intervalstyle: "'sql_standard'",
  timezone: "'Asia/Kathmandu'",
  extra_float_digits: '-15',
  bytea_output: "'escape'",
  client_encoding: "'LATIN1'",
  xmloption: "'document'",
  array_nulls: 'off',
  quote_all_identifiers: 'on',
})
  .map(([name, value]) => `ALTER DATABASE postgres SET ${name} = ${value}`)
  .join('; ');

const findings = new TypeFindings();

describe.each(majorCases)('PostgreSQL $from to $to', (pair) => {
  test('every type', async () => {
    await using source = await startPostgres({ version: majorOf(pair.from) });
    await roundtrip(source, pair);
  });
});

describe.skipIf(skipDebian).each(DEBIAN_CASES)(suiteName('Debian, $plugin'), (pair) => {
  test('every type', async () => {
    await using source = await startDebianPostgres();
    await roundtrip(source, pair);
  });
});

function majorOf(major: number): Major {
  const found = MAJORS_HERE.find((here) => here === major);
  if (found === undefined) throw new RangeError(`there is no package of PostgreSQL ${major}`);
  return found;
}

async function roundtrip(source: TestPostgres, pair: Case): Promise<void> {
  const { from, to, plugin } = pair;
  await using target = await startPostgres({ version: to });
  const [here, there] = [await source.connect(), await target.connect()];
  await there.query('CREATE TABLE public."a Table" (id int PRIMARY KEY)');
  for (const client of [here, there]) await client.query(ADVERSE_DEFAULTS);
  const tables = await makeEdgeTables(here, from, to, plugin === 'wal2json');
  await using line = await openLine({
    source,
    target,
    config: { tables: '[public.v_*, public.k_*]', source: `plugin: ${plugin}` },
  });
  const to_the_bit = from < SHORT_FLOATS_SINCE !== to < SHORT_FLOATS_SINCE;
  for (const method of METHODS) {
    for (const table of tables) await perform(here, table, method);
    await line.settle();
    expect([...line.durable.bookmarks.values()].map(({ halt }) => halt?.message ?? null)).toEqual(
      tables.flatMap(() => [null, null]),
    );
    for (const table of tables) {
      for (const name of [`v_${table.family}`, `k_${table.family}`]) {
        const [mine, theirs] = [await printed(here, name, to_the_bit), await printed(there, name, to_the_bit)];
        expect(
          [...theirs.keys()].filter((column) => !column.startsWith('_sdc_')),
          name,
        ).toEqual([...mine.keys()]);
        compare(pair, table, name, method, mine, theirs);
      }
    }
  }
}

function compare(
  { from, to, plugin }: Case,
  table: EdgeTable,
  name: string,
  method: Method,
  mine: ReadonlyMap<string, Printed>,
  theirs: ReadonlyMap<string, Printed>,
): void {
  for (const [column, { type, values }] of mine) {
    const other = theirs.get(column);
    expect(other?.values, `${name}.${column} after ${method}`).toEqual(values);
    const edge = table.columns.find((candidate) => candidate.name === column);
    if (edge === undefined) continue; // id and n
    const became = becameOf(type, other?.type);
    expect(became, `${name}.${column} is ${type}, and ${other?.type} on the target`).not.toBeNull();
    if (became === null) continue;
    const in_key = name.startsWith('k_');
    findings.add({
      from,
      to,
      plugin,
      method,
      type: column,
      empty: edge.type.values.length === 0,
      in_key,
      became,
    });
  }
}

/** Null: a type that nobody decided on. */
function becameOf(type: string, other: string | undefined): Finding['became'] | null {
  if (other === type) return 'same';
  if (other === 'text') return 'text';
  return /^numeric\(\d+,-?\d+\)(\[\])?$/.test(type) && other === type.replace(/\(.*\)/, '') ? 'numeric' : null;
}

const everyCase = majorCases.length === MAJOR_CASES.length && debianMissing === null;

test.skipIf(!everyCase)('docs/TYPES.md is what was found', async () => {
  expect(findings.pairs, 'pairs of servers that were compared: run the whole file').toBe(
    MAJOR_CASES.length + DEBIAN_CASES.length,
  );
  const page = findings.page();
  if (process.env.SLUICE_WRITE_DOCS === '1') await writeFile(PAGE, page);
  expect(await readFile(PAGE, 'utf8')).toBe(page);
});

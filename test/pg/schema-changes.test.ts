/**
 * Changes of a table's shape, from one real server to another: after each the target has what the source has, text for text; and a table is copied anew
 * only where the log does not hold what its rows have become.
 */
import type { Client } from 'pg';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Line, openLine } from '../support/line.ts';
import { startPostgres, type TestPostgres } from '../support/postgres.ts';

let source: TestPostgres;
let target: TestPostgres;

beforeAll(async () => {
  [source, target] = await Promise.all([startPostgres(), startPostgres()]);
}, 60_000);
afterAll(async () => {
  await Promise.all([source.stop(), target.stop()]);
});

interface Change {
  readonly what: string;
  /** Statements on `t`, of which each is a transaction by itself; an array is one. */
  readonly change: readonly (string | readonly string[])[];
  /** The log does not tell. Absent: the target's table is altered in place. */
  readonly copied_anew?: boolean;
  /** Columns of the target that the source no longer has. */
  readonly kept?: readonly string[];
  readonly target?: string;
  /** `t` before; a table of (id int primary key, v text, n int, w varchar(10)) where it is not said. */
  readonly made?: string;
}

const MADE = 'id int PRIMARY KEY, v text, n int, w varchar(10)';

const CHANGES: readonly Change[] = [
  { what: 'ADD COLUMN', change: ['ALTER TABLE t ADD COLUMN a text'] },
  { what: 'ADD COLUMN with a constant default', change: [`ALTER TABLE t ADD COLUMN a text DEFAULT E'x''\\\\ \\ty'`] },
  {
    what: 'ADD COLUMN with a default that goes at once',
    change: [
      [
        'ALTER TABLE t ADD COLUMN a numeric(10,2) NOT NULL DEFAULT 1.50',
        'ALTER TABLE t ALTER a DROP DEFAULT, ALTER a DROP NOT NULL',
      ],
    ],
  },
  { what: 'ADD COLUMN of an array with a default', change: [`ALTER TABLE t ADD COLUMN a int[] DEFAULT '{1,NULL,3}'`] },
  {
    what: 'ADD COLUMN of boxes with a default',
    change: [
      `ALTER TABLE t ADD COLUMN a box[] DEFAULT '{(1,2),(0,0);(3,4),(1,1)}', ADD COLUMN b box DEFAULT '(1,2),(0,0)'`,
    ],
  },
  {
    what: 'ADD COLUMN with a moment as default',
    change: [`ALTER TABLE t ADD COLUMN a timestamptz DEFAULT now(), ADD COLUMN b bytea DEFAULT '\\x00ff'`],
  },
  {
    what: 'ADD COLUMN with a volatile default',
    change: ['ALTER TABLE t ADD COLUMN a float8 DEFAULT random()'],
    copied_anew: true,
  },
  {
    what: 'ADD COLUMN with an identity',
    change: ['ALTER TABLE t ADD COLUMN a int GENERATED ALWAYS AS IDENTITY'],
    copied_anew: true,
  },
  {
    what: 'ADD COLUMN after VACUUM FULL',
    change: ['VACUUM FULL t', 'ALTER TABLE t ADD COLUMN a int'],
    copied_anew: true,
  },
  { what: 'VACUUM FULL', change: ['VACUUM FULL t'] },
  { what: 'two columns at once', change: ['ALTER TABLE t ADD COLUMN a int DEFAULT 3, ADD COLUMN "B c" text'] },
  { what: 'DROP COLUMN, kept', change: ['ALTER TABLE t DROP COLUMN v'], kept: ['v'] },
  { what: 'DROP COLUMN, dropped', change: ['ALTER TABLE t DROP COLUMN v'], target: 'on_drop_column: drop' },
  { what: 'RENAME COLUMN', change: ['ALTER TABLE t RENAME COLUMN v TO renamed'] },
  { what: 'RENAME of the key', change: ['ALTER TABLE t RENAME COLUMN id TO ident'] },
  {
    what: 'a chain of renames',
    change: [
      [
        'ALTER TABLE t RENAME COLUMN v TO x',
        'ALTER TABLE t RENAME COLUMN w TO v',
        'ALTER TABLE t RENAME COLUMN x TO w',
      ],
    ],
  },
  {
    what: 'a chain of renames of one type',
    made: 'id int PRIMARY KEY, v text, n int, w text',
    change: [
      [
        'ALTER TABLE t RENAME COLUMN v TO x',
        'ALTER TABLE t RENAME COLUMN w TO v',
        'ALTER TABLE t RENAME COLUMN x TO w',
      ],
    ],
  },
  {
    what: 'a name that moves on',
    change: ['ALTER TABLE t RENAME COLUMN v TO old', 'ALTER TABLE t ADD COLUMN v int DEFAULT 4'],
  },
  {
    what: 'drop and add under one name, another type',
    change: [['ALTER TABLE t DROP COLUMN v', 'ALTER TABLE t ADD COLUMN v int DEFAULT 9']],
    target: 'on_drop_column: drop',
  },
  {
    what: 'drop and add under one name and type',
    change: [['ALTER TABLE t DROP COLUMN w', `ALTER TABLE t ADD COLUMN w varchar(10) DEFAULT 'new'`]],
    copied_anew: true,
    kept: ['w_'],
  },
  {
    what: 'drop and add under one name, in two steps',
    change: ['ALTER TABLE t DROP COLUMN v', `UPDATE t SET n = 5 WHERE id = 4`, 'ALTER TABLE t ADD COLUMN v text'],
    target: 'on_drop_column: drop',
  },
  {
    what: 'a kept column makes way',
    change: ['ALTER TABLE t DROP COLUMN v', `UPDATE t SET n = 5 WHERE id = 4`, 'ALTER TABLE t ADD COLUMN v int'],
    kept: ['v_'],
  },
  {
    what: 'a type that cannot hold the old values: they stay beside it',
    change: ['ALTER TABLE t ALTER w TYPE int USING length(w)'],
    copied_anew: true,
    kept: ['w_'],
  },
  {
    what: 'a kept column stays when the table is copied anew',
    change: ['ALTER TABLE t DROP COLUMN w', 'UPDATE t SET n = n + 1 WHERE id = 6', 'ALTER TABLE t ALTER n TYPE bigint'],
    copied_anew: true,
    kept: ['w'],
  },
  { what: 'varchar(10) to varchar(20)', change: ['ALTER TABLE t ALTER w TYPE varchar(20)'] },
  { what: 'varchar(10) to text', change: ['ALTER TABLE t ALTER w TYPE text'] },
  { what: 'int to bigint', change: ['ALTER TABLE t ALTER n TYPE bigint'], copied_anew: true },
  { what: 'key from int to bigint', change: ['ALTER TABLE t ALTER id TYPE bigint'], copied_anew: true },
  {
    what: 'varchar to int, computed',
    change: ['ALTER TABLE t ALTER w TYPE int USING length(w) * 2'],
    copied_anew: true,
    kept: ['w_'],
  },
  { what: 'a type that stays, computed', change: ['ALTER TABLE t ALTER n TYPE int USING n * 2'], copied_anew: true },
  { what: 'another key', change: ['ALTER TABLE t DROP CONSTRAINT t_pkey, ADD PRIMARY KEY (id, v)'], copied_anew: true },
  { what: 'replica identity full', change: ['ALTER TABLE t REPLICA IDENTITY FULL'] },
  {
    what: 'replica identity by another index',
    change: [
      'ALTER TABLE t ALTER v SET NOT NULL',
      'CREATE UNIQUE INDEX t_v ON t (v)',
      'ALTER TABLE t REPLICA IDENTITY USING INDEX t_v',
    ],
    copied_anew: true,
  },
  {
    what: 'many changes, one after another',
    change: [
      'ALTER TABLE t ADD COLUMN a int DEFAULT 1',
      'UPDATE t SET a = 2 WHERE id = 1',
      'ALTER TABLE t RENAME COLUMN a TO b',
      'UPDATE t SET b = 3 WHERE id = 2',
      'ALTER TABLE t DROP COLUMN n',
      `INSERT INTO t (id, v) VALUES (50, 'fifty')`,
      "ALTER TABLE t ADD COLUMN n text DEFAULT 'again'",
      'ALTER TABLE t ALTER w TYPE varchar(40)',
      'DELETE FROM t WHERE id = 3',
    ],
    target: 'on_drop_column: drop',
  },
];

/** In the schema, with the table called `t`, on a connection of its own that is there for nothing else. */
async function run(client: Client, table: string, statements: readonly (string | readonly string[])[]): Promise<void> {
  const named = (statement: string): string => statement.replaceAll(/\bt(?=\b|_)/g, table);
  for (const step of statements) {
    await client.query(typeof step === 'string' ? named(step) : ['BEGIN', ...step.map(named), 'COMMIT'].join('; '));
  }
}

/** Writes that every shape of a table takes. */
async function touch(client: Client, table: string, n: number): Promise<void> {
  const { rows } = await client.query<{ key: string; text: string | null }>(
    `SELECT min(attname) FILTER (WHERE attnum = 1) AS key, max(attname) FILTER (WHERE atttypid = 'text'::regtype) AS text
       FROM pg_attribute WHERE attrelid = '${table}'::regclass AND attnum > 0 AND NOT attisdropped`,
  );
  const { key = 'id', text = null } = rows[0] ?? {};
  await client.query(`DELETE FROM ${table} WHERE "${key}" = ${n % 20}`);
  if (text === null) return;
  await client.query(`UPDATE ${table} SET "${text}" = "${text}" || ' touched ${n}' WHERE "${key}" % 5 = ${n % 5}`);
  await client.query(`INSERT INTO ${table} ("${key}", "${text}") VALUES (${100 + n}, 'row ${n}')`);
}

type Script = (
  line: Line,
  each: (work: (table: string, change: Change) => Promise<void>) => Promise<void>,
  client: Client,
) => Promise<void>;

const SCRIPTS: Readonly<Record<string, Script>> = {
  'between two windows': async (line, each, client) => {
    await each((table, { change }) => run(client, table, change));
    await each((table) => touch(client, table, 1));
    await line.settle();
    await each((table) => touch(client, table, 2));
  },
  'in the middle of a window': async (_line, each, client) => {
    await each((table) => touch(client, table, 1));
    await each((table, { change }) => run(client, table, change));
    await each((table) => touch(client, table, 2));
  },
  'while nobody writes, and then in a window of its own': async (line, each, client) => {
    await each((table) => touch(client, table, 1));
    await each((table, { change }) => run(client, table, change));
    await line.settle();
    await each((table) => touch(client, table, 2));
    await line.window();
  },
};

interface Outcome {
  readonly both: { readonly source: unknown; readonly target: unknown };
  readonly halt: unknown;
  readonly copied_anew: boolean;
  readonly extra: readonly string[];
  /** Rows that have a value in them. */
  readonly extra_values: number;
}

/** One line for all tables that share its options: each change on a table of its own. */
async function outcomes(
  schema: string,
  changes: readonly Change[],
  options: string,
  script: Script,
): Promise<Outcome[]> {
  const client = await source.connect();
  await client.query(`CREATE SCHEMA ${schema}; SET search_path = ${schema}`);
  const table = (change: Change): string => `t${changes.indexOf(change)}`;
  for (const change of changes) {
    await client.query(`CREATE TABLE ${table(change)} (${change.made ?? MADE})`);
    await client.query(
      `INSERT INTO ${table(change)} (id, v, n, w) SELECT i, 'v' || i, i * 10, 'w' || i FROM generate_series(1, 20) i`,
    );
  }
  await using line = await openLine({
    source,
    target,
    pipeline: schema,
    config: { tables: `[${schema}.*]`, target: options },
  });
  await line.settle();
  const each: Parameters<Script>[1] = async (work) => {
    for (const change of changes) await work(table(change), change);
  };
  await script(line, each, client);
  await line.settle();
  const found: Outcome[] = [];
  for (const change of changes) {
    const name = `${schema}.${table(change)}`;
    const names = async (side: 'source' | 'target') =>
      (await line.columns(side, name)).map((column) => column.split(' ')[0] ?? '');
    const own = await names('source');
    const extra = (await names('target')).filter((column) => !own.includes(column));
    const rows = extra.length === 0 ? [] : await line.rows('target', name);
    const at = (await line.columns('target', name)).findIndex((column) => column.split(' ')[0] === extra[0]);
    found.push({
      both: await line.both(name),
      halt: line.bookmark(name).halt,
      copied_anew: line.bookmark(name).epoch > 1,
      extra,
      extra_values: rows.filter((row) => row[at] !== null).length,
    });
  }
  await client.end();
  return found;
}

describe.each(Object.keys(SCRIPTS))('%s', (name) => {
  const found = new Map<Change, Outcome>();

  beforeAll(async () => {
    for (const [i, options] of ['on_drop_column: keep', 'on_drop_column: drop'].entries()) {
      const changes = CHANGES.filter(({ target: wanted = 'on_drop_column: keep' }) => wanted === options);
      const schema = `s${Object.keys(SCRIPTS).indexOf(name)}${i}`;
      const all = await outcomes(schema, changes, options, SCRIPTS[name] as Script);
      changes.forEach((change, at) => found.set(change, all[at] as Outcome));
    }
  }, 120_000);

  test.each(CHANGES)('$what', (change) => {
    const { both, halt, copied_anew, extra, extra_values } = found.get(change) as Outcome;
    expect(both.target).toEqual(both.source);
    expect(halt).toBeNull();
    expect(copied_anew).toBe(change.copied_anew ?? false);
    if (extra.length > 0) expect(extra_values).toBeGreaterThan(15);
    expect(extra.map((column) => column.replace(/_\d{8}_\d{4}$/, '_'))).toEqual(change.kept ?? []);
  });
});

/**
 * Random histories of a table: changes of rows and changes of its shape, in transactions, with windows and restarts between them.
 *
 * A history is a list of steps, each a kind and three numbers. What a step does is decided from its numbers and from what the source's catalog says at
 * that moment, so that a history stays one when steps are taken out of it (shrinking), and replays as it was.
 */
import * as fc from 'fast-check';
import type { Client } from 'pg';
import { sqlstateOf } from '../../lib/postgres/faults.ts';
import { quoteIdentifier as id } from '../../lib/sql-text.ts';

export const STEP_WEIGHTS = {
  insert: 8,
  update: 8,
  update_text: 4,
  rekey: 3,
  delete: 3,
  truncate: 1,
  begin: 4,
  commit: 6,
  rollback: 1,
  add_column: 5,
  drop_column: 3,
  rename_column: 3,
  swap_names: 1,
  change_type: 3,
  change_default: 1,
  change_key: 1,
  change_identity: 2,
  add_label: 2,
  rewrite: 1,
  recreate: 1,
  window: 8,
  settle: 5,
  restart: 2,
} as const;
export type StepKind = keyof typeof STEP_WEIGHTS;

export interface HistoryStep {
  readonly kind: StepKind;
  readonly a: number;
  readonly b: number;
  readonly c: number;
}

const STEPS_MAX = 40;

export const histories: fc.Arbitrary<HistoryStep[]> = fc.array(
  fc.record({
    kind: fc.oneof(
      ...Object.entries(STEP_WEIGHTS).map(([kind, weight]) => ({ weight, arbitrary: fc.constant(kind as StepKind) })),
    ),
    a: fc.nat(999),
    b: fc.nat(999),
    c: fc.nat(999),
  }),
  { minLength: 4, maxLength: STEPS_MAX },
);

/** 3,200 bytes that do not compress: outside its row once it is there (SET STORAGE EXTERNAL). */
const bigText = (n: number): string =>
  `(SELECT string_agg(md5(i::text || '${n}'), '' ORDER BY i) FROM generate_series(1, 100) AS i)`;
const array = (n: number): string => `ARRAY[NULL, ${n}, -${n}]`;

/** Expressions for values of each type, by a number. */
const VALUES: Readonly<Record<string, (n: number) => string>> = {
  int4: (n) => String((n * 7919) % 1000),
  int8: (n) => String(n * 1_000_000_007),
  numeric: (n) => ["'NaN'", '1.50', `${n}.000`, '123456789012345678901234567890.10'][n % 4] as string,
  'numeric(8,2)': (n) => `${n}.25`,
  text: (n) => ["''", "E'a\\tb\\\\'", `'ünï ${n}'`, bigText(n), 'NULL', "E'\\\\N'", "E'line\\nline'"][n % 7] as string,
  'varchar(20)': (n) => `'v${n}'`,
  'varchar(40)': (n) => `'w${n}'`,
  timestamptz: (n) => [`'2024-02-29 12:00:00.00000${n % 10}+05:30'`, "'infinity'", "'0044-03-15 BC'"][n % 3] as string,
  bool: (n) => String(n % 2 === 0),
  jsonb: (n) => `'{"n": ${n}.0, "t": "a\\\\tb"}'`,
  bytea: (n) => `decode(md5('${n}'), 'hex')`,
  'int4[]': array,
  'drawn.mood': (n) => `(enum_range(NULL::drawn.mood))[1 + ${n} % array_length(enum_range(NULL::drawn.mood), 1)]`,
  'drawn.price': (n) => `${n}.5`,
  'drawn.pair': (n) => `ROW(${n}, 'p,${n}')::drawn.pair`,
  'drawn.mood[]': () => `ARRAY['calm', NULL]::drawn.mood[]`,
};
const TYPES = Object.keys(VALUES);

interface DrawnColumn {
  readonly name: string;
  readonly type: string;
  readonly is_key: boolean;
}

/** Objects of the schema `drawn` on the source. */
export const DRAWN_SQL = `
  DROP SCHEMA IF EXISTS drawn CASCADE;
  CREATE SCHEMA drawn;
  CREATE TYPE drawn.mood AS ENUM ('calm', 'Very glad');
  CREATE DOMAIN drawn.price AS numeric(8,2);
  CREATE TYPE drawn.pair AS (n int4, t text);`;

const MADE = '(id int8 PRIMARY KEY, first text, second int4 DEFAULT 5)';

/** Runs the steps that are SQL on the source. What the source itself refuses is no step. */
export class DrawnTable {
  readonly table: string;
  /** What was run, in order: for a report. */
  readonly said: string[] = [];
  #client: Client;
  #isOpen = false;
  #names = 0;
  #dropped: string[] = [];

  constructor(client: Client, table: string) {
    this.#client = client;
    this.table = table;
  }

  /** `types`: numbers that choose the types of further columns. */
  async make(types: readonly number[]): Promise<void> {
    await this.#run(`CREATE TABLE ${this.#sql} ${MADE}; ALTER TABLE ${this.#sql} ALTER first SET STORAGE EXTERNAL`);
    for (const [i, n] of types.entries()) {
      await this.#run(`ALTER TABLE ${this.#sql} ADD COLUMN ${id(`Drawn ${i}`)} ${TYPES[n % TYPES.length] ?? 'text'}`);
    }
    await this.#run(`INSERT INTO ${this.#sql} SELECT i, 'row ' || i FROM generate_series(1, 20) AS i`);
  }

  /** Ends the transaction that is open, so that a window sees everything. */
  async end(): Promise<void> {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    await this.#run('COMMIT');
  }

  async take({ kind, a, b, c }: HistoryStep): Promise<void> {
    const columns = await this.#columns();
    const others = columns.filter(({ is_key }) => !is_key);
    const column = others[b % Math.max(1, others.length)];
    const name = column === undefined ? '' : id(column.name);
    const alter = `ALTER TABLE ${this.#sql}`;
    switch (kind) {
      case 'begin':
        if (this.#isOpen) return;
        this.#isOpen = true;
        return await this.#run('BEGIN');
      case 'commit':
        return await this.end();
      case 'rollback':
        if (!this.#isOpen) return;
        this.#isOpen = false;
        return await this.#run('ROLLBACK');
      case 'insert': {
        const values = columns.map(({ name: of, type }) => (of === 'id' ? 'i' : valueOf(type, a + c)));
        const from = `generate_series(${100 + a * 3}, ${100 + a * 3 + (b % 5)}) AS i`;
        return await this.#try(
          `INSERT INTO ${this.#sql} (${columns.map((of) => id(of.name)).join(', ')}) SELECT ${values.join(', ')} FROM ${from} ON CONFLICT DO NOTHING`,
        );
      }
      case 'update':
        if (!column) return;
        return await this.#try(
          `UPDATE ${this.#sql} SET ${name} = ${valueOf(column.type, a)} WHERE id % ${2 + (c % 5)} = 0`,
        );
      case 'update_text': {
        // Leaves every big value unchanged, and so out of the log (I7).
        const small = others.filter(({ type }) => type !== 'text')[0];
        if (!small) return;
        return await this.#try(
          `UPDATE ${this.#sql} SET ${id(small.name)} = ${valueOf(small.type, a)} WHERE id % ${1 + (c % 3)} = 0`,
        );
      }
      case 'rekey':
        return await this.#try(
          `UPDATE ${this.#sql} SET id = id + ${10_000 + a} WHERE id = (SELECT min(id) FROM ${this.#sql} WHERE id > ${b % 50})`,
        );
      case 'delete':
        return await this.#try(`DELETE FROM ${this.#sql} WHERE id % ${2 + (a % 7)} = 1`);
      case 'truncate':
        return await this.#try(`TRUNCATE ${this.#sql}`);
      case 'add_column': {
        const type = TYPES[a % TYPES.length] as string;
        const fallback = valueOf(type, c);
        const constraints = [
          '',
          ` DEFAULT ${type.startsWith('drawn.mood') || fallback.includes('SELECT') ? 'NULL' : fallback}`,
          type === 'text' ? ' DEFAULT clock_timestamp()::text' : '',
          type === 'int4' ? ` NOT NULL DEFAULT (random() * 1000)::int4` : '',
          type === 'int8' ? ' GENERATED BY DEFAULT AS IDENTITY' : '',
        ];
        await this.#try(`${alter} ADD COLUMN ${id(this.#name(b))} ${type}${constraints[c % constraints.length]}`);
        if (type === 'text' && c % 2 === 0) return;
        // Django's way: the default is gone before anybody looks.
        if (b % 4 === 0) await this.#try(`${alter} ALTER ${id(this.#last)} DROP DEFAULT`);
        return;
      }
      case 'drop_column':
        if (!column) return;
        this.#dropped.push(column.name);
        return await this.#try(`${alter} DROP COLUMN ${name}`);
      case 'rename_column':
        if (!column) return;
        return await this.#try(`${alter} RENAME COLUMN ${name} TO ${id(this.#name(a))}`);
      case 'swap_names': {
        const [x, y] = others;
        if (!x || !y) return;
        const rename = (from: string, to: string): string => `${alter} RENAME COLUMN ${id(from)} TO ${id(to)}`;
        return await this.#try([rename(x.name, 'swap'), rename(y.name, x.name), rename('swap', y.name)].join('; '));
      }
      case 'change_type':
        if (!column) return;
        return await this.#try(
          `${alter} ALTER ${name} DROP DEFAULT, ALTER ${name} TYPE ${typeAfter(column.type, a, name)}`,
        );
      case 'change_default':
        if (!column) return;
        return await this.#try(`${alter} ALTER ${name} SET DEFAULT ${valueOf(column.type, a)}`);
      case 'change_key': {
        const key = columns.filter(({ is_key }) => is_key);
        const added = key.length > 1 ? '' : ', k';
        if (added !== '') await this.#try(`${alter} ADD COLUMN k int8 NOT NULL DEFAULT 7`);
        return await this.#try(
          `${alter} DROP CONSTRAINT ${id(`${this.table}_pkey`)}, ADD CONSTRAINT ${id(`${this.table}_pkey`)} PRIMARY KEY (id${added})`,
        );
      }
      case 'change_identity':
        return await this.#try(`${alter} REPLICA IDENTITY ${a % 2 === 0 ? 'FULL' : 'DEFAULT'}`);
      case 'add_label':
        return await this.#try(`ALTER TYPE drawn.mood ADD VALUE IF NOT EXISTS 'label ${a % 9}' BEFORE 'Very glad'`);
      case 'rewrite':
        return await this.#try(
          this.#isOpen ? `CLUSTER ${this.#sql} USING ${id(`${this.table}_pkey`)}` : `VACUUM FULL ${this.#sql}`,
        );
      case 'recreate':
        this.#dropped = [];
        return await this.#try(`DROP TABLE ${this.#sql}; CREATE TABLE ${this.#sql} ${MADE}`);
      case 'window':
      case 'settle':
      case 'restart':
        return;
      default:
        kind satisfies never;
    }
  }

  get #sql(): string {
    return `drawn.${id(this.table)}`;
  }

  #last = '';

  /** A new name, or one that a dropped column had. */
  #name(n: number): string {
    const again = n % 3 === 0 ? this.#dropped.pop() : undefined;
    this.#last = again ?? `c${++this.#names}`;
    return this.#last;
  }

  async #columns(): Promise<DrawnColumn[]> {
    const { rows } = await this.#client.query<DrawnColumn>(
      `SELECT a.attname AS name, format_type(a.atttypid, a.atttypmod) AS type,
              COALESCE(a.attnum = ANY (k.conkey), false) AS is_key
         FROM pg_attribute a LEFT JOIN pg_constraint k ON k.conrelid = a.attrelid AND k.contype = 'p'
        WHERE a.attrelid = $1::regclass AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum`,
      [this.#sql],
    );
    return rows;
  }

  async #run(sql: string): Promise<void> {
    this.said.push(sql);
    await this.#client.query(sql);
  }

  /** What the source refuses (a value that does not fit, a column that others need) did not happen. */
  async #try(sql: string): Promise<void> {
    if (this.#isOpen) await this.#client.query('SAVEPOINT step');
    try {
      await this.#run(sql);
    } catch (error) {
      if (sqlstateOf(error) === '') throw error;
      this.said.pop();
      if (this.#isOpen) await this.#client.query('ROLLBACK TO step');
    }
  }
}

function valueOf(type: string, n: number): string {
  const names: Readonly<Record<string, string>> = {
    integer: 'int4',
    bigint: 'int8',
    boolean: 'bool',
    'timestamp with time zone': 'timestamptz',
    'character varying(20)': 'varchar(20)',
    'character varying(40)': 'varchar(40)',
    'integer[]': 'int4[]',
  };
  const value = VALUES[names[type] ?? type];
  return value ? value(n) : 'NULL';
}

/** Some are lossless, some write the rows anew, some compute. */
function typeAfter(type: string, n: number, name: string): string {
  const ways = [
    'text',
    `varchar(40) USING left(${name}::text, 40)`,
    `int8 USING length(${name}::text)`,
    `numeric USING length(${name}::text) * 1.50`,
    ...(type === 'integer' ? ['int8', 'numeric'] : []),
    ...(type === 'numeric(8,2)' ? ['numeric(12,2)', 'numeric'] : []),
  ];
  return ways[n % ways.length] as string;
}

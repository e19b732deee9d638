/**
 * Goal: a reset replaces a table's rows and loses nothing that somebody has built on the table; readers see the old rows or the new ones.
 * Method: things are built on a loaded table, a reset runs, and the things are looked at.
 */
import type pg from 'pg';
import { describe, expect, test } from 'vitest';
import type { Target, TargetStream } from '../../lib/ports.ts';
import type { Shape } from '../../lib/shape.ts';
import {
  applyCut,
  onLoaderServer,
  rowsOf,
  streamOf,
  synchronise,
  type TargetFor,
  targetOn,
} from '../support/loading.ts';
import type { TestPostgres } from '../support/postgres.ts';
import { type Line, segmentOf, shapeOf } from '../support/segments.ts';

let server: TestPostgres;
let client: pg.Client;

onLoaderServer((opened) => {
  ({ server, client } = opened);
});

const SHAPE = shapeOf({ id: 'int4', a: 'text' }, ['id']);
let tables = 0;

/** A loaded stream, with what `build` makes of its table's name. */
async function loaded(build: (table: string) => string, options: TargetFor = {}) {
  const stream = streamOf({ schema: 'swap', table: `t${++tables}` });
  const target = targetOn(server, options);
  await synchronise(target, stream, SHAPE, [
    [
      ['1', 'old'],
      ['2', 'old'],
    ],
  ]);
  const table = `swap.${stream.target.table}`;
  const sql = build(table);
  if (sql !== '') await client.query(sql);
  return { stream, target, table, before: await oid(table) };
}

async function reset(
  target: Target,
  stream: TargetStream,
  shape: Shape = SHAPE,
  lines: Line[] = [
    ['2', 'new'],
    ['3', 'new'],
  ],
): Promise<void> {
  await synchronise(target, stream, shape, [lines], { number: 2, kind: 'reset', plan: 'reset' });
}

async function oid(table: string): Promise<unknown> {
  return (await client.query<{ oid: string }>('SELECT $1::regclass::oid::text AS oid', [table])).rows[0]?.oid;
}

const RESET_ROWS = [
  ['2', 'new'],
  ['3', 'new'],
];

describe('by rename', () => {
  test('a table that nobody has built on is replaced', async () => {
    const { stream, target, table, before } = await loaded(() => '');
    await reset(target, stream);
    expect(await rowsOf(client, stream.target)).toEqual(RESET_ROWS);
    expect(await oid(table)).not.toBe(before);
  });

  test('its rights and its owner go along, and no others come', async () => {
    await client.query(`CREATE ROLE "Re ader"; CREATE ROLE writer; CREATE ROLE boss; CREATE ROLE stranger; CREATE SCHEMA IF NOT EXISTS swap;
      GRANT CREATE, USAGE ON SCHEMA swap TO boss`);
    const { stream, target, table, before } = await loaded(
      (
        name,
      ) => `GRANT SELECT ON ${name} TO "Re ader" WITH GRANT OPTION; GRANT SELECT, UPDATE ON ${name} TO writer; GRANT SELECT ON ${name} TO PUBLIC;
        ALTER TABLE ${name} OWNER TO boss; ALTER DEFAULT PRIVILEGES IN SCHEMA swap GRANT DELETE ON TABLES TO stranger`,
    );
    const rights = async () =>
      (
        await client.query(
          `SELECT a.grantee::regrole::text, a.privilege_type, a.is_grantable, a.grantor::regrole::text, c.relowner::regrole::text
           FROM pg_class c, aclexplode(c.relacl) a WHERE c.oid = $1::regclass ORDER BY 1, 2`,
          [table],
        )
      ).rows;
    const had = await rights();
    await reset(target, stream);
    expect(await oid(table)).not.toBe(before);
    expect(await rights()).toEqual(had);
    expect(had).toHaveLength(
      12 + (had.some((right) => (right as { privilege_type: string }).privilege_type === 'MAINTAIN') ? 0 : -1),
    );
    await client.query('ALTER DEFAULT PRIVILEGES IN SCHEMA swap REVOKE DELETE ON TABLES FROM stranger');
  });

  test('its key has the name that PostgreSQL gives one, cut to the limit', async () => {
    const name = 'ä'.repeat(31);
    const stream = streamOf({ schema: 'swap', table: name });
    const target = targetOn(server);
    await synchronise(target, stream, SHAPE, [[]]);
    const key = async () =>
      (
        await client.query<{ conname: string }>(
          `SELECT conname FROM pg_constraint WHERE conrelid = 'swap."${name}"'::regclass AND contype = 'p'`,
        )
      ).rows;
    expect(await key()).toEqual([{ conname: `${'ä'.repeat(29)}_pkey` }]);
    await reset(target, stream);
    expect(await key()).toEqual([{ conname: `${'ä'.repeat(29)}_pkey` }]);
  });

  test('a key’s name that is taken stays a name of ours', async () => {
    await client.query('CREATE SCHEMA IF NOT EXISTS swap; CREATE TABLE swap.busy_pkey ()');
    const stream = streamOf({ schema: 'swap', table: 'busy' });
    await synchronise(targetOn(server), stream, SHAPE, [[['1', 'a']]]);
    expect(await rowsOf(client, stream.target)).toEqual([['1', 'a']]);
  });

  test('a new shape comes with it: columns gone, types changed, another key', async () => {
    const { stream, target, table } = await loaded(() => '');
    const shape = shapeOf({ a: 'varchar', id: 'text', n: 'int8' }, ['a']);
    await reset(target, stream, shape, [['k', 'x', '1']]);
    expect((await client.query(`SELECT * FROM ${table}`)).rows).toMatchObject([{ a: 'k', id: 'x', n: '1' }]);
    await applyCut(target, stream, [segmentOf({ shape, blocks: [{ kind: 'upsert', lines: [['k', 'y', null]] }] })]);
    expect(await rowsOf(client, stream.target)).toEqual([['k', 'y', null]]);
  });

  test('with a new target: the old table stays as it is, the new one is the stream’s', async () => {
    const { stream, target } = await loaded(() => '');
    const moved = { ...stream, target: { schema: 'swap', table: `moved${tables}` } };
    await reset(target, moved);
    expect(await rowsOf(client, moved.target)).toEqual(RESET_ROWS);
    expect(await rowsOf(client, stream.target)).toEqual([
      ['1', 'old'],
      ['2', 'old'],
    ]);
    await applyCut(target, moved, [segmentOf({ shape: SHAPE, blocks: [{ kind: 'upsert', lines: [['9', 'x']] }] })]);
    await expect(applyCut(target, stream, [])).rejects.toMatchObject({ code: 'TARGET_TABLE_MOVED' });
  });

  test('in soft mode the rows that were kept since their deletion are gone', async () => {
    const { stream, target } = await loaded(() => '', { hard_delete: false, add_metadata_columns: true });
    await applyCut(target, stream, [
      segmentOf({ shape: SHAPE, blocks: [{ kind: 'delete', lines: [['1', '2026-01-01 00:00:00+00']] }] }),
    ]);
    await reset(target, stream);
    expect(await rowsOf(client, stream.target)).toEqual(RESET_ROWS);
  });

  test('readers see the old rows or the new ones, and nothing else', async () => {
    const { stream, target, table } = await loaded(() => '');
    const seen = new Set<string>();
    const done = new AbortController();
    const read = async (): Promise<void> => {
      const reader = await server.connect();
      while (!done.signal.aborted) {
        const { rows } = await reader.query<{ all: string }>(
          `SELECT string_agg(id || a, ' ' ORDER BY id) AS all FROM ${table}`,
        );
        seen.add(String(rows[0]?.all));
      }
      await reader.end();
    };
    const readers = [read(), read()];
    await reset(target, stream);
    done.abort();
    await Promise.all(readers);
    expect([...seen].filter((rows) => rows !== '1old 2old' && rows !== '2new 3new')).toEqual([]);
    expect(seen).toContain('1old 2old');
  });

  test('a reader that does not end: transient, soon, and the old rows stay', async () => {
    const patience = { limits: { statement_ms: 60_000, lock_ms: 100 }, pauses_ms: [10, 20] };
    const { stream, target, table } = await loaded(() => '', { patience });
    const reader = await server.connect();
    await reader.query(`BEGIN; SELECT FROM ${table}`);
    const before_ms = Date.now();
    await expect(reset(target, stream)).rejects.toMatchObject({
      code: 'TARGET_TRANSIENT',
      facts: { sqlstate: '55P03' },
    });
    expect(Date.now() - before_ms).toBeGreaterThanOrEqual(3 * 100);
    const waits = target.events.filter(({ event }) => event === 'swap_waits_for_lock');
    expect(waits.map(({ facts }) => facts.pause_ms)).toEqual([10, 20]);
    expect(await rowsOf(reader, stream.target)).toEqual([
      ['1', 'old'],
      ['2', 'old'],
    ]);
    await reader.query('COMMIT');
    await reader.end();
    await reset(target, stream);
    expect(await rowsOf(client, stream.target)).toEqual(RESET_ROWS);
  });
});

describe('in place, where something would be lost with the table', () => {
  test.each([
    ['a view', (t: string) => `CREATE VIEW ${t}_view AS SELECT id, a FROM ${t}`],
    ['a materialized view', (t: string) => `CREATE MATERIALIZED VIEW ${t}_mat AS SELECT id FROM ${t}`],
    [
      'a function that takes its row',
      (t: string) => `CREATE FUNCTION ${t}_f(${t}) RETURNS int LANGUAGE sql AS 'SELECT 1'`,
    ],
    ['an index', (t: string) => `CREATE INDEX ON ${t} (a)`],
    [
      'a trigger',
      (t: string) => `CREATE FUNCTION ${t}_g() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
      CREATE TRIGGER g BEFORE INSERT ON ${t} FOR EACH ROW EXECUTE FUNCTION ${t}_g()`,
    ],
    ['a policy', (t: string) => `CREATE POLICY p ON ${t} USING (true)`],
    ['row security', (t: string) => `ALTER TABLE ${t} ENABLE ROW LEVEL SECURITY`],
    ['a publication', (t: string) => `CREATE PUBLICATION pub_${t.replace('.', '_')} FOR TABLE ${t}`],
    ['a check', (t: string) => `ALTER TABLE ${t} ADD CHECK (id > 0)`],
    ['a comment', (t: string) => `COMMENT ON COLUMN ${t}.a IS 'a'`],
    ['a right on a column', (t: string) => `GRANT SELECT (a) ON ${t} TO PUBLIC`],
    ['an option', (t: string) => `ALTER TABLE ${t} SET (fillfactor = 50)`],
    ['a default', (t: string) => `ALTER TABLE ${t} ALTER COLUMN a SET DEFAULT 'x'`],
    ['statistics', (t: string) => `CREATE STATISTICS ${t}_stat ON id, a FROM ${t}`],
    ['a replica identity', (t: string) => `ALTER TABLE ${t} REPLICA IDENTITY FULL`],
    ['a child', (t: string) => `CREATE TABLE ${t}_child () INHERITS (${t})`],
    [
      'a foreign key of its own',
      (t: string) => `CREATE TABLE ${t}_ref (id int PRIMARY KEY); INSERT INTO ${t}_ref VALUES (1), (2), (3);
      ALTER TABLE ${t} ADD FOREIGN KEY (id) REFERENCES ${t}_ref`,
    ],
  ])('%s', async (_what, build) => {
    const { stream, target, table, before } = await loaded(build);
    await reset(target, stream);
    expect(await rowsOf(client, stream.target)).toEqual(RESET_ROWS);
    expect(await oid(table)).toBe(before);
    expect(
      (await client.query(`SELECT relname FROM pg_class WHERE relkind = 'r' AND relname LIKE '\\_sluice\\_shadow%'`))
        .rows,
    ).toEqual([]);
    await applyCut(target, stream, [
      segmentOf({ shape: SHAPE, blocks: [{ kind: 'upsert', lines: [['3', 'later']] }] }),
    ]);
    expect(await rowsOf(client, stream.target)).toEqual([
      ['2', 'new'],
      ['3', 'later'],
    ]);
  });

  test('a column that somebody has added', async () => {
    const { stream, target } = await loaded((t) => `ALTER TABLE ${t} ADD COLUMN note text DEFAULT 'mine'`);
    await reset(target, stream);
    expect(await rowsOf(client, stream.target)).toEqual([
      ['2', 'new', 'mine'],
      ['3', 'new', 'mine'],
    ]);
  });

  test('a new shape: columns are added and kept, and change type and key while the table is empty', async () => {
    const { stream, target, table, before } = await loaded((t) => `CREATE INDEX ON ${t} (a)`);
    const shape = shapeOf({ a: 'int8', z: 'date' }, ['a']);
    await reset(target, stream, shape, [
      ['7', '2026-01-01'],
      ['8', null],
    ]);
    expect(await oid(table)).toBe(before);
    expect(await rowsOf(client, stream.target, 'a, z, id')).toEqual([
      ['7', '2026-01-01', null],
      ['8', null, null],
    ]);
    await applyCut(target, stream, [
      segmentOf({
        shape,
        blocks: [
          {
            kind: 'upsert',
            lines: [
              ['7', null],
              ['9', null],
            ],
          },
        ],
      }),
    ]);
    expect(await rowsOf(client, stream.target, 'a')).toEqual([['7'], ['8'], ['9']]);
  });

  test.each([
    ['keep', 'kept', 'CREATE INDEX ON % (b)', ['a', 'b', 'id'], ['2', 'new', 'kept']],
    ['drop', 'dropped', 'CREATE INDEX ON % (b)', ['b', 'id'], ['2', 'new']],
    ['drop', 'kept without values', 'CREATE VIEW %_v AS SELECT a FROM %', ['a', 'b', 'id'], ['2', 'new', null]],
  ] as const)(
    'a column that the source has dropped: on_drop_column %s, %s',
    async (on_drop_column, _, built, columns, row) => {
      const numbered = (names: Record<string, [type: 'int4' | 'text', number: number]>): Shape => {
        const shape = shapeOf(Object.fromEntries(Object.entries(names).map(([name, [type]]) => [name, type])), ['id']);
        const numbers = Object.values(names).map(([, number]) => number);
        return { ...shape, columns: shape.columns.map((column, i) => ({ ...column, number: numbers[i] as number })) };
      };
      const stream = streamOf({ schema: 'swap', table: `t${++tables}` });
      const target = targetOn(server, { on_drop_column });
      const table = `swap.${stream.target.table}`;
      await synchronise(target, stream, numbered({ id: ['int4', 1], a: ['text', 2], b: ['text', 3] }), [
        [['2', 'kept', 'x']],
      ]);
      await client.query(built.replaceAll('%', table));
      const before = await oid(table);
      await reset(target, stream, numbered({ id: ['int4', 1], b: ['text', 3] }), [['2', 'new']]);
      expect(await oid(table)).toBe(before);
      const { rows } = await client.query<{ name: string }>(
        'SELECT attname::text AS name FROM pg_attribute WHERE attrelid = $1::regclass AND attnum > 0 AND NOT attisdropped AND attname NOT LIKE $2 ORDER BY 1',
        [table, '\\_sdc%'],
      );
      expect(rows.map(({ name }) => name)).toEqual(columns);
      const told = target.events.filter(({ event }) => event === 'column_kept').map(({ facts }) => facts['column']);
      expect(told).toEqual(on_drop_column === 'drop' && row.length === 3 ? ['a'] : []);
      expect(await rowsOf(client, stream.target, row.length === 3 ? 'id, b, a' : 'id, b')).toEqual([row]);
    },
  );

  test('a view on a column whose type changes, and a foreign key to it: an error that says what to do; then it works', async () => {
    const shape = shapeOf({ id: 'int4', a: 'int8' }, ['id']);
    const viewed = await loaded((t) => `CREATE VIEW ${t}_v AS SELECT a FROM ${t}`);
    await expect(reset(viewed.target, viewed.stream, shape, [['1', '1']])).rejects.toMatchObject({
      code: 'TARGET_DEPENDENTS',
      disposition: 'halt',
      remedy: expect.stringContaining('Drop the views'),
    });
    expect(await rowsOf(client, viewed.stream.target)).toEqual([
      ['1', 'old'],
      ['2', 'old'],
    ]);
    await client.query(`DROP VIEW ${viewed.table}_v`);
    await reset(viewed.target, viewed.stream, shape, [['1', '1']]);
    expect(await rowsOf(client, viewed.stream.target)).toEqual([['1', '1']]);

    const referenced = await loaded((t) => `CREATE TABLE ${t}_fk (id int REFERENCES ${t})`);
    await expect(reset(referenced.target, referenced.stream)).rejects.toMatchObject({ code: 'TARGET_DEPENDENTS' });
  });

  test('metadata columns that the table lacks', async () => {
    const { stream } = await loaded((t) => `CREATE INDEX ON ${t} (a)`, { hard_delete: false });
    const target = targetOn(server, { hard_delete: true });
    await reset(target, stream);
    expect(await rowsOf(client, stream.target, 'id, "_sdc_batched_at" IS NULL')).toEqual([
      ['2', 'f'],
      ['3', 'f'],
    ]);
    await applyCut(target, stream, [segmentOf({ shape: SHAPE, blocks: [{ kind: 'upsert', lines: [['4', 'x']] }] })]);
  });
});

test('statistics that cannot be gathered are told of and harm nothing', async () => {
  const failing = targetOn(server, {
    onClient: (opened) => {
      const query = opened.query.bind(opened) as (...args: unknown[]) => unknown;
      opened.query = ((...args: unknown[]) =>
        typeof args[0] === 'string' && args[0].includes('ANALYZE')
          ? query('SELECT 1/0')
          : query(...args)) as pg.Client['query'];
    },
  });
  const stream = streamOf({ schema: 'swap', table: `t${++tables}` });
  await synchronise(failing, stream, SHAPE, [[['1', 'a']]]);
  expect(await rowsOf(client, stream.target)).toEqual([['1', 'a']]);
  expect(failing.events).toMatchObject([
    { event: 'epoch_swapped' },
    { event: 'analyze_failed', facts: { reason: expect.stringContaining('division_by_zero') } },
  ]);
});

test('a reader that keeps its lock is waited for in short tries, and others read between them', async () => {
  const { stream, target, table, before } = await loaded(() => '');
  const reader = await server.connect();
  const other = await server.connect();
  try {
    await reader.query(`BEGIN; LOCK TABLE ${table} IN ACCESS SHARE MODE`);
    const swapped = reset(target, stream);
    // The first try gives up after five seconds; whoever came behind it reads then.
    while (!target.events.some(({ event }) => event === 'swap_waits_for_lock'))
      await new Promise((resolve) => setTimeout(resolve, 50));
    expect((await other.query(`SELECT a FROM ${table} ORDER BY id`)).rows).toEqual([{ a: 'old' }, { a: 'old' }]);
    expect(await oid(table)).toBe(before);
    await reader.query('COMMIT');
    await swapped;
    expect(await rowsOf(client, stream.target)).toEqual(RESET_ROWS);
    expect(target.events.filter(({ event }) => event === 'swap_waits_for_lock')).toMatchObject([
      { facts: { pause_ms: 1000 } },
    ]);
  } finally {
    await Promise.all([reader.end(), other.end()]);
  }
}, 30_000);

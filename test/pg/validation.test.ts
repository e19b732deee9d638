/**
 * Rows against their JSON Schema, on the whole line between two servers: by the log and by copies, with the schema of the file and with that of the catalog; what
 * becomes of rows that are not valid; and what a change of these options on a running pipeline does.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { discardRejects, listRejects, loadRejects, readRejects } from '../../lib/validation/rejects.ts';
import { skipDebian, startDebianPostgres, suiteName } from '../support/debian-postgres.ts';
import { type FreshLine, freshLine } from '../support/fresh-line.ts';
import { startPostgres, type TestPostgres } from '../support/postgres.ts';

let servers: { readonly source: TestPostgres; readonly target: TestPostgres };

beforeAll(async () => {
  const [source, target] = await Promise.all([startPostgres(), startPostgres()]);
  servers = { source, target };
});
afterAll(async () => {
  await Promise.all([servers.source.stop(), servers.target.stop()]);
});

const ORDERS = 'CREATE TABLE orders (id bigint PRIMARY KEY, qty int, note text, doc jsonb);';
const SCHEMA =
  '{ type: object, required: [qty], properties: { qty: { type: integer, minimum: 0 }, note: { type: [string, "null"], maxLength: 5000 } } }';
const CHECKED = `[{ table: public.orders, json_schema: ${SCHEMA} }]`;

async function rowsOf({ to }: FreshLine, sql = 'SELECT id, qty FROM orders ORDER BY id'): Promise<unknown[][]> {
  return (await to.query<unknown[]>({ text: sql, rowMode: 'array' })).rows;
}

async function rejectsOf({ line }: FreshLine): Promise<{ key: string; operation: string; why: string }[]> {
  const { stage, ledger } = line.ports();
  const found = [];
  for await (const { key, operation, faults } of readRejects({ stage, ledger }, '*.*')) {
    const why = faults.map(({ column, keyword }) => `${column} ${keyword}`).join(', ');
    found.push({ key: key.values.join(), operation, why });
  }
  return found;
}

describe('target.on_invalid: halt', () => {
  test('target.validate_records with tables.json_schema stops the stream at a row of the log, and says table, key, column and reason, and no value', async () => {
    await using fresh = await freshLine(servers, `${ORDERS} CREATE TABLE other (id int PRIMARY KEY)`, {
      tables: `[public.other, { table: public.orders, json_schema: ${SCHEMA} }]`,
      target: 'validate_records: true',
    });
    await fresh.from.query("INSERT INTO orders VALUES (1, 5, 'fine', NULL)");
    await fresh.settle();
    await fresh.from.query("INSERT INTO orders VALUES (2, -77, 'a secret note', NULL); INSERT INTO other VALUES (1)");
    await fresh.line.settle();
    const { halt } = fresh.line.bookmark('public.orders');
    expect(halt).toMatchObject({ code: 'RECORD_INVALID', must_reset: true });
    expect(halt?.message).toBe(
      'A row of public.orders (id = 2) is not as its JSON Schema wants it: column qty must be >= 0 (minimum).',
    );
    expect(JSON.stringify(fresh.line.log.lines)).not.toMatch(/-77|secret note/u);
    expect(await rowsOf(fresh)).toEqual([['1', 5]]);
    // The others go on (I10).
    expect(await rowsOf(fresh, 'SELECT id FROM other')).toEqual([[1]]);
  });

  test('target.validate_records stops a copy; once the row is mended and the stream is resumed, the copy goes on', async () => {
    await using fresh = await freshLine(servers, `${ORDERS} INSERT INTO orders VALUES (1, 5), (2, NULL)`, {
      tables: CHECKED,
      target: 'validate_records: true',
    });
    await fresh.line.settle();
    const { halt, stream } = fresh.line.bookmark('public.orders');
    expect(halt).toMatchObject({ code: 'RECORD_INVALID', must_reset: false });
    expect(halt?.message).toContain('(id = 2)');
    expect(halt?.message).toContain('column qty must be integer (type)');
    await fresh.from.query('UPDATE orders SET qty = 6 WHERE id = 2');
    await fresh.line.ledger.updateBookmark(stream, { halt: null });
    await fresh.equal();
  });
});

describe('target.on_invalid: reject', () => {
  const config = { tables: CHECKED, target: 'validate_records: true, on_invalid: reject' };

  test('leaves the row out, and the target keeps what it had; the report counts it', async () => {
    await using fresh = await freshLine(servers, `${ORDERS} INSERT INTO orders VALUES (1, 5), (2, -1)`, config);
    await fresh.settle();
    expect(await rowsOf(fresh)).toEqual([['1', 5]]);
    await fresh.from.query('INSERT INTO orders VALUES (3, 7), (4, -4); UPDATE orders SET qty = -5 WHERE id = 1');
    await fresh.settle();
    expect(await rowsOf(fresh)).toEqual([
      ['1', 5],
      ['3', 7],
    ]);
    expect(await rejectsOf(fresh)).toEqual([
      { key: '2', operation: 'copy', why: 'qty minimum' },
      { key: '4', operation: 'insert', why: 'qty minimum' },
      { key: '1', operation: 'update', why: 'qty minimum' },
    ]);
    expect(fresh.line.durable.reports.map(({ rejected_rows = 0 }) => rejected_rows).filter((rows) => rows > 0)).toEqual(
      [2],
    );
    // Nothing holds the slot back: the chain went on past them.
    await fresh.from.query('DELETE FROM orders WHERE id = 1');
    await fresh.settle();
    expect(await rowsOf(fresh)).toEqual([['3', 7]]);
  });

  test('a cut of nothing but rejected rows moves on, and puts them aside', async () => {
    await using fresh = await freshLine(servers, ORDERS, config);
    await fresh.settle();
    await fresh.from.query('INSERT INTO orders SELECT g, -1 FROM generate_series(1, 500) g');
    await fresh.settle();
    expect(await rowsOf(fresh)).toEqual([]);
    expect(await listRejects(fresh.line.ledger)).toMatchObject([{ table: 'public.orders', rows: 500 }]);
    const before = fresh.line.durable.rejects.size;
    await fresh.settle();
    expect(fresh.line.durable.rejects.size).toBe(before);
  });

  test('a change of key that is rejected has left its old key', async () => {
    await using fresh = await freshLine(servers, `${ORDERS} INSERT INTO orders VALUES (1, 5)`, config);
    await fresh.settle();
    await fresh.from.query('UPDATE orders SET id = 2, qty = -1');
    await fresh.settle();
    expect(await rowsOf(fresh)).toEqual([]);
    await fresh.from.query('UPDATE orders SET qty = 8');
    await fresh.equal();
  });

  test('a later change that leaves a value of the rejected row unchanged does not mix the two', async () => {
    await using fresh = await freshLine(
      servers,
      `${ORDERS} ALTER TABLE orders ALTER doc SET STORAGE EXTERNAL; INSERT INTO orders VALUES (1, 5, 'a', to_jsonb(repeat('old', 3000)))`,
      config,
    );
    await fresh.settle();
    await fresh.from.query("UPDATE orders SET qty = -1, doc = to_jsonb(repeat('new', 3000))");
    await fresh.settle();
    // Another process: what it knows of the first row comes from the stage.
    fresh.line.restart();
    await fresh.from.query("UPDATE orders SET qty = 6, note = 'b'");
    await fresh.settle();
    const seen = 'SELECT qty, note, left(doc #>> array[]::text[], 3) FROM orders';
    expect(await rowsOf(fresh, seen)).toEqual([[5, 'a', 'old']]);
    expect((await rejectsOf(fresh)).map(({ why }) => why)).toEqual(['qty minimum', 'null unchanged']);
    await loadRejects(fresh.line.ports(), fresh.line.pipeline, 'public.orders');
    await fresh.equal();
    expect(await rejectsOf(fresh)).toEqual([]);
    await fresh.from.query('UPDATE orders SET qty = 7');
    await fresh.equal();
  });

  test('a row that is still not valid when it is loaded again is not mixed with what the target kept of it', async () => {
    await using fresh = await freshLine(
      servers,
      `${ORDERS} ALTER TABLE orders ALTER doc SET STORAGE EXTERNAL; INSERT INTO orders VALUES (1, 5, 'a', to_jsonb(repeat('old', 3000)))`,
      config,
    );
    await fresh.settle();
    await fresh.from.query("UPDATE orders SET qty = -1, doc = to_jsonb(repeat('new', 3000))");
    await fresh.settle();
    await loadRejects(fresh.line.ports(), fresh.line.pipeline, 'public.orders');
    await fresh.settle();
    expect((await rejectsOf(fresh)).map(({ operation }) => operation)).toEqual(['copy']);
    fresh.line.restart();
    await fresh.from.query("UPDATE orders SET qty = 6, note = 'b'");
    await fresh.settle();
    const seen = 'SELECT qty, note, left(doc #>> array[]::text[], 3) FROM orders';
    expect(await rowsOf(fresh, seen)).toEqual([[5, 'a', 'old']]);
    await loadRejects(fresh.line.ports(), fresh.line.pipeline, 'public.orders');
    await fresh.equal();
  });

  test('with REPLICA IDENTITY FULL an update is checked with what it leaves unchanged', async () => {
    const schema = '{ if: { properties: { doc: { minLength: 10 } } }, then: { properties: { qty: { maximum: 3 } } } }';
    await using fresh = await freshLine(
      servers,
      `${ORDERS} ALTER TABLE orders REPLICA IDENTITY FULL; ALTER TABLE orders ALTER doc SET STORAGE EXTERNAL;
       INSERT INTO orders VALUES (1, 1, 'a', to_jsonb(repeat('old', 3000)))`,
      { ...config, tables: `[{ table: public.orders, json_schema: ${schema} }]` },
    );
    await fresh.settle();
    await fresh.from.query('UPDATE orders SET qty = 4');
    await fresh.settle();
    expect(await rowsOf(fresh)).toEqual([['1', 1]]);
    await fresh.from.query('UPDATE orders SET qty = 3');
    await fresh.equal();
  });

  test('rejects are loaded again by their keys as the source has them by now; one that is still not valid is put aside again, and its row stays', async () => {
    await using fresh = await freshLine(servers, `${ORDERS} INSERT INTO orders VALUES (1, 1), (2, -2), (3, 3)`, config);
    await fresh.settle();
    await fresh.from.query('UPDATE orders SET qty = -3 WHERE id = 3');
    await fresh.settle();
    await fresh.from.query(`UPDATE orders SET qty = 2 WHERE id = 2`);
    fresh.line.configure({ target: 'validate_records: true, on_invalid: reject' });
    const handled = await loadRejects(fresh.line.ports(), fresh.line.pipeline, 'public.*');
    expect(handled).toMatchObject([{ rows: 2, load: 'opened' }]);
    await fresh.settle();
    expect(await rowsOf(fresh)).toEqual([
      ['1', 1],
      ['2', 2],
      ['3', 3],
    ]);
    expect(await rejectsOf(fresh)).toEqual([{ key: '3', operation: 'copy', why: 'qty minimum' }]);
    expect(await discardRejects(fresh.line.ports(), 'public.orders')).toMatchObject([{ rows: 1 }]);
    expect(await rejectsOf(fresh)).toEqual([]);
    await fresh.settle();
    expect(await rowsOf(fresh)).toEqual([
      ['1', 1],
      ['2', 2],
      ['3', 3],
    ]);
  });

  test('a table without a key halts', async () => {
    await using fresh = await freshLine(
      servers,
      'CREATE TABLE orders (id int, qty int); ALTER TABLE orders REPLICA IDENTITY FULL; INSERT INTO orders VALUES (1, 1)',
      { ...config, target: `${config.target}, primary_key_required: false` },
    );
    await fresh.settle();
    await fresh.from.query('INSERT INTO orders VALUES (2, -1)');
    await fresh.line.settle();
    expect(fresh.line.bookmark('public.orders').halt?.code).toBe('RECORD_INVALID');
  });
});

test('target.validate_records switched on later checks what comes from then on; a reset checks all; switched off, anything comes', async () => {
  await using fresh = await freshLine(servers, `${ORDERS} INSERT INTO orders VALUES (1, -1)`, {
    tables: '[public.orders]',
  });
  await fresh.equal();
  const on = 'validate_records: true, on_invalid: reject';
  fresh.line.configure({ tables: CHECKED, target: on });
  await fresh.from.query('INSERT INTO orders VALUES (2, -2), (3, 3)');
  await fresh.settle();
  expect(await rowsOf(fresh)).toEqual([
    ['1', -1],
    ['3', 3],
  ]);
  await fresh.line.ledger.updateBookmark(fresh.line.bookmark('public.orders').stream, { reset_requested: true });
  await fresh.settle();
  expect(await rowsOf(fresh)).toEqual([['3', 3]]);
  // What was left out of the log is in the copy now, or was left out of that.
  expect((await rejectsOf(fresh)).map(({ key, operation }) => `${operation} ${key}`)).toEqual(['copy 1', 'copy 2']);
  fresh.line.configure({ tables: '[public.orders]', target: '' });
  await fresh.from.query('INSERT INTO orders VALUES (4, -4)');
  await fresh.settle();
  await loadRejects(fresh.line.ports(), fresh.line.pipeline, 'public.orders');
  await fresh.equal();
});

test("target.validate_records without a schema: the catalog's, by which what PostgreSQL holds is valid, but for what JSON has nothing for", async () => {
  await using fresh = await freshLine(
    servers,
    `CREATE TABLE everything (id bigint PRIMARY KEY, i2 smallint, i4 int, n numeric, f8 float8, b bool, v varchar(3), c char(4), d date,
       ts timestamp, tz timestamptz, j json, jb jsonb, u uuid, a int[], o oid, t time, x bytea);
     CREATE DOMAIN amount AS int CHECK (VALUE > 0); CREATE DOMAIN paid AS amount; CREATE DOMAIN short AS varchar(3); CREATE DOMAIN doc AS jsonb;
     CREATE TABLE own (id int PRIMARY KEY, d paid, s short, j doc, ds paid[], "constructor" text, note text, "__proto__" int)`,
    { tables: '[public.everything, public.own]', target: 'validate_records: true, on_invalid: reject' },
  );
  const fine = `(1, -32768, 2147483647, 1.50, 1e300, true, 'äöü', 'ab', '2024-02-29', '2024-02-29 12:00:00.123456', '2024-02-29 12:00:00+02', '{"a":[1]}', '[]', gen_random_uuid(), '{1,2}', 7, '12:00', '\\x00ff')`;
  await fresh.from.query(`INSERT INTO everything VALUES ${fine}`);
  await fresh.equal();
  await fresh.from.query(
    `INSERT INTO everything VALUES ${fine.replace('(1,', '(9223372036854775807,').replace('1.50', '123456789012345678901234567890.5')}`,
  );
  await fresh.from.query('INSERT INTO everything (id) VALUES (2)');
  await fresh.equal();
  // Types of one's own, and names that every object of JavaScript has, in rows that lack some columns too.
  await fresh.from.query(
    `ALTER TABLE own ALTER "constructor" SET STORAGE EXTERNAL; INSERT INTO own VALUES (1, 7, 'äöü', '{"a":1}', '{1}', repeat('c', 9000), 'n', 1)`,
  );
  await fresh.equal();
  await fresh.from.query("UPDATE own SET note = 'm'");
  await fresh.equal();
  await fresh.from.query(
    `INSERT INTO everything (id, n) VALUES (10, 'NaN'); INSERT INTO everything (id, f8) VALUES (11, 'Infinity');
     INSERT INTO everything (id, tz) VALUES (12, 'infinity'); INSERT INTO everything (id, ts) VALUES (13, '0044-03-15 BC'); INSERT INTO everything (id, d) VALUES (14, '12000-01-01')`,
  );
  await fresh.settle();
  expect((await rejectsOf(fresh)).map(({ key, why }) => `${key}: ${why}`)).toEqual([
    '10: n pattern',
    '11: f8 type',
    '12: tz format',
    '13: ts format',
    '14: d format',
  ]);
  expect(await rowsOf(fresh, 'SELECT id FROM everything ORDER BY id')).toEqual([['1'], ['2'], ['9223372036854775807']]);
});

test('tables.json_schema sees masked values, not the hidden ones', async () => {
  await using fresh = await freshLine(servers, `${ORDERS} INSERT INTO orders VALUES (1, 1, 'plain', NULL)`, {
    tables: `[{ table: public.orders, mask: { note: hash }, columns: { exclude: [doc] }, json_schema: { additionalProperties: false, properties: { id: {}, qty: {}, note: { pattern: "^[0-9a-f]{64}$" } } } }]`,
    target: 'validate_records: true',
  });
  await fresh.settle();
  await fresh.from.query("INSERT INTO orders VALUES (2, 2, 'also plain', '{}')");
  await fresh.settle();
  expect(await rowsOf(fresh)).toHaveLength(2);
});

test('a masked key is told as it is staged, and no hidden value is put aside (target.on_invalid)', async () => {
  const files = (on_invalid: string) => ({
    tables: `[{ table: public.people, mask: { mail: hash, note: "null" }, columns: { exclude: [pin] }, json_schema: { properties: { qty: { minimum: 0 } } } }]`,
    target: `validate_records: true, on_invalid: ${on_invalid}`,
  });
  await using fresh = await freshLine(
    servers,
    `CREATE TABLE people (mail text PRIMARY KEY, qty int, note text, pin text);
     ALTER TABLE people REPLICA IDENTITY FULL; INSERT INTO people VALUES ('secret@first', -1, 'secret', 'secret')`,
    files('reject'),
  );
  await fresh.settle();
  await fresh.from.query(
    `INSERT INTO people VALUES ('secret@second', 1, 'secret', 'secret'); UPDATE people SET qty = -2, mail = 'secret@third' WHERE qty = 1`,
  );
  await fresh.settle();
  expect((await rejectsOf(fresh)).map(({ key }) => key)).toEqual(
    Array(2).fill(expect.stringMatching(/^[0-9a-f]{64}$/u)),
  );
  fresh.line.configure(files('halt'));
  await fresh.from.query("INSERT INTO people VALUES ('secret@fourth', -3, 'secret', 'secret')");
  await fresh.line.settle();
  expect(fresh.line.bookmark('public.people').halt?.message).toMatch(/\(mail = [0-9a-f]{64}\)/u);
  const aside = [...fresh.line.durable.objects].filter(([name]) => name.includes('/rejected/'));
  expect(aside).toHaveLength(2);
  for (const [, text] of aside) expect(text.toString()).not.toContain('secret');
  expect(JSON.stringify(fresh.line.log.lines)).not.toContain('secret');
  await expect(loadRejects(fresh.line.ports(), fresh.line.pipeline, 'public.people')).rejects.toThrow(
    /hides \(mail\)/u,
  );
});

test('values of megabytes are checked in the log and in copies (target.validate_records), also where source.debug_lsn adds a column of its own', async () => {
  const schema =
    '{ additionalProperties: false, properties: { id: {}, qty: {}, doc: {}, note: { maxLength: 3000000 } } }';
  await using fresh = await freshLine(
    servers,
    `${ORDERS} INSERT INTO orders VALUES (1, 1, repeat('a', 3000000)), (2, 2, repeat('b', 3000001))`,
    {
      tables: `[{ table: public.orders, json_schema: ${schema} }]`,
      source: 'debug_lsn: true',
      target: 'validate_records: true, on_invalid: reject',
    },
  );
  await fresh.settle();
  await fresh.from.query(
    "INSERT INTO orders VALUES (3, 3, repeat('c', 3000000)), (4, 4, repeat('d', 3000001)), (5, 5, 'short')",
  );
  await fresh.settle();
  expect(await rowsOf(fresh, 'SELECT id, length(note) FROM orders ORDER BY id')).toEqual([
    ['1', 3_000_000],
    ['3', 3_000_000],
    ['5', 5],
  ]);
  expect(await rejectsOf(fresh)).toEqual([
    { key: '2', operation: 'copy', why: 'note maxLength' },
    { key: '4', operation: 'insert', why: 'note maxLength' },
  ]);
  const { ledger, stage } = fresh.line.ports();
  for await (const { row } of readRejects({ ledger, stage }, 'public.orders'))
    expect(row.note?.length).toBeLessThan(5_000);
});

test('FULL_TABLE and INCREMENTAL are checked as well (target.on_invalid: reject); their rejects are copied anew and not loaded one by one', async () => {
  await using fresh = await freshLine(
    servers,
    `${ORDERS} CREATE TABLE events (LIKE orders INCLUDING ALL); INSERT INTO orders VALUES (1, 1), (2, -2); INSERT INTO events TABLE orders`,
    {
      tables: `[{ table: public.orders, replication_method: FULL_TABLE, json_schema: ${SCHEMA} }, { table: public.events, replication_method: INCREMENTAL, replication_key: id, json_schema: ${SCHEMA} }]`,
      target: 'validate_records: true, on_invalid: reject',
    },
  );
  await fresh.settle();
  await fresh.from.query('INSERT INTO orders VALUES (3, -3); INSERT INTO events VALUES (3, -3), (4, 4)');
  await fresh.settle();
  expect(await rowsOf(fresh)).toEqual([['1', 1]]);
  expect(await rowsOf(fresh, 'SELECT id, qty FROM events ORDER BY id')).toEqual([
    ['1', 1],
    ['4', 4],
  ]);
  const { ledger, stage } = fresh.line.ports();
  const keys = async (table: string): Promise<string[]> => {
    const found: string[] = [];
    for await (const { key } of readRejects({ ledger, stage }, table)) found.push(key.values.join());
    return found;
  };
  // A run has left out once more what the last one has: of FULL_TABLE all of it, of INCREMENTAL the row of the last value.
  expect(await keys('public.orders')).toEqual(['2', '3']);
  expect(await keys('public.events')).toEqual(['2', '3']);
  await expect(loadRejects(fresh.line.ports(), fresh.line.pipeline, 'public.events')).rejects.toThrow(/by query/u);
});

test('a FULL_TABLE run takes a row that is not valid for one that is gone (target.on_invalid: reject, marks of deletion)', async () => {
  await using fresh = await freshLine(servers, `${ORDERS} INSERT INTO orders VALUES (1, 1), (2, 2)`, {
    tables: `[{ table: public.orders, replication_method: FULL_TABLE, json_schema: ${SCHEMA} }]`,
    target: 'validate_records: true, on_invalid: reject, hard_delete: false, add_metadata_columns: true',
  });
  await fresh.settle();
  await fresh.from.query('UPDATE orders SET qty = -2 WHERE id = 2');
  await fresh.settle();
  const seen = 'SELECT id, qty, _sdc_deleted_at IS NOT NULL FROM orders ORDER BY id';
  expect(await rowsOf(fresh, seen)).toEqual([
    ['1', 1, false],
    ['2', 2, true],
  ]);
});

describe.skipIf(skipDebian)(suiteName('source.plugin: wal2json'), () => {
  test('rows are checked as by pgoutput (target.validate_records, target.on_invalid: reject)', async () => {
    await using source = await startDebianPostgres();
    await using fresh = await freshLine(
      { ...servers, source },
      `${ORDERS} ALTER TABLE orders ALTER doc SET STORAGE EXTERNAL;
       INSERT INTO orders VALUES (1, 5, 'a', to_jsonb(repeat('old', 3000))); INSERT INTO orders VALUES (2, 2), (9007199254740993, 3)`,
      { tables: CHECKED, source: 'plugin: wal2json', target: 'validate_records: true, on_invalid: reject' },
    );
    await fresh.equal();
    await fresh.from.query(
      `UPDATE orders SET note = 'toast stays' WHERE id = 1; UPDATE orders SET id = 20, qty = -1 WHERE id = 2; INSERT INTO orders VALUES (3, -3), (4, 4)`,
    );
    await fresh.settle();
    expect(await rejectsOf(fresh)).toEqual([
      { key: '20', operation: 'update', why: 'qty minimum' },
      { key: '3', operation: 'insert', why: 'qty minimum' },
    ]);
    expect((await rowsOf(fresh)).map(([id]) => id)).toEqual(['1', '4', '9007199254740993']);
    await fresh.from.query("UPDATE orders SET qty = -1, doc = to_jsonb(repeat('new', 3000)) WHERE id = 1");
    await fresh.settle();
    await fresh.from.query('UPDATE orders SET qty = 6 WHERE id = 1');
    await fresh.settle();
    expect((await rejectsOf(fresh)).at(-1)).toEqual({ key: '1', operation: 'update', why: 'null unchanged' });
    await fresh.from.query('UPDATE orders SET qty = 7 WHERE qty < 0; DELETE FROM orders WHERE id = 4');
    await loadRejects(fresh.line.ports(), fresh.line.pipeline, 'public.orders');
    await fresh.equal();
  });
});

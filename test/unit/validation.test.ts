/**
 * What rows are checked by, without a database: values as JSON, schemas compiled, lines of COPY in any chunking, and files that schemas come from.
 */
import { Readable } from 'node:stream';
import { describe, expect, test } from 'vitest';
import { readPipeline } from '../../lib/config/read.ts';
import { withSchemas } from '../../lib/config/schema-files.ts';
import { readShippedPipeline } from '../../lib/config/shipped.ts';
import { rangeWithout } from '../../lib/epoch/request.ts';
import { SluiceError } from '../../lib/errors.ts';
import type { Reject } from '../../lib/ports.ts';
import type { Shape } from '../../lib/shape.ts';
import { ajvCompiler } from '../../lib/validation/ajv-compiler.ts';
import { catalogSchema } from '../../lib/validation/catalog-schema.ts';
import { forgetCovered, pruneRejects } from '../../lib/validation/forget.ts';
import { CheckingLines } from '../../lib/validation/lines.ts';
import { RejectWriter, recordedWith } from '../../lib/validation/reject-writer.ts';
import { rejectedLine, rejectedObject, rejectedRows } from '../../lib/validation/rejected.ts';
import { rejectedKeys } from '../../lib/validation/rejected-keys.ts';
import { REJECTED_KEYS_MAX, StreamChecks } from '../../lib/validation/stream-checks.ts';
import { jsonValue, TYPE, valueKind } from '../../lib/validation/values.ts';
import { aBookmark, anEpoch } from '../support/ledger-nouns.ts';
import { Durable, memoryLedger, memoryStage, World } from '../support/memory-ports.ts';

describe('a value as JSON', () => {
  test.each([
    [TYPE.int4, '-7', -7],
    [TYPE.int8, '9007199254740991', 9007199254740991],
    [TYPE.int8, '9007199254740993', '9007199254740993'],
    [TYPE.numeric, '10.50', 10.5],
    [TYPE.numeric, '0.1', 0.1],
    [TYPE.numeric, '123456789.123456', 123456789.123456],
    [TYPE.numeric, '1234567890.1234567', '1234567890.1234567'],
    [TYPE.numeric, '1e5', '1e5'],
    [TYPE.numeric, '100000000000000000000000', 1e23],
    [TYPE.numeric, '100000000000000000000001', '100000000000000000000001'],
    [TYPE.numeric, 'NaN', 'NaN'],
    [TYPE.numeric, `0.${'0'.repeat(400)}1`, `0.${'0'.repeat(400)}1`],
    [TYPE.float8, '1e+300', 1e300],
    [TYPE.float8, '-Infinity', '-Infinity'],
    [TYPE.bool, 't', true],
    [TYPE.bool, 'f', false],
    [TYPE.jsonb, '{"a": [1, null]}', { a: [1, null] }],
    [TYPE.text, '7', '7'],
    [TYPE.date, '2024-01-01', '2024-01-01'],
  ])('type %i, %s', (type_oid, text, expected) => {
    expect(jsonValue(valueKind({ type_oid }), text)).toEqual(expected);
  });

  test('a domain is read as what it is over', () => {
    const base = { type_oid: TYPE.int4, type_modifier: -1 };
    expect(valueKind({ type_oid: 20_000, type: { kind: 'domain', schema: 's', name: 'd', base } })).toBe('integer');
  });
});

describe('a schema', () => {
  test('is judged as a whole for whole rows, and by columns for partial ones', () => {
    const { whole, partial } = ajvCompiler.compile({
      required: ['a', 'b'],
      properties: { a: { $ref: '#/$defs/positive' }, b: { type: 'string' } },
      $defs: { positive: { type: 'number', minimum: 1 } },
      minProperties: 2,
    });
    expect(whole({ a: 1 }).map(({ column, keyword }) => [column, keyword])).toEqual([
      [null, 'minProperties'],
      ['b', 'required'],
    ]);
    expect(partial({ a: 1 })).toEqual([]);
    expect(partial({ a: 0 })).toEqual([{ column: 'a', keyword: 'minimum', wants: 'must be >= 1' }]);
  });

  test('tells a fault by its column alone, whatever lies deeper and whatever the column is called', () => {
    const { whole } = ajvCompiler.compile({
      properties: { 'a/b~c': { additionalProperties: { type: 'number' } }, kind: { enum: ['x', 'y'] } },
    });
    expect(whole({ 'a/b~c': { 'secret key': 'v' }, kind: 'secret' })).toEqual([
      { column: 'a/b~c', keyword: 'type', wants: 'must be number' },
      { column: 'kind', keyword: 'enum', wants: 'must be equal to one of the allowed values: "x", "y"' },
    ]);
  });

  test.each([
    [
      '2020-12',
      {
        $schema: 'https://json-schema.org/draft/2020-12/schema',
        properties: { a: { prefixItems: [{ type: 'number' }] } },
      },
    ],
    ['2019-09', { $schema: 'https://json-schema.org/draft/2019-09/schema', dependentRequired: { a: ['b'] } }],
    ['draft-07', { $schema: 'http://json-schema.org/draft-07/schema#', dependencies: { a: ['b'] } }],
  ])('may be of %s', (_, schema) => {
    expect(ajvCompiler.compile(schema).whole({ a: ['x'] })).not.toEqual([]);
  });

  test.each([
    ['a keyword that is not known', { properties: { a: { minimun: 1 } } }],
    ['a format that is not known', { properties: { a: { format: 'datetime' } } }],
    ['another draft', { $schema: 'http://json-schema.org/draft-04/schema#' }],
    ['a reference to nothing', { properties: { a: { $ref: '#/$defs/b' } } }],
    ['a type that is none', { properties: { a: { type: 'int' } } }],
    ['$async', { $async: true }],
  ])('is refused for %s', (_, schema) => {
    expect(() => ajvCompiler.compile(schema)).toThrow();
  });

  test.each([
    [0.01, 19.99, true],
    [0.01, 0.07, true],
    [0.01, -123456789012.34, true],
    [0.01, 1.001, false],
    [0.1, 1e21, true],
    [1e-38, 19.99, true],
    [1e-7, 2.5e-7, false],
    [7, 9007199254740991, false],
    [2, -4, true],
    [2.5, 0, true],
  ])('multipleOf %d of %d is %s, in decimals', (multipleOf, value, is) => {
    const faults = ajvCompiler.compile({ properties: { n: { multipleOf } } }).whole({ n: value });
    const wants = `must be multiple of ${multipleOf}`;
    expect(faults).toEqual(is ? [] : [{ column: 'n', keyword: 'multipleOf', wants }]);
  });

  test('a column that is not there is not what every object of JavaScript inherits', () => {
    const { whole, partial } = ajvCompiler.compile({
      properties: { constructor: { type: 'string' } },
      required: ['toString'],
    });
    expect(partial({ id: 1 })).toEqual([]);
    expect(whole({ id: 1 }).map(({ column }) => column)).toEqual(['toString']);
  });

  test('a part that many refer to is compiled once', { timeout: 20_000 }, () => {
    const many = <V>(count: number, of: (i: number) => V) =>
      Object.fromEntries(Array.from({ length: count }, (_, i) => [`c${i}`, of(i)]));
    const part = { properties: many(300, (i) => ({ type: 'string', maxLength: i })) };
    const { whole } = ajvCompiler.compile({ $defs: { part }, properties: many(200, () => ({ $ref: '#/$defs/part' })) });
    expect(whole({ c7: { c1: 'xx' } })).toEqual([
      { column: 'c7', keyword: 'maxLength', wants: 'must NOT have more than 1 characters' },
    ]);
  });

  test('asks nobody for what a reference names elsewhere', () => {
    const compile = (): unknown => ajvCompiler.compile({ properties: { a: { $ref: 'https://example.com/a.json' } } });
    expect(compile).toThrow(/can't resolve reference/u);
  });

  test('says which columns it looks at', () => {
    const { reads } = ajvCompiler.compile({
      properties: { a: {}, b: { type: ['string', 'null'] }, c: { maxLength: 3 } },
    });
    expect([reads('a', true), reads('b', true), reads('b', false), reads('c', true), reads('d', true)]).toEqual([
      false,
      false,
      true,
      true,
      false,
    ]);
    expect(ajvCompiler.compile({ minProperties: 1 }).reads('a', true)).toBe(true);
  });
});

const SHAPE: Shape = {
  columns: [
    { name: 'note', type_oid: TYPE.text, type_modifier: -1 },
    { name: 'id', type_oid: TYPE.int4, type_modifier: -1 },
    { name: 'n', type_oid: TYPE.int4, type_modifier: -1 },
  ],
  key: [1],
};

function checksOf(on_invalid: 'halt' | 'reject', schema: object | null): StreamChecks {
  const table = { schema: 'public', table: 't' };
  return new StreamChecks({ stream: 's1', table, on_invalid, schema: schema && { ...schema }, compiler: ajvCompiler });
}

describe('lines of COPY', () => {
  const LINES = ['plain\t1\t5', 'ä\\\\b\\tc\t2\t-5', '\\N\t3\t\\N', 'x\t4\t6', '\\\\N\t5\t-1'];
  const SCHEMA = { properties: { n: { type: ['integer', 'null'], minimum: 0 } } };

  async function pass(pieces: readonly Buffer[], checks: StreamChecks) {
    const durable = new Durable();
    const stage = memoryStage(new World(), durable);
    const rejects = new RejectWriter(stage, rejectedObject('shop/chunks/1'));
    const lines = new CheckingLines(checks, checks.forShape(SHAPE), rejects);
    const out: Buffer[] = [];
    for await (const piece of Readable.from(pieces).compose(lines)) out.push(piece as Buffer);
    const written = await rejects.complete();
    const rows = [];
    if (written) for await (const row of rejectedRows(stage, { ...written, stream: 's1' })) rows.push(row);
    return { text: Buffer.concat(out).toString(), rows };
  }

  test('those that are valid go on as they came, in whatever pieces they come', async () => {
    const whole = Buffer.from(`${LINES.join('\n')}\n`);
    const checks = checksOf('reject', SCHEMA);
    for (let size = 1; size <= whole.length; size++) {
      const pieces = Array.from({ length: Math.ceil(whole.length / size) }, (_, i) =>
        whole.subarray(i * size, (i + 1) * size),
      );
      const { text, rows } = await pass(pieces, checks);
      expect(text).toBe(`${[LINES[0], LINES[2], LINES[3]].join('\n')}\n`);
      expect(rows.map(({ key, row }) => [key, row])).toEqual([
        [
          { columns: ['id'], values: ['2'] },
          { note: 'ä\\b\tc', id: '2', n: '-5' },
        ],
        [
          { columns: ['id'], values: ['5'] },
          { note: '\\N', id: '5', n: '-1' },
        ],
      ]);
    }
  });

  test('the first that is not valid ends the reading where the stream halts', async () => {
    const whole = Buffer.from(`${LINES.join('\n')}\n`);
    const failed = await pass([whole], checksOf('halt', SCHEMA)).catch((error: unknown) => error);
    expect(failed).toBeInstanceOf(SluiceError);
    expect((failed as SluiceError).facts).toMatchObject({ key: 'id = 2', column: 'n', keyword: 'minimum' });
  });

  test('the last line must have its end', async () => {
    await expect(pass([Buffer.from('a\t1\t1')], checksOf('reject', SCHEMA))).rejects.toThrow(RangeError);
  });
});

test('rows that are left out without end are no exception any more', () => {
  const checks = checksOf('reject', null);
  for (let i = 1; i < REJECTED_KEYS_MAX; i++) checks.noteRejected(String(i));
  expect(checks.noteRejected('the last')).toBeNull();
  expect(checks.noteRejected('7')).toBeNull();
  expect(checks.noteRejected('one more')?.code).toBe('REJECTED_TOO_MANY');
});

test('the schema of the catalog wants the key, and takes NULL elsewhere', () => {
  const { whole, partial } = ajvCompiler.compile(catalogSchema(SHAPE));
  expect(whole({ note: null, id: 1, n: null })).toEqual([]);
  expect(whole({ note: null, id: null, n: 3_000_000_000 }).map(({ column }) => column)).toEqual(['id', 'n']);
  expect(partial({ n: 1 })).toEqual([]);
});

test('keys that are not valid are taken out of a list of keys, and of no other range', () => {
  const keys = [{ columns: ['b', 'a'], values: ['2', '1'] }];
  const range = {
    by: 'keys',
    columns: ['a', 'b'],
    keys: [
      ['1', '2'],
      ['2', '1'],
    ],
  } as const;
  expect(rangeWithout(range, keys)).toEqual({ ...range, keys: [['2', '1']] });
  expect(rangeWithout({ by: 'whole' }, keys)).toEqual({ by: 'whole' });
});

describe('tables.json_schema', () => {
  const text = `pipeline: shop\ntables:\n  - public.a\n  - table: public.b\n    json_schema: b.json\ntarget: { validate_records: true }\n`;
  const files = { text, fileName: 'p.yaml', compile: ajvCompiler.compile };
  const pipeline = readPipeline(text, 'p.yaml');

  test('is read beside the pipeline file, and shipped as it is', () => {
    const read = (path: string): string => `{ "title": "${path}" }`;
    const { tables } = withSchemas(pipeline, { ...files, read });
    expect(tables.map(({ json_schema }) => json_schema)).toEqual([null, { title: 'b.json' }]);
    const entries = ['public.a', { table: 'public.b', json_schema: { title: 'x' } }];
    const shipped = JSON.stringify({ pipeline: 'shop', tables: entries, target: { validate_records: true } });
    expect(readShippedPipeline(shipped, 'p.json').tables[1]?.json_schema).toEqual({ title: 'x' });
  });

  test.each([
    [
      'it is not there',
      () => {
        throw new Error('it is not there');
      },
    ],
    ['it is no JSON', () => '{ secret'],
    ['it is no JSON object', () => '[]'],
    ['it has the key __proto__', () => '{ "properties": { "__proto__": { "const": "secret" } } }'],
    ['unknown keyword', () => '{ "requird": [] }'],
  ])('is told with its place where %s', (problem, read) => {
    const act = (): unknown => withSchemas(pipeline, { ...files, read });
    expect(act).toThrow(/p\.yaml:5:18 {2}tables\[1\]\.json_schema \(b\.json\): /u);
    expect(act).toThrow(problem);
    expect(act).not.toThrow('secret');
  });
});

describe('rows that are left out of a cut', () => {
  const REJECTED = { object: 'shop/rejected/cuts/8-mine', object_bytes: 10, rows: new Map([['s1', 2]]) };
  const opened = () => {
    const durable = new Durable();
    const world = new World();
    const ledger = memoryLedger(world, durable);
    const stage = memoryStage(world, durable);
    for (const name of ['mine', 'other']) durable.objects.set(`shop/rejected/cuts/8-${name}`, Buffer.alloc(0));
    const objects = async () => (await ledger.rejects(null)).map(({ object }) => object);
    return { ledger, objects, next: () => rejectedKeys({ ledger, stage }, { captured: [], head: 7 }) };
  };

  test('are known to the ledger after it is recorded, also where the next window took them for those of a cut that never was', async () => {
    const { ledger, objects, next } = opened();
    const record = async (): Promise<string> => {
      expect(await objects()).toEqual([REJECTED.object]);
      await next();
      return 'cut 8';
    };
    expect(await recordedWith(ledger, [REJECTED], 8, 1, record)).toEqual({ recorded: 'cut 8', rejected_rows: 2 });
    expect(await objects()).toEqual([REJECTED.object]);
  });

  test('are forgotten where another window has recorded its own cut of that number, and those of the other are not', async () => {
    const { ledger, objects } = opened();
    const other = { ...REJECTED, object: 'shop/rejected/cuts/8-other' };
    const record = async (): Promise<never> => {
      await recordedWith(ledger, [other], 8, 1, async () => undefined);
      throw new SluiceError('WINDOW_LOST', { cut: 7 });
    };
    await expect(recordedWith(ledger, [REJECTED], 8, 1, record)).rejects.toMatchObject({ code: 'WINDOW_LOST' });
    expect(await objects()).toEqual([other.object]);
  });

  test('are read side by side, each object once, and no more keys of a stream than it may have', async () => {
    const durable = new Durable();
    const ledger = memoryLedger(new World(), durable);
    const line = (stream: string, id: number): string =>
      rejectedLine({
        stream,
        operation: 'insert',
        key: { columns: ['id'], values: [String(id)] },
        committed_at: null,
        faults: [],
        row: {},
      }).text.toString();
    const CUTS = 40;
    let reads = 0;
    let open = 0;
    let open_max = 0;
    const stage = {
      read: async (object: string) => {
        reads += 1;
        open += 1;
        open_max = Math.max(open_max, open);
        await new Promise((resolve) => setTimeout(resolve, 2));
        open -= 1;
        const cut = Number(object.slice('o/'.length));
        return Readable.from([`${line('s1', cut)}${line('s2', cut)}${line('other', cut)}`]);
      },
    };
    for (let cut = 1; cut <= CUTS; cut++) {
      durable.objects.set(`o/${cut}`, Buffer.alloc(0));
      for (const stream of ['s1', 's2'])
        await ledger.addReject({
          stream,
          id: `cut-${cut}`,
          object: `o/${cut}`,
          object_bytes: 10,
          rows: 1,
          cut,
          epoch: null,
          rejected_at_ms: 1,
        });
    }
    const captured = [aBookmark({ stream: 's1', captured_cut: 0 }), aBookmark({ stream: 's2', captured_cut: 10 })];
    const keys = await rejectedKeys({ ledger, stage }, { captured, head: CUTS });
    expect([...keys].map(([stream, { size }]) => [stream, size])).toEqual([
      ['s1', CUTS],
      ['s2', CUTS - 10],
    ]);
    expect(reads).toBe(CUTS);
    expect(open_max).toBeGreaterThan(4);
    expect(open_max).toBeLessThanOrEqual(16);
  });
});

describe('what is put aside is forgotten', () => {
  const reject = (id: string, over: Partial<Reject> = {}): Reject => {
    const object = { stream: 's1', id, object: 'shop/rejected/cuts/1', object_bytes: 10, rows: 1 };
    return { ...object, cut: 5, epoch: null, rejected_at_ms: 1_000, ...over };
  };
  const ledgerWith = async (...rejects: readonly Reject[]) => {
    const durable = new Durable();
    const ledger = memoryLedger(new World(), durable);
    durable.objects.set('shop/rejected/cuts/1', Buffer.alloc(10));
    for (const each of rejects) await ledger.addReject(each);
    return { ledger, left: async () => (await ledger.rejects(null)).map(({ id }) => id) };
  };

  test('when it has expired', async () => {
    const { ledger, left } = await ledgerWith(reject('a'), reject('b', { rejected_at_ms: 2_000 }));
    expect(await pruneRejects(ledger, 2_000 + 14 * 86_400_000, 14)).toBe(1);
    expect(await left()).toEqual(['b']);
  });

  test('when the whole table has been copied since, and not by what is read beside it', async () => {
    const chunk = { cut: null };
    const { ledger, left } = await ledgerWith(
      reject('before', { cut: 7 }),
      reject('after', { cut: 8 }),
      reject('epoch 2', { ...chunk, epoch: 2 }),
      reject('epoch 3', { ...chunk, epoch: 3 }),
    );
    const epoch = anEpoch({ stream: 's1', number: 3, held_cut: 7, state: 'done' });
    const ports = { ledger, stage: memoryStage(new World(), new Durable()) };
    await forgetCovered(ports, { ...epoch, kind: 'repair' });
    expect(await left()).toHaveLength(4);
    await forgetCovered(ports, { ...epoch, kind: 'reset' });
    expect(await left()).toEqual(['after', 'epoch 3']);
  });

  test('when it was left out of a cut that was never recorded', async () => {
    const { ledger, left } = await ledgerWith(reject('recorded', { cut: 7 }), reject('not recorded', { cut: 8 }));
    const bookmark = aBookmark({ stream: 's1', captured_cut: 7 });
    const keys = await rejectedKeys(
      { ledger, stage: memoryStage(new World(), new Durable()) },
      { captured: [bookmark], head: 7 },
    );
    expect(keys.size).toBe(0);
    expect(await left()).toEqual(['recorded']);
  });
});

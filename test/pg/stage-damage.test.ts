/**
 * What becomes of a staged object between staging and loading: a byte is flipped, its end is missing, it has another object's bytes, it is gone. The stream halts and
 * names it, never a wrong row; the others go on; trying again changes nothing; and a copy is the way out.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { requestResets, resume } from '../../lib/operate.ts';
import { extract } from '../../lib/pipeline.ts';
import type { Bookmark, Cut } from '../../lib/ports.ts';
import { type FreshLine, freshLine } from '../support/fresh-line.ts';
import { startPostgres, type TestPostgres } from '../support/postgres.ts';

let source: TestPostgres;
let target: TestPostgres;
beforeAll(async () => {
  [source, target] = await Promise.all([startPostgres(), startPostgres()]);
});
afterAll(async () => {
  await Promise.all([source.stop(), target.stop()]);
});

const TABLES = `CREATE TABLE t (id int4 PRIMARY KEY, v text); INSERT INTO t SELECT i, i FROM generate_series(1, 20) i;
  CREATE TABLE u (id int4 PRIMARY KEY, v text); INSERT INTO u SELECT i, i FROM generate_series(1, 20) i;
  CREATE TABLE w (id int4 PRIMARY KEY, v text);`;

type Objects = Map<string, Buffer>;
/** `newest` and `before` are cuts of which each stream has a part. */
type Damage = (objects: Objects, newest: Cut, before: Cut, stream: string) => void;

const bytesOf = (objects: Objects, { object }: Cut): Buffer => objects.get(object ?? '') ?? Buffer.alloc(0);
const put = (objects: Objects, { object }: Cut, bytes: Buffer): void => void objects.set(object ?? '', bytes);
const rangeOf = ({ streams }: Cut, stream: string) => streams[stream]?.ranges?.[0] ?? [0, 0];

const DAMAGES: readonly (readonly [how: string, code: string, reason: RegExp, damage: Damage])[] = [
  [
    'a byte of its rows is flipped',
    'STAGE_CORRUPT',
    /checksum/,
    (objects, cut, _before, stream) => {
      const [offset, length] = rangeOf(cut, stream);
      const bytes = Buffer.from(bytesOf(objects, cut));
      // The last four are the end of its block.
      bytes.writeUInt8(bytes.readUInt8(offset + length - 6) ^ 0x10, offset + length - 6);
      put(objects, cut, bytes);
    },
  ],
  [
    'a byte of its header is flipped',
    'STAGE_CORRUPT',
    /zstd|header/,
    (objects, cut, _before, stream) => {
      const [offset] = rangeOf(cut, stream);
      const bytes = Buffer.from(bytesOf(objects, cut));
      bytes.writeUInt8(bytes.readUInt8(offset + 40) ^ 0x01, offset + 40);
      put(objects, cut, bytes);
    },
  ],
  [
    'its end is missing',
    'STAGE_CORRUPT',
    /ends before/,
    (objects, cut, _before, stream) => {
      const [offset, length] = rangeOf(cut, stream);
      put(objects, cut, bytesOf(objects, cut).subarray(0, offset + length - 3));
    },
  ],
  [
    'it has the bytes of the cut before it',
    'STAGE_CORRUPT',
    /its bytes are those of .*cuts/,
    (objects, cut, before) => put(objects, cut, bytesOf(objects, before)),
  ],
  ['it is gone', 'STAGE_MISSING', /does not exist/, (objects, { object }) => void objects.delete(object ?? '')],
];

function streamOf({ line }: FreshLine, table: string): Bookmark {
  return line.bookmark(`public.${table}`);
}

/** A window whose bells wait; resolves with its cut. */
async function staged({ line, from }: FreshLine, sql: string): Promise<Cut> {
  await from.query(sql);
  await line.window();
  const cut = line.durable.chain.findLast(({ object }) => object !== null);
  if (!cut) throw new Error('nothing was staged');
  return cut;
}

async function rowsOf(made: FreshLine, table: string): Promise<unknown> {
  return (await made.to.query(`SELECT id, v FROM ${table} ORDER BY id`)).rows;
}

describe('a staged object that a load needs', () => {
  let made: FreshLine;
  beforeAll(async () => {
    made = await freshLine({ source, target }, TABLES);
    await made.equal();
  });
  afterAll(async () => {
    await made?.[Symbol.asyncDispose]();
  });

  let passed = 100;
  test.each(DAMAGES)('%s', { timeout: 60_000 }, async (_how, code, reason, damage) => {
    const { line, from } = made;
    const id = ++passed;
    // Cuts of the same rows, so that they have as many bytes.
    const both = (v: string): string => `UPDATE t SET v = '${v}' WHERE id < 5; UPDATE u SET v = '${v}' WHERE id < 5`;
    const before = await staged(made, both('one'));
    await line.pump();
    const cut = await staged(made, both('two'));
    const { stream } = streamOf(made, 't');
    damage(line.durable.objects, cut, before, stream);
    const stood = await rowsOf(made, 't');
    await line.pump();
    const { halt } = streamOf(made, 't');
    expect(halt).toMatchObject({ code, cut: cut.number, must_reset: false });
    expect(halt?.message).toContain(cut.object);
    expect(halt?.message).toMatch(reason);
    expect(halt?.remedy).toContain(`sluice backfill ${stream} --reset`);

    // The others go on; trying again is no way out while it is as it is; a copy is.
    await from.query('DELETE FROM w');
    await from.query("INSERT INTO w VALUES ($1, 'goes on')", [id]);
    const { ledger, doorbell, log, clock } = line.ports();
    await resume({ ledger, doorbell, log, clock }, 'public.t');
    await line.window();
    await line.pump();
    expect(await rowsOf(made, 'w')).toEqual([{ id, v: 'goes on' }]);
    expect(streamOf(made, 't').halt).toMatchObject({ code });
    expect(await rowsOf(made, 't')).toEqual(stood);
    await requestResets({ ledger, log }, ['public.t', 'public.u']);
    await made.equal();
  });

  test('a chunk of a copy is damaged: it is copied anew', { timeout: 60_000 }, async () => {
    await using made = await freshLine({ source, target }, TABLES);
    const { line } = made;
    const { extractBells, objects } = line.durable;
    await line.window();
    // Read, and not loaded.
    while (extractBells.length > 0) {
      const bell = extractBells.shift();
      if (bell) await extract(line.ports(), line.pipeline, bell);
    }
    const name = [...objects.keys()].find((object) => object.includes(`/chunks/${streamOf(made, 't').stream}/`)) ?? '';
    const bytes = Buffer.from(objects.get(name) ?? Buffer.alloc(0));
    bytes.writeUInt8(bytes.readUInt8(bytes.length - 6) ^ 0x10, bytes.length - 6);
    objects.set(name, bytes);
    await line.pump();
    expect(streamOf(made, 't').halt).toMatchObject({ code: 'STAGE_CORRUPT' });
    expect(streamOf(made, 't').halt?.message).toContain(name);
    expect(streamOf(made, 'u').halt).toBeNull();
    const { ledger, log } = line.ports();
    await requestResets({ ledger, log }, ['public.t']);
    await made.equal();
  });
});

/**
 * Theorem: wherever a real process is killed, before or after any call of any port, the next one goes on, and in the end the target is the source, and the
 * chain is whole.
 *
 * Method: `sluice run` between two servers, killed by itself at failpoints (test/support/failpoints.ts), one after another on the same state, with new work
 * before each. By default some points, drawn by SLUICE_SEED; SLUICE_CRASH_POINTS=all: every one, or those whose names contain its text (`ledger.append`).
 * What no run comes to is named here, with the reason.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { columnsOf, tableText } from '../support/compare.ts';
import { allPoints, deathLog, deathsIn, type Failpoint, failpointEnvironment } from '../support/failpoints.ts';
import { query, startPostgres, type TestPostgres } from '../support/postgres.ts';
import { seededBelow } from '../support/seeded.ts';
import { type Ended, startSluice, type Workplace, workplace } from '../support/sluice.ts';

const SEED = Number(process.env.SLUICE_SEED ?? Math.floor(Math.random() * 2 ** 31));
const WANTED = process.env.SLUICE_CRASH_POINTS ?? '';
const SAMPLE = 5;
const RANDOM_RUNS = WANTED === '' ? 2 : 40;
/** Of a call, at random; a run that has work to do makes some hundred. */
const RATE = 0.01;

/** The project's own patience is for the sample. */
const PATIENCE = WANTED === '' ? {} : { timeout: 3_600_000 };

/** Calls that no run here makes, with where they are made. */
const ELSEWHERE: Readonly<Record<string, string>> = {
  'ledger.reports': 'by commands that show something',
  'ledger.addEpochRequest': 'by `sluice backfill` and `verify --repair`, and for doubtful keys',
  'source.dropLostSlot': 'where the slot is lost',
  'source.specialNumbers': 'with wal2json',
  'source.terminate': 'where the walsender of a window that died has not seen it yet',
  'source.setFailover': 'where `source.failover` has been switched',
  'object.abandon': 'where a window or a chunk failed in the middle of an object',
  'comparer.obstacle': 'for a resync',
  'comparer.equalRows': 'for a resync',
  'target.noteHalts': 'where a stream halts',
};
const isElsewhere = (point: string): boolean => ELSEWHERE[callOf(point)] !== undefined;
const callOf = (point: string): string => point.slice(0, point.lastIndexOf(':'));

/** Made once in the life of a chain: they come first, in this order. */
const AT_THE_BEGINNING = ['source.createSlot', 'source.advanceSlot'];
/** Made only where all streams move together, and rows are checked. */
const TOGETHER = [
  'target.transactionOver',
  'transaction.place',
  'ledger.addReject',
  'ledger.removeRejects',
  'ledger.rejects',
];

interface Story {
  readonly name: string;
  readonly target: string;
  readonly calls: (call: string) => boolean;
}
const STORIES: readonly Story[] = [
  {
    name: 'apart',
    target: '  hard_delete: true\n  primary_key_required: false',
    calls: (call) => !TOGETHER.includes(call),
  },
  {
    name: 'together',
    target: '  hard_delete: true\n  consistency: transaction\n  validate_records: true\n  on_invalid: reject',
    calls: (call) => TOGETHER.includes(call),
  },
];

let source: TestPostgres;
let target: TestPostgres;
let directory: string;

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'sluice-test-crash-'));
  [source, target] = await Promise.all([startPostgres(), startPostgres()]);
});

afterAll(async () => {
  await Promise.all([source, target].map((server) => server?.stop()));
  await rm(directory, { recursive: true, force: true });
});

/** Points of a story in the order in which they can be come to. */
function pointsOf({ calls }: Story): string[] {
  const points = allPoints().filter((point) => calls(callOf(point)) && !isElsewhere(point));
  const wanted = WANTED === 'all' ? points : points.filter((point) => WANTED !== '' && point.includes(WANTED));
  const drawn = WANTED === '' ? sampled(points, SAMPLE) : wanted;
  const rank = (point: string): number => {
    const at = AT_THE_BEGINNING.indexOf(callOf(point));
    return at < 0 ? AT_THE_BEGINNING.length : at;
  };
  return drawn.toSorted((a, b) => rank(a) - rank(b));
}

function sampled(points: readonly string[], count: number): string[] {
  const below = seededBelow(SEED);
  const left = points.filter((point) => !AT_THE_BEGINNING.includes(callOf(point)));
  return Array.from({ length: count }, () => left.splice(below(left.length), 1)).flat();
}

/** A schema of its own on both sides. */
async function begin(story: Story): Promise<Workplace> {
  const { name } = story;
  await query(
    source,
    `CREATE SCHEMA ${name};
     CREATE TABLE ${name}.a (id int PRIMARY KEY, note varchar(40));
     INSERT INTO ${name}.a SELECT i, 'note ' || i FROM generate_series(1, 300) i;
     CREATE TABLE ${name}.documents (id int PRIMARY KEY, version int, body text);
     ALTER TABLE ${name}.documents ALTER body SET STORAGE EXTERNAL;
     INSERT INTO ${name}.documents SELECT i, 0, repeat(md5(i::text), 100) FROM generate_series(1, 20) i;
     CREATE TABLE ${name}.parts (id int, region text, PRIMARY KEY (id, region)) PARTITION BY LIST (region);
     CREATE TABLE ${name}.parts_north PARTITION OF ${name}.parts FOR VALUES IN ('north');
     CREATE TABLE ${name}.filtered (id int PRIMARY KEY, note text);
     CREATE TABLE ${name}.seen (id int PRIMARY KEY, version int NOT NULL);
     CREATE TABLE ${name}.checked (id int PRIMARY KEY, note text);
     CREATE TABLE ${name}.whole (id int PRIMARY KEY);`,
  );
  const tables = [
    `'${name}.*'`,
    `{ table: ${name}.filtered, where: id % 2 = 0 }`,
    `{ table: ${name}.seen, replication_method: INCREMENTAL, replication_key: version }`,
    // Counts where rows are checked.
    `{ table: ${name}.checked, json_schema: { properties: { note: { maxLength: 10 } } } }`,
    `{ table: ${name}.whole, replication_method: FULL_TABLE }`,
  ];
  const names = `  replication_slot: ${name}\n  publication_name: ${name}`;
  return await workplace(source, target, {
    pipeline: name,
    tables: `[${tables.join(', ')}]`,
    source: names,
    target: story.target,
  });
}

/** Something for every part of the line to do: changes, a table that is new, rows for what is read by query. */
async function work({ name }: Story, turn: number): Promise<void> {
  await query(
    source,
    `CREATE TABLE ${name}.new_${turn} (id int PRIMARY KEY, note text);
     INSERT INTO ${name}.new_${turn} SELECT i, 'n' FROM generate_series(1, 50) i;
     INSERT INTO ${name}.a SELECT i, 'new' FROM generate_series(${turn * 1000 + 1001}, ${turn * 1000 + 1040}) i;
     UPDATE ${name}.a SET note = note || '.' WHERE id % 7 = ${turn % 7} AND length(note) < 30;
     DELETE FROM ${name}.a WHERE id % 11 = ${turn % 11};
     UPDATE ${name}.a SET id = id + 500000 WHERE id % 100 = ${turn % 100} AND id < 500000;
     UPDATE ${name}.documents SET version = version + 1;
     INSERT INTO ${name}.parts VALUES (${turn}, 'north');
     CREATE TABLE ${name}.parts_${turn} PARTITION OF ${name}.parts FOR VALUES IN ('region ${turn}');
     INSERT INTO ${name}.filtered VALUES (${turn}, 'f');
     INSERT INTO ${name}.seen VALUES (${turn}, ${turn});
     INSERT INTO ${name}.checked VALUES (${2 * turn}, 'valid'), (${2 * turn + 1}, 'much too long');
     INSERT INTO ${name}.whole VALUES (${turn})`,
  );
}

async function run(place: Workplace, failpoint: Failpoint | null): Promise<Ended> {
  const env = { ...place.env, ...(failpoint && failpointEnvironment(failpoint)) };
  return await startSluice(['run', '--until-caught-up', '-c', place.config, '--state', place.state], env).ended;
}

/** What `point` needs besides. */
async function prepare(place: Workplace, { name }: Story, point: string): Promise<void> {
  if (point.startsWith('target.cancelEpoch')) {
    await place.command('backfill', `${name}.a`, '--where', 'id > 0').ended;
    await place.command('backfill', `${name}.a`, '--cancel').ended;
  }
  if (point.startsWith('ledger.removeEpochRequest')) {
    for (const where of ['id > 5', 'id > 6']) await place.command('backfill', `${name}.a`, '--where', where).ended;
  }
}

async function expectWhole(place: Workplace, { name }: Story): Promise<void> {
  const last = await run(place, null);
  expect(last.code, last.err).toBe(0);
  const [from, to] = [await source.connect(), await target.connect()];
  try {
    // What the file leaves out, or the check; nothing reads the log of this any more.
    await from.query(`DELETE FROM ${name}.filtered WHERE id % 2 = 1`);
    if (name === 'together') await from.query(`DELETE FROM ${name}.checked WHERE length(note) > 10`);
    const { rows } = await from.query<{ table: string }>(
      `SELECT relname AS table FROM pg_class WHERE relnamespace = '${name}'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition`,
    );
    for (const { table } of rows) {
      const at = { schema: name, table };
      const columns = await columnsOf(from, at);
      expect({ table, ...(await tableText(to, at, columns)) }).toEqual({
        table,
        ...(await tableText(from, at, columns)),
      });
    }
  } finally {
    await from.end();
    await to.end();
  }
  const chain = await place.command('verify', '--chain').ended;
  expect(chain.code, chain.out + chain.err).toBe(0);
}

describe('killed at a failpoint', () => {
  test.for(STORIES)('and started again, with streams that move $name', PATIENCE, async (story) => {
    const points = pointsOf(story);
    if (points.length === 0) return;
    console.log(`SLUICE_SEED=${SEED} ${points.join(' ')}`);
    await using place = await begin(story);
    const log = deathLog(directory);
    const missed: string[] = [];
    for (const [turn, at] of points.entries()) {
      await work(story, turn);
      await prepare(place, story, at);
      const before = deathsIn(log).length;
      const { code, signal, err } = await run(place, { at, n: 1, log });
      if (signal === 'SIGKILL') expect(deathsIn(log).slice(before)).toEqual([at]);
      else {
        expect(code, err).toBe(0);
        missed.push(at);
      }
    }
    await expectWhole(place, story);
    expect(missed).toEqual([]);
  });

  test('at random, again and again', PATIENCE, async () => {
    const story = { ...(STORIES[0] as Story), name: 'random' };
    await using place = await begin(story);
    const log = join(directory, 'random.log');
    for (let turn = 0; turn < RANDOM_RUNS; turn++) {
      await work(story, turn);
      const { code, signal, err } = await run(place, { rate: RATE, seed: SEED + 1000 * turn, log });
      if (signal !== 'SIGKILL') expect(code, err).toBe(0);
    }
    console.log(`SLUICE_SEED=${SEED} died at ${deathsIn(log).join(' ')}`);
    await expectWhole(place, story);
  });
});

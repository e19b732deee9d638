/**
 * Theorem: wherever a real process is killed, before or after any call of any port, the next one goes on, and in the end the target is the source, and the
 * chain is whole.
 *
 * Method: `sluice run` between two servers, killed by itself at failpoints (test/support/failpoints.ts), one after another on the same state, with new work
 * before each, and then at random. By default a few points, drawn by SLUICE_SEED; SLUICE_CRASH_POINTS=all: every one, or those whose names contain its text
 * (`ledger.append`). A run that does not die at its point fails the test: what no run comes to is named here, with the reason.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { columnsOf, tableText } from '../support/compare.ts';
import { allPoints, deathsIn, type Failpoint, failpointEnvironment } from '../support/failpoints.ts';
import { query, startPostgres, type TestPostgres } from '../support/postgres.ts';
import { seededBelow } from '../support/seeded.ts';
import { type Ended, startSluice, type Workplace, workplace } from '../support/sluice.ts';

const SEED = Number(process.env.SLUICE_SEED ?? Math.floor(Math.random() * 2 ** 31));
const WANTED = process.env.SLUICE_CRASH_POINTS ?? '';
const SAMPLE = 2;
const RANDOM_RUNS = WANTED === '' ? 1 : WANTED === 'all' ? 20 : 0;
/** Of a call, at random; a run that has work to do makes some hundred. */
const RATE = 0.01;

/** Each point is a process; on a machine that has other things to do, that is slow. */
const PATIENCE = { timeout: WANTED === '' ? 600_000 : 7_200_000 };

/** Calls that no run here makes, with where they are made. */
const ELSEWHERE: Readonly<Record<string, string>> = {
  'ledger.reports': 'by commands that show something',
  'ledger.addEpochRequest': 'by `sluice backfill` and `verify --repair`, and for doubtful keys',
  'source.dropLostSlot': 'where the slot is lost',
  'source.specialNumbers': 'with wal2json',
  'ledger.renewLease': 'where a window lasts for a while',
  'ledger.saveUnfinished': 'where the time of a window is over inside a transaction',
  'ledger.removeUnfinished': 'where such a transaction is another one by then',
  'source.timelineEnd': 'where the source has been promoted',
  'source.terminate': 'where the walsender of a window that died has not seen it yet',
  'slot.askKeepalive': 'where there is nothing to be read for a moment',
  'source.setFailover': 'where `source.failover` has been switched',
  'object.abandon': 'where a window or a chunk failed in the middle of an object',
  'comparer.obstacle': 'for a resync',
  'comparer.equalRows': 'for a resync',
  'target.noteHalts': 'where a stream halts',
};
const isElsewhere = (point: string): boolean => ELSEWHERE[callOf(point)] !== undefined;
const callOf = (point: string): string => point.slice(0, point.lastIndexOf(':'));

/** Made only while a chain has no slot: they come first, in this order. */
const AT_THE_BEGINNING = ['source.createSlot', 'source.advanceSlot'];
/** Made once in the life of a chain, whatever becomes of it: the other story dies before it. */
const ONCE = 'source.advanceSlot:after';
/** Made only where all streams move together, rows are checked, and what the target refuses is put aside. */
const TOGETHER = [
  'target.transactionOver',
  'transaction.place',
  'transaction.divert',
  'ledger.addReject',
  'ledger.removeRejects',
  'ledger.rejects',
];
/** Of these, those that a row of which the target has refused an earlier version leads to. */
const AFTER_REFUSAL = ['transaction.divert', 'ledger.removeRejects'];

const isTogether = (point: string): boolean => point === ONCE || TOGETHER.includes(callOf(point));

interface Story {
  readonly name: string;
  readonly target: string;
  /** Of the table whose rows are checked; empty: none is. */
  readonly checked: string;
  readonly has: (point: string) => boolean;
  readonly random_runs: number;
}
const STORIES: readonly Story[] = [
  {
    name: 'apart',
    target: '  hard_delete: true\n  primary_key_required: false',
    checked: '',
    has: (point) => !isTogether(point),
    random_runs: RANDOM_RUNS,
  },
  {
    name: 'together',
    target:
      '  hard_delete: true\n  consistency: transaction\n  validate_records: true\n  on_invalid: reject\n  on_error: quarantine',
    checked: '{ properties: { note: { maxLength: 10 } } }',
    has: isTogether,
    random_runs: WANTED === '' ? 0 : RANDOM_RUNS,
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

/** What is asked for, or a sample of all that there are. */
function chosenPoints(): string[] {
  const points = allPoints().filter((point) => !isElsewhere(point));
  if (WANTED !== '') return points.filter((point) => WANTED === 'all' || point.includes(WANTED));
  const below = seededBelow(SEED);
  const left = points.filter((point) => !AT_THE_BEGINNING.includes(callOf(point)));
  return Array.from({ length: SAMPLE }, () => left.splice(below(left.length), 1)).flat();
}

/** Points of a story in the order in which they can be come to. */
function pointsOf({ has }: Story): string[] {
  const rank = (point: string): number => {
    const at = AT_THE_BEGINNING.indexOf(callOf(point));
    return at < 0 ? AT_THE_BEGINNING.length : at;
  };
  return chosenPoints()
    .filter(has)
    .toSorted((a, b) => rank(a) - rank(b));
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
     CREATE TABLE ${name}.refused (id int PRIMARY KEY, n int NOT NULL);
     CREATE TABLE ${name}.whole (id int PRIMARY KEY);`,
  );
  const tables = [
    `'${name}.*'`,
    `{ table: ${name}.filtered, where: id % 2 = 0 }`,
    `{ table: ${name}.seen, replication_method: INCREMENTAL, replication_key: version }`,
    ...(story.checked === '' ? [] : [`{ table: ${name}.checked, json_schema: ${story.checked} }`]),
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
async function prepare(place: Workplace, story: Story, point: string): Promise<void> {
  const { name } = story;
  if (callOf(point) === 'source.advanceSlot') {
    // Only a slot that a former run has left is moved.
    const slots = await query(source, `SELECT FROM pg_replication_slots WHERE slot_name = '${name}'`);
    if (slots.length === 0) await run(place, { at: 'source.createSlot:after', n: 1, log: join(directory, 'slot.log') });
  }
  if (AFTER_REFUSAL.includes(callOf(point))) {
    await expectDone(place);
    await query(
      target,
      `ALTER TABLE ${name}.refused DROP CONSTRAINT IF EXISTS positive, ADD CONSTRAINT positive CHECK (n > 0)`,
    );
    await query(source, `INSERT INTO ${name}.refused SELECT coalesce(max(id), 0) + 1, -1 FROM ${name}.refused`);
    await expectDone(place);
    await query(source, `UPDATE ${name}.refused SET n = 1`);
  }
  if (point.startsWith('target.cancelEpoch')) {
    await place.command('backfill', `${name}.a`, '--where', 'id > 0').ended;
    await place.command('backfill', `${name}.a`, '--cancel').ended;
  }
  if (point.startsWith('ledger.removeEpochRequest')) {
    for (const where of ['id > 5', 'id > 6']) await place.command('backfill', `${name}.a`, '--where', where).ended;
  }
}

async function expectDone(place: Workplace): Promise<void> {
  const { code, signal, err } = await run(place, null);
  expect([code, signal], err).toEqual([0, null]);
}

async function expectWhole(place: Workplace, { name, checked }: Story): Promise<void> {
  await expectDone(place);
  const [from, to] = [await source.connect(), await target.connect()];
  try {
    // What the file leaves out, or the check; nothing reads the log of this any more.
    await from.query(`DELETE FROM ${name}.filtered WHERE id % 2 = 1`);
    if (checked !== '') await from.query(`DELETE FROM ${name}.checked WHERE length(note) > 10`);
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

test.for(STORIES)('killed at failpoints and started again, with streams that move $name', PATIENCE, async (story) => {
  const points = pointsOf(story);
  if (points.length + story.random_runs === 0) return;
  console.log(`SLUICE_SEED=${SEED} ${points.join(' ')}`);
  await using place = await begin(story);
  const log = join(directory, `${story.name}.log`);
  /** Runs that did not die where they should, with how they ended: in vain, or badly. */
  const wrong: unknown[] = [];
  let turn = 0;
  const dieAt = async (at: string): Promise<{ died: string[] } & Ended> => {
    await work(story, turn++);
    await prepare(place, story, at);
    const before = deathsIn(log).length;
    const ended = await run(place, { at, n: 1, log });
    return { ...ended, died: deathsIn(log).slice(before) };
  };
  for (const at of points) {
    let { died, code, signal, err } = await dieAt(at);
    // A first sync comes past other points than what follows it.
    if (code === 0) ({ died, code, signal, err } = await dieAt(at));
    if (signal !== 'SIGKILL' || died.join() !== at) wrong.push({ at, died, code, signal, err });
  }
  const random = join(directory, `${story.name}-random.log`);
  for (let runs = 0; runs < story.random_runs; runs++) {
    await work(story, turn++);
    const { code, signal, err } = await run(place, { rate: RATE, seed: SEED + 1000 * turn, log: random });
    if (signal !== 'SIGKILL' && code !== 0) wrong.push({ at: 'random', code, signal, err });
  }
  console.log(`SLUICE_SEED=${SEED} at random: ${deathsIn(random).join(' ')}`);
  await expectWhole(place, story);
  expect(wrong).toEqual([]);
});

/**
 * Goal: the ledger's table or the stage's bucket deleted under a pipeline at work is told by name, nothing is confirmed to the source meanwhile, and the way out that
 * docs/OPERATIONS.md tells ends with both sides equal.
 * Method: the line between two real servers on real protocols of AWS; something is deleted, windows and loads are tried, it is made again, and the page is followed.
 */
import { DeleteTableCommand, waitUntilTableNotExists } from '@aws-sdk/client-dynamodb';
import {
  CreateBucketCommand,
  DeleteBucketCommand,
  DeleteObjectCommand,
  ListObjectsV2Command,
} from '@aws-sdk/client-s3';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { requestResets } from '../../lib/operate.ts';
import { makeLedgerTable, startAws, type TestAws } from '../support/aws.ts';
import { type AwsLine, awsLine } from '../support/aws-line.ts';
import { type FreshLine, freshLine } from '../support/fresh-line.ts';
import { query, startPostgres, type TestPostgres } from '../support/postgres.ts';
import { confirmedLsn } from '../support/server-faults.ts';

const ROUNDS_MAX = 12;

let source: TestPostgres;
let target: TestPostgres;

beforeAll(async () => {
  [source, target] = await Promise.all([startPostgres(), startPostgres()]);
}, 60_000);
afterAll(() => Promise.all([source.stop(), target.stop()]));

interface Gone {
  readonly fresh: FreshLine;
  readonly aws: TestAws;
  readonly on: AwsLine;
  /** Codes of the halts. */
  readonly halts: () => Promise<readonly string[]>;
  /** Windows and bells until both sides are equal and nothing is halted. */
  readonly settle: () => Promise<void>;
}

async function pipeline(): Promise<Gone & AsyncDisposable> {
  await using stack = new AsyncDisposableStack();
  const aws = stack.use(await startAws());
  const made = `CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT i, 'v' || i FROM generate_series(1, 500) i`;
  const fresh = stack.use(await freshLine({ source, target }, made, { target: 'hard_delete: true' }));
  const on = awsLine(fresh.line, aws);
  const halts = async (): Promise<readonly string[]> =>
    (await on.ports().ledger.bookmarks()).flatMap(({ halt }) => (halt ? [halt.code] : []));
  const settle = async (): Promise<void> => {
    for (let round = 0; round < ROUNDS_MAX; round++) {
      expect(await on.window()).toBeNull();
      expect(await on.pump()).toEqual([]);
      const bookmarks = await on.ports().ledger.bookmarks();
      const isLive = bookmarks.length > 0 && bookmarks.every(({ state, halt }) => state === 'live' && halt === null);
      if (isLive && (await fresh.line.equal('public.t'))) return;
    }
    expect(await fresh.line.both('public.t')).toBe('equal');
  };
  await settle();
  const held = stack.move();
  return { fresh, aws, on, halts, settle, [Symbol.asyncDispose]: () => held.disposeAsync() };
}

/** Changes are made and a window is tried: it fails so, and the slot stays. */
async function fails({ fresh, on }: Gone, code: string): Promise<void> {
  const slot = fresh.line.pipeline.source.replication_slot;
  const before = await confirmedLsn(source, slot);
  await fresh.from.query(
    `INSERT INTO t SELECT coalesce(max(id), 0) + 1, 'meanwhile' FROM t; UPDATE t SET v = 'new' WHERE id % 3 = 0`,
  );
  expect(await on.window()).toMatchObject({ code });
  expect(await confirmedLsn(source, slot)).toBe(before);
}

test('the bucket', async () => {
  await using gone = await pipeline();
  const { aws, on, fresh, halts, settle } = gone;
  // Staged, and not loaded.
  await fresh.from.query('DELETE FROM t WHERE id <= 100');
  expect(await on.window()).toBeNull();
  const { Contents = [] } = await aws.s3.send(new ListObjectsV2Command({ Bucket: aws.bucket }));
  for (const { Key } of Contents) await aws.s3.send(new DeleteObjectCommand({ Bucket: aws.bucket, Key }));
  await aws.s3.send(new DeleteBucketCommand({ Bucket: aws.bucket }));

  await fails(gone, 'AWS_MISSING');
  const failed = await on.pump();
  expect(new Set(failed.map(({ code }) => code))).toEqual(new Set(['AWS_MISSING']));
  expect(await halts()).toEqual([]);

  await aws.s3.send(new CreateBucketCommand({ Bucket: aws.bucket }));
  expect(await on.window()).toBeNull();
  await on.pump();
  expect(await halts()).toEqual(['STAGE_MISSING']);
  await requestResets(on.ports(), ['public.t']);
  await settle();
});

test('the ledger’s table', async () => {
  await using gone = await pipeline();
  const { aws, on, fresh, halts, settle } = gone;
  await fresh.from.query('DELETE FROM t WHERE id <= 100');
  expect(await on.window()).toBeNull();
  await aws.dynamo.send(new DeleteTableCommand({ TableName: aws.table }));
  await waitUntilTableNotExists({ client: aws.dynamo, maxWaitTime: 20, minDelay: 1 }, { TableName: aws.table });

  await fails(gone, 'AWS_MISSING');
  const failed = await on.pump();
  expect(new Set(failed.map(({ code }) => code))).toEqual(new Set(['AWS_MISSING']));

  await makeLedgerTable(aws.dynamo, aws.table);
  await fails(gone, 'SLOT_FOREIGN');
  const slot = fresh.line.pipeline.source.replication_slot;
  await query(source, `SELECT pg_drop_replication_slot('${slot}')`);
  for (let round = 0; round < ROUNDS_MAX && (await halts()).length === 0; round++) {
    expect(await on.window()).toBeNull();
    await on.pump();
  }
  expect(await halts()).toEqual(['LEDGER_INCARNATION']);
  // Readers have the former rows all the while.
  expect(await fresh.line.rows('target', 'public.t')).toHaveLength(500);
  await requestResets(on.ports(), ['*.*']);
  await settle();
});

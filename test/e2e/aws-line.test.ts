/**
 * Goal: windows, copies and loads over S3, DynamoDB and SQS that fail at random, before their work and after it, in the middle of requests and of answers: nothing is
 * lost, nothing is there twice, nothing halts, and the chain has no hole.
 * Method: the line between two real servers with lib's own adapters of AWS, through proxies that break a share of all requests; then they heal.
 */
import { DynamoDBClient } from '@aws-sdk/client-dynamodb';
import { S3Client } from '@aws-sdk/client-s3';
import { SQSClient } from '@aws-sdk/client-sqs';
import { expect, test } from 'vitest';
import { clientOptions } from '../../functions/clients.ts';
import { CATALOGUE } from '../../lib/error-catalogue.ts';
import type { SluiceError } from '../../lib/errors.ts';
import { startAws } from '../support/aws.ts';
import { awsLine } from '../support/aws-line.ts';
import { type HttpFault, startHttpFaults } from '../support/http-faults.ts';
import { openLine } from '../support/line.ts';
import { startPostgres } from '../support/postgres.ts';
import { seeded } from '../support/seeded.ts';

const SEED = Number(process.env.SLUICE_SEED ?? Math.floor(Math.random() * 2 ** 31));
const SECONDS = Number(process.env.SLUICE_AWS_LINE_SECONDS ?? 8);
/** Of all requests. The clients try twice, so that about one call in a hundred fails for good. */
const SHARE = 0.12;
const ROUNDS_MAX = 40;

const FAULTS: readonly HttpFault[] = [
  { status: 500, code: 'InternalServerError' },
  { status: 503, code: 'SlowDown', is_done: true },
  { status: 400, code: 'ThrottlingException' },
  { status: 400, code: 'BadDigest' },
  'lost_request',
  'half_request',
  'lost_answer',
  'half_answer',
  'stalled_answer',
  'silent_answer',
];

test('a line over services that fail at random', { timeout: 180_000 + SECONDS * 1000 }, async () => {
  await using stack = new AsyncDisposableStack();
  const [aws, source, target] = await Promise.all([startAws(), startPostgres(), startPostgres()]);
  for (const server of [aws, source, target]) stack.use(server);
  const items = stack.use(await startHttpFaults(aws.dynamo_endpoint));
  const rest = stack.use(await startHttpFaults(aws.s3_endpoint));
  const common = {
    region: 'us-east-1',
    credentials: { accessKeyId: 'test', secretAccessKey: 'test' },
    ...clientOptions(2_000, 2_000),
    maxAttempts: 2,
  };
  const dynamo = new DynamoDBClient({ ...common, endpoint: items.endpoint });
  const s3 = new S3Client({ ...common, endpoint: rest.endpoint, forcePathStyle: true });
  const sqs = new SQSClient({ ...common, endpoint: rest.endpoint, useQueueUrlAsEndpoint: false });
  for (const client of [dynamo, s3, sqs]) stack.defer(() => client.destroy());

  const from = await source.connect();
  stack.defer(() => from.end());
  await from.query('CREATE TABLE t (id int PRIMARY KEY, v text, w text)');
  const at = ({ host, port, user, password, database }: typeof source) => ({ host, port, user, password, database });
  const line = stack.use(await openLine({ source: at(source), target: at(target) }));
  const { ports, ...broken } = awsLine(line, aws, { dynamo, s3, sqs });

  const failures: string[] = [];
  /** What is tried again is counted; what would wait for a person is thrown. */
  const passed = ({ code, message }: Pick<SluiceError, 'code' | 'message'>): void => {
    if (CATALOGUE[code].disposition !== 'retry') throw new Error(`SLUICE_SEED=${SEED}: ${code}: ${message}`);
    failures.push(code);
  };
  const window = async (): Promise<void> => {
    const error = await broken.window();
    if (error) passed(error);
  };
  /** Hears what was rung, by a client that does not fail: a message that is lost is rung again by the next window. */
  const pump = async (): Promise<void> => {
    for (const error of await broken.pump()) passed(error);
  };

  /** The target's table is there after the first copy. */
  const isEqual = async () => (await line.columns('target', 'public.t')).length > 0 && (await line.equal('public.t'));

  const random = seeded(SEED);
  for (const proxy of [items, rest]) proxy.breakSome(SHARE, FAULTS, random);
  const until_ms = Date.now() + SECONDS * 1000;
  let round = 0;
  while (round < ROUNDS_MAX && (round < 3 || Date.now() < until_ms)) {
    const first = ++round * 1_000;
    await from.query(`INSERT INTO t SELECT g, md5(g::text), 'w' FROM generate_series(${first}, ${first + 499}) g`);
    await from.query(`UPDATE t SET w = w || '${round}' WHERE id % 5 = ${round % 5}`);
    await from.query(`DELETE FROM t WHERE id % 7 = ${round % 7}`);
    await window();
    await pump();
  }
  const met = items.met + rest.met;
  expect(met).toBeGreaterThan(0);
  for (const proxy of [items, rest]) proxy.heal();
  for (let left = 10; left > 0 && !(await isEqual()); left--) {
    await window();
    await pump();
  }
  expect(await line.both('public.t'), `SLUICE_SEED=${SEED}: ${met} faults, ${failures.join(', ')}`).toSatisfy(
    ({ source: there, target: here }: { source: unknown; target: unknown }) =>
      JSON.stringify(there) === JSON.stringify(here),
  );

  const { ledger } = ports();
  const cuts = await ledger.cutsAfter(-1, 1_000);
  for (const [i, cut] of cuts.entries()) {
    expect(cut.number).toBe(i);
    if (i > 1) expect(cut.begin_lsn).toBe(cuts[i - 1]?.end_lsn);
  }
  for (const { halt } of await ledger.bookmarks()) expect(halt).toBeNull();
});

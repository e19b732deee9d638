/**
 * Goal: a function may do what it does, and nothing that it does not. Method: the functions on the local engine, watched, through all kinds of work; what they ask of
 * AWS is held against what the stack grants them (infra/aws/grants.ts), in both directions. What is granted for a fault alone is listed here, with the fault.
 */
import { readFileSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { QueryCommand, UpdateItemCommand } from '@aws-sdk/client-dynamodb';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { RIGHTS } from '../../infra/aws/grants.ts';
import type { FunctionName } from '../../infra/aws/limits.ts';
import { type Engine, startEngine } from '../../infra/local/engine.ts';
import { readPipeline } from '../../lib/config/read.ts';
import { ledgerKeys } from '../../lib/ledger/keys.ts';
import type { AskedRequest } from '../support/fixtures/watched.ts';
import { engineOptions, removeDirectory, scratchDirectory } from '../support/local-engine.ts';
import { query, startPostgres, type TestPostgres } from '../support/postgres.ts';

const NAMES = ['drain', 'extract', 'load', 'backfill', 'operate'] as const satisfies readonly FunctionName[];
const PIPELINE = 'grants';

/** Granted, and asked for only when something has gone wrong, or by Lambda itself in the function's name: `function action resource`. */
const NOT_ASKED: readonly (readonly [right: RegExp, why: string])[] = [
  [/ s3:AbortMultipartUpload /, 'a window, a chunk or a load that fails leaves no parts'],
  [/ s3:ListBucket /, 'no request of its own: an object that is not there is told from one that may not be read'],
  [/^drain s3:GetObject cuts\/$/, 'HeadObject, after an answer that was lost'],
  [/^extract s3:GetObject /, 'HeadObject, after an answer that was lost'],
  [/ sqs:ChangeMessageVisibility /, 'a bell that failed rings again soon'],
];

let source: TestPostgres;
let target: TestPostgres;
let directory: string;
let engine: Engine;

beforeAll(async () => {
  [source, target] = await Promise.all([startPostgres(), startPostgres()]);
  directory = await scratchDirectory();
}, 60_000);

afterAll(async () => {
  await engine?.stop();
  await Promise.all([source, target].map((server) => server?.stop()));
  await removeDirectory(directory);
}, 60_000);

const side = ({ host, port, user, database }: TestPostgres, password: string): string =>
  `host: ${host}, port: ${port}, user: ${user}, database: ${database}, password: "\${env:${password}}"`;

/** A window, and everything that it rings for. */
async function settled(): Promise<void> {
  await engine.window({ ring_all: true, break_at_end_lsn: true });
  await engine.idle();
}

/** As if its cuts had been recorded long ago. */
async function age({ backend: { clients, resources } }: Engine): Promise<void> {
  const { chain } = ledgerKeys(PIPELINE);
  const { Items = [] } = await clients.dynamodb.send(
    new QueryCommand({
      TableName: resources.table,
      KeyConditionExpression: 'pk = :chain',
      ExpressionAttributeValues: { ':chain': { S: chain } },
    }),
  );
  expect(Items.length).toBeGreaterThan(1);
  for (const item of Items) {
    const { pk, sk } = item;
    if (!pk || !sk) throw new Error('an item without a key');
    await clients.dynamodb.send(
      new UpdateItemCommand({
        TableName: resources.table,
        Key: { pk, sk },
        UpdateExpression: 'SET recorded_at_ms = :then',
        ExpressionAttributeValues: { ':then': { N: '1' } },
      }),
    );
  }
}

test('each function asks for what it may, and may what it asks for', { timeout: 480_000 }, async () => {
  const text = `
pipeline: ${PIPELINE}
source: { ${side(source, 'SOURCE_PASSWORD')} }
target: { ${side(target, 'TARGET_PASSWORD')}, hard_delete: true, validate_records: true, on_invalid: reject, on_error: quarantine }
tables: [{ table: public.checked, json_schema: { properties: { n: { type: integer, maximum: 10 } } } }, public.plain]
`;
  const options = await engineOptions(directory);
  await writeFile(options.configPath, text);
  const output = join(directory, 'output');
  const modules = NAMES.map((name) => [name, new URL(`../support/fixtures/watched.ts?${name}`, import.meta.url).href]);
  engine = await startEngine({
    ...options,
    pipeline: readPipeline(text, options.configPath),
    environment: { ...options.environment, SOURCE_PASSWORD: source.password, TARGET_PASSWORD: target.password },
    functions: Object.fromEntries(modules) as Record<FunctionName, string>,
  });
  await query(
    source,
    `CREATE TABLE checked (id int PRIMARY KEY, n int); INSERT INTO checked VALUES (1, 1), (2, 11);
     CREATE TABLE plain (id int PRIMARY KEY, v text); INSERT INTO plain SELECT i, md5(i::text) FROM generate_series(1, 100) i`,
  );
  await settled();
  expect(await query(target, 'SELECT count(*)::int AS n FROM plain')).toEqual([{ n: 100 }]);
  // Rows that are left out, and rows that are refused.
  await query(target, 'ALTER TABLE plain ADD CHECK (id < 1000000)');
  await query(
    source,
    `INSERT INTO checked VALUES (3, 12); INSERT INTO plain VALUES (1000001, 'refused'); DELETE FROM plain WHERE id = 1`,
  );
  await settled();
  const call = (name: FunctionName, event: Readonly<Record<string, unknown>>): Promise<unknown> =>
    engine.invoke(name, event);
  // The second waits for the end of the first.
  await Promise.all(
    ['id < 50', 'id < 40'].map((where) => call('backfill', { kind: 'backfill', tables: ['public.plain'], where })),
  );
  // Leaves a row out of a chunk, as the log has; the next window looks at both, and takes out what is old.
  await call('backfill', { kind: 'backfill', tables: ['public.checked'], where: 'id < 3' });
  await engine.idle();
  await age(engine);
  await settled();
  await call('backfill', { kind: 'backfill', tables: ['public.plain'], where: 'id < 20' });
  await call('backfill', { kind: 'cancel', tables: ['public.plain'] });
  await call('operate', { kind: 'status' });
  await call('operate', { kind: 'rejects' });
  await call('operate', { kind: 'rejects', stream: 'public.checked' });
  await call('operate', { kind: 'load_rejects', stream: 'public.checked' });
  await engine.idle();
  await call('operate', { kind: 'discard_rejects', stream: 'public.checked' });
  await call('operate', { kind: 'resume', stream: 'public.plain' });
  await settled();
  await call('backfill', { kind: 'backfill', tables: ['public.plain'], reset: true });
  await settled();

  const asked = readFileSync(output, 'utf8')
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as AskedRequest);
  const notAsked: string[] = [];
  for (const name of NAMES) {
    const granted = grantedTo(name);
    const used = new Set(asked.filter((request) => request.function === name).map(rightFor));
    expect(
      [...used].filter((right) => !granted.some((pattern) => covers(pattern, right))),
      `${name} lacks`,
    ).toEqual([]);
    const unused = granted.filter((pattern) => ![...used].some((right) => covers(pattern, right)));
    notAsked.push(...unused.map((right) => `${name} ${right}`));
  }
  expect(
    notAsked.filter((right) => !NOT_ASKED.some(([known]) => known.test(right))),
    'granted, and not asked for',
  ).toEqual([]);
  // What has come to be asked for needs no reason.
  for (const [known, why] of NOT_ASKED)
    expect(
      notAsked.some((right) => known.test(right)),
      why,
    ).toBe(true);
});

/** `action resource`: a folder of the stage, or a queue, or the ledger. */
function grantedTo(name: FunctionName): string[] {
  const { ledger, stage, rings, answers } = RIGHTS[name];
  return [
    ...ledger.map((action) => `${action} ledger`),
    ...stage.flatMap(({ actions, folders }) =>
      actions.flatMap((action) => folders.map((folder) => `${action} ${folder}`)),
    ),
    ...(stage.length > 0 ? ['s3:ListBucket stage'] : []),
    ...rings.map((queue) => `sqs:SendMessage ${queue}`),
    ...(answers ? [`sqs:ChangeMessageVisibility ${answers}`] : []),
  ];
}

/** Objects lie in folders below the one that is granted. */
function covers(granted: string, right: string): boolean {
  return granted === right || (granted.startsWith('s3:') && right.startsWith(granted));
}

const S3_ACTIONS: Readonly<Record<string, string>> = {
  GET: 'GetObject',
  HEAD: 'GetObject',
  PUT: 'PutObject',
  POST: 'PutObject',
  DELETE: 'AbortMultipartUpload',
};

/** What IAM wants for a request: https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazons3.html and its like. */
function rightFor({ method, path, target }: AskedRequest): string {
  if (target?.startsWith('DynamoDB_')) return `dynamodb:${target.split('.')[1]} ledger`;
  if (target?.startsWith('AmazonSQS.'))
    return `sqs:${target.split('.')[1]?.replace(/^SendMessageBatch$/, 'SendMessage')} ${/-(load|extract)\.fifo$/.exec(path)?.[1]}`;
  const { pathname, searchParams } = new URL(path, 'http://localhost');
  const [, , ...key] = decodeURIComponent(pathname).split('/');
  const [pipeline, ...rest] = key;
  const isPart = searchParams.has('uploadId') || searchParams.has('uploads');
  if (pipeline !== PIPELINE || (method === 'DELETE' && !isPart)) return `s3:${method} ${pathname}`;
  return `s3:${S3_ACTIONS[method]} ${rest.slice(0, -1).join('/')}/`;
}

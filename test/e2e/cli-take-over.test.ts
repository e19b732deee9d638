/**
 * Goal: `sluice run --stack` takes over, from another machine, a transaction that the stack's windows do not come to the end of: it goes on behind what they have
 * staged, and loads it, with the stack's own ledger, bucket, queues and lease.
 *
 * Method: the services of the local engine stand for those of AWS, and a server of the test for CloudFormation; the stack's windows are drain's own code in this
 * process, with a clock that runs out.
 */
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { readPipelineFile } from '../../cli/pipeline-file.ts';
import { type Runtime, runtimeOf } from '../../functions/clients.ts';
import { drainPorts, extractPorts, loadPorts } from '../../functions/ports.ts';
import { type Backend, openBackend } from '../../infra/local/backend.ts';
import { drain, extract, load } from '../../lib/pipeline.ts';
import type { Doorbell, ExtractBell, LoadBell, RunReport } from '../../lib/ports.ts';
import { startPostgres, type TestPostgres } from '../support/postgres.ts';
import { startSluice, type Workplace, workplace } from '../support/sluice.ts';

const WINDOW_MS = 600_000;
let source: TestPostgres;
let target: TestPostgres;
let place: Workplace;
let backend: Backend;
let runtime: Runtime;
let env: Record<string, string>;
const loadBells: LoadBell[] = [];
const extractBells: ExtractBell[] = [];
/** What the stack's functions would be rung for. */
const doorbell: Doorbell = {
  ringLoad: async (bells) => void loadBells.push(...bells),
  ringExtract: async (bells) => void extractBells.push(...bells),
};

/** DescribeStacks, in the protocol of the service (https://docs.aws.amazon.com/AWSCloudFormation/latest/APIReference/API_DescribeStacks.html). */
const cloudFormation = createServer((request, response) => {
  const body: Buffer[] = [];
  request.on('data', (chunk: Buffer) => body.push(chunk));
  request.on('end', () => {
    const name = new URLSearchParams(Buffer.concat(body).toString()).get('StackName');
    if (name !== 'sluice-test-state') {
      response.writeHead(400, { 'content-type': 'text/xml' });
      response.end(
        `<ErrorResponse><Error><Type>Sender</Type><Code>ValidationError</Code><Message>Stack with id ${name} does not exist</Message></Error></ErrorResponse>`,
      );
      return;
    }
    const { bucket, table, load: loadQueue, extract: extractQueue } = backend.resources;
    const outputs = {
      StageBucket: bucket,
      LedgerTable: table,
      LoadQueueUrl: loadQueue.url,
      ExtractQueueUrl: extractQueue.url,
    };
    const members = Object.entries(outputs).map(
      ([key, value]) => `<member><OutputKey>${key}</OutputKey><OutputValue>${value}</OutputValue></member>`,
    );
    response.writeHead(200, { 'content-type': 'text/xml' });
    response.end(
      `<DescribeStacksResponse xmlns="http://cloudformation.amazonaws.com/doc/2010-05-15/"><DescribeStacksResult><Stacks><member><StackName>${name}</StackName><CreationTime>2026-01-01T00:00:00Z</CreationTime><StackStatus>CREATE_COMPLETE</StackStatus><Outputs>${members.join('')}</Outputs></member></Stacks></DescribeStacksResult></DescribeStacksResponse>`,
    );
  });
});

beforeAll(async () => {
  [source, target] = await Promise.all([startPostgres(), startPostgres()]);
  place = await workplace(source, target);
  const { pipeline } = await readPipelineFile(place.config);
  backend = await openBackend({
    pipeline,
    configPath: place.config,
    stateDirectory: place.state,
    environment: { ...process.env, ...place.env },
    onFatal: (error) => {
      throw error;
    },
  });
  await new Promise<void>((listening) => cloudFormation.listen(0, '127.0.0.1', listening));
  const { port } = cloudFormation.address() as AddressInfo;
  env = { ...backend.environment, AWS_ENDPOINT_URL_CLOUDFORMATION: `http://127.0.0.1:${port}` };
  Object.assign(process.env, env);
  runtime = runtimeOf(process.env, pipeline, () => undefined);
});

afterAll(async () => {
  for (const name of Object.keys(env ?? {}))
    if (name.startsWith('AWS_') || name.startsWith('SLUICE_')) delete process.env[name];
  cloudFormation.close();
  await backend?.stop();
  await place?.[Symbol.asyncDispose]();
  await Promise.all([source?.stop(), target?.stop()]);
});

/** One of the stack's windows, whose time is over after so many looks at it. */
async function window(looks = Number.POSITIVE_INFINITY): Promise<RunReport> {
  let ahead_ms = 0;
  let seen = 0;
  const clock = { ...runtime.ports.clock, now: () => Date.now() + ahead_ms };
  const run = `window-${Date.now()}`;
  return await drain({ ...drainPorts(runtime), doorbell, clock }, runtime.pipeline, {
    run,
    owner: run,
    lease_ms: 2 * WINDOW_MS,
    deadline_ms: Date.now() + WINDOW_MS,
    break_at_end_lsn: true,
    asked: () => {
      if (++seen === looks) ahead_ms = WINDOW_MS;
      return false;
    },
  });
}

async function pump(): Promise<void> {
  for (;;) {
    const extractBell = extractBells.shift();
    const loadBell = extractBell ? undefined : loadBells.shift();
    if (extractBell) await extract({ ...extractPorts(runtime), doorbell }, runtime.pipeline, extractBell);
    else if (loadBell)
      await load({ ...loadPorts(runtime), doorbell }, loadBell, { deadline_ms: Date.now() + WINDOW_MS });
    else return;
  }
}

test('a transaction that the stack does not come to the end of', { timeout: 480_000 }, async () => {
  const sql = await source.connect();
  const there = await target.connect();
  try {
    await sql.query(
      'CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT i, md5(i::text) FROM generate_series(1, 100) i',
    );
    await window();
    await pump();
    await sql.query("INSERT INTO t VALUES (0, 'x')");
    await window();
    await pump();

    await sql.query("INSERT INTO t SELECT i, repeat('long', 20) FROM generate_series(1001, 21000) i");
    const { unfinished } = await window(14);
    expect(unfinished?.changes).toBeGreaterThan(0);
    expect(unfinished?.changes).toBeLessThan(20_000);
    const shown = JSON.parse((await place.command('status', '--json').ended).out) as { unfinished: unknown };
    expect(shown.unfinished).toMatchObject({
      changes: unfinished?.changes,
      tables: ['public.t'],
      windows: 1,
      stalled: false,
    });

    const taken = await startSluice(['run', '-c', place.config, '--stack', 'sluice-test', '--json'], env).ended;
    expect([taken.code, taken.err]).toEqual([0, '']);
    const facts = taken.out
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as Record<string, unknown>);
    expect(facts.find(({ event }) => event === 'window')).toMatchObject({
      changes: 20_000,
      cuts: 1,
      stopped_by: 'end_lsn',
    });
    expect(facts.at(-1)).toMatchObject({ event: 'ended', outcome: 'done', staged: 20_000, loaded: 20_000, halted: 0 });
    const count = async (client: typeof sql): Promise<unknown> =>
      (await client.query('SELECT count(*)::int AS n, md5(string_agg(id || v, $$,$$ ORDER BY id)) AS text FROM t'))
        .rows[0];
    expect(await count(there)).toEqual(await count(sql));
    const head = await runtime.ports.ledger.cutsAfter(-1, 100);
    expect(head.filter(({ earlier }) => earlier !== undefined)).toHaveLength(1);
    // The lease is given back.
    expect((await window()).stopped_by).toBe('end_lsn');
  } finally {
    await Promise.all([sql.end(), there.end()]);
  }
});

test.each([
  ['another pipeline', 'sluice-other', 'is not that of the pipeline test'],
  ['no stack', 'sluice-test', 'There is no stack sluice-test-state'],
])('is refused for %s', async (what, stack, problem) => {
  const nowhere = createServer((_, response) => {
    response.writeHead(400, { 'content-type': 'text/xml' });
    response.end(
      '<ErrorResponse><Error><Type>Sender</Type><Code>ValidationError</Code><Message>none</Message></Error></ErrorResponse>',
    );
  });
  await new Promise<void>((listening) => nowhere.listen(0, '127.0.0.1', listening));
  const url = `http://127.0.0.1:${(nowhere.address() as AddressInfo).port}`;
  const at = what === 'no stack' ? { ...env, AWS_ENDPOINT_URL_CLOUDFORMATION: url } : env;
  const { code, err } = await startSluice(['run', '-c', place.config, '--stack', stack], at).ended;
  nowhere.close();
  expect(code).toBe(2);
  expect(err).toContain(problem);
});

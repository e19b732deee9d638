import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdir, readFile, stat, writeFile } from 'node:fs/promises';
import { createServer, request } from 'node:http';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { GetItemCommand, PutItemCommand } from '@aws-sdk/client-dynamodb';
import { GetObjectCommand, HeadObjectCommand, ListObjectsV2Command, PutObjectCommand } from '@aws-sdk/client-s3';
import { CreateQueueCommand, GetQueueAttributesCommand, SendMessageCommand } from '@aws-sdk/client-sqs';
import { Client } from 'pg';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { concurrencyFor } from '../../cli/run/session.ts';
import { shareBackend } from '../../infra/local/backend.ts';
import { type EngineOptions, STOP_MS_MAX, startEngine } from '../../infra/local/engine.ts';
import { awsEnvironment } from '../../infra/local/environment.ts';
import { type LocalServer, listenOnLoopback } from '../../infra/local/loopback.ts';
import { startPoller } from '../../infra/local/poller.ts';
import { clientsFor } from '../../infra/local/resources.ts';
import { type ServiceEndpoints, startServices } from '../../infra/local/services.ts';
import { findEngine } from '../../infra/local/state.ts';
import { readPipeline } from '../../lib/config/read.ts';
import { resolveConnection } from '../../lib/config/secrets.ts';
import { readShippedPipeline } from '../../lib/config/shipped.ts';
import {
  engineOptions,
  eventually,
  removeDirectory,
  scratchDirectory,
  startTestEngine,
  type TestEngine,
} from '../support/local-engine.ts';

let directory: string;
const running: (() => Promise<unknown>)[] = [];

beforeEach(async () => {
  directory = await scratchDirectory();
});

afterEach(async () => {
  for (const stop of running.splice(0).toReversed()) await stop();
  await removeDirectory(directory);
});

async function start(overrides: Partial<EngineOptions> = {}): Promise<TestEngine> {
  const started = await startTestEngine(directory, overrides);
  running.push(() => started.engine.stop());
  return started;
}

describe('a function', () => {
  test('sees the environment and the context that Lambda would give it', async () => {
    const { engine } = await start();
    const names = [
      'SLUICE_CONFIG',
      'SLUICE_TABLE',
      'SLUICE_BUCKET',
      'SLUICE_LEASE_MS',
      'AWS_REGION',
      'SOURCE_PASSWORD',
      'HOME',
    ];
    const answer = await engine.invoke('operate', { names });
    expect(answer).toEqual({
      event: { names },
      function_name: 'operate',
      request_id: expect.stringMatching(/^[0-9a-f-]{36}$/),
      remaining_ms: expect.any(Number),
      environment: {
        SLUICE_CONFIG: join(directory, 'state', 'fixture.json'),
        SLUICE_TABLE: 'sluice-fixture-ledger',
        SLUICE_BUCKET: 'sluice-fixture-stage',
        SLUICE_LEASE_MS: '15000',
        AWS_REGION: 'us-east-1',
        SOURCE_PASSWORD: 'secret',
        HOME: null,
      },
    });
    expect((answer as { remaining_ms: number }).remaining_ms).toBeGreaterThan(50_000);
    expect((answer as { remaining_ms: number }).remaining_ms).toBeLessThanOrEqual(60_000);
  });

  test('takes several invocations at once', async () => {
    const { engine } = await start();
    const order: string[] = [];
    const call = async (name: string, wait_ms: number): Promise<void> => {
      await engine.invoke('operate', { wait_ms });
      order.push(name);
    };
    await Promise.all([call('slow', 600), call('quick', 10)]);
    expect(order).toEqual(['quick', 'slow']);
  });

  test('has what it throws come out as the error that it was', async () => {
    const { engine } = await start();
    await expect(engine.invoke('operate', { do: 'refuse' })).rejects.toMatchObject({
      code: 'WAL_LEVEL',
      facts: { wal_level: 'replica' },
      disposition: 'halt',
    });
    await expect(engine.invoke('operate', { do: 'throw' })).rejects.toMatchObject({
      code: 'UNEXPECTED',
      message: 'Unexpected: TypeError: a fault of the fixture',
    });
  });

  test.each(['crash', 'exit', 'fill_heap'])(
    'that dies (%s) fails its call, and the next one is answered',
    async (how) => {
      const { engine } = await start();
      const beside = engine.invoke('operate', { wait_ms: 60_000 });
      const [died, other] = await Promise.allSettled([engine.invoke('operate', { do: how }), beside]);
      expect(died).toMatchObject({ status: 'rejected', reason: { code: 'LOCAL_ENGINE_FAILED' } });
      expect(other).toMatchObject({ status: 'rejected', reason: { code: 'LOCAL_ENGINE_FAILED' } });
      expect(await engine.invoke('operate', {})).toMatchObject({ function_name: 'operate' });
    },
  );

  test('has its lines told, the structured ones as records', async () => {
    const { engine, logs } = await start();
    await engine.invoke('operate', { do: 'log' });
    await eventually('two lines', () => logs.length === 2);
    expect(logs).toContainEqual({
      sandbox: 'operate',
      text: '{"event":"told","pipeline":"fixture"}',
      record: { event: 'told', pipeline: 'fixture' },
    });
    expect(logs).toContainEqual({ sandbox: 'operate', text: 'not JSON', record: null });
  });

  test('whose module is missing says so', async () => {
    const { engine } = await start({ functions: { operate: new URL('./absent.ts', import.meta.url).href } });
    await expect(engine.invoke('operate', {})).rejects.toThrow(/absent/);
  });
});

describe('a message', () => {
  test('is delivered, and gone when that succeeds', async () => {
    const { engine, ring, output, count } = await start();
    await ring('a', { note: 'one' });
    await eventually('its end', async () => (await output()).includes('end one 1'));
    await engine.idle();
    expect(await count(engine.backend.resources.load.url)).toBe(0);
    expect(await output()).toEqual(['begin one 1', 'end one 1']);
  });

  test('is delivered in the order of its group, one at a time, and groups side by side', async () => {
    const { engine, ring, output } = await start();
    for (const note of ['a1', 'a2', 'a3']) await ring('a', { note, wait_ms: 150 });
    for (const note of ['b1', 'b2']) await ring('b', { note, wait_ms: 150 });
    await eventually(
      'the last ends',
      async () => (await output()).filter((line) => line.startsWith('end')).length === 5,
    );
    await engine.idle();
    const lines = await output();
    const of = (group: string): string[] => lines.filter((line) => line.split(' ')[1]?.startsWith(group));
    expect(of('a')).toEqual(['a1', 'a2', 'a3'].flatMap((note) => [`begin ${note} 1`, `end ${note} 1`]));
    expect(of('b')).toEqual(['b1', 'b2'].flatMap((note) => [`begin ${note} 1`, `end ${note} 1`]));
    expect(lines.indexOf('begin b1 1')).toBeLessThan(lines.indexOf('begin a2 1'));
  });

  test('is worked on beside no more others than the concurrency says', async () => {
    const { engine, ring, output } = await start({ concurrency: { load: 2, extract: 1 } });
    for (const group of ['a', 'b', 'c', 'd', 'e']) await ring(group, { note: group, wait_ms: 120 });
    await eventually(
      'the last ends',
      async () => (await output()).filter((line) => line.startsWith('end')).length === 5,
    );
    await engine.idle();
    let at_once = 0;
    const seen = (await output()).map((line) => (at_once += line.startsWith('begin') ? 1 : -1));
    expect(Math.max(...seen)).toBe(2);
  });

  test.each([
    ['parallelism: 0 (one for each of 3 streams)', 'parallelism: 0', 3],
    ['parallelism: -1 (one for each of 2 cores)', 'parallelism: -1', 2],
    ['parallelism: 1', 'parallelism: 1', 1],
    ['parallelism: 4', 'parallelism: 4', 4],
    ['parallelism: 4, max_parallelism: 2', 'parallelism: 4, max_parallelism: 2', 2],
    ['parallelism: 0, max_parallelism: 1', 'parallelism: 0, max_parallelism: 1', 1],
  ])('is worked on beside as many others as the file says: %s', async (_name, options, loaders) => {
    const file = `pipeline: fixture\nsource: {}\ntables: [public.*]\ntarget: { ${options} }\n`;
    const { engine, ring, output } = await start({
      concurrency: concurrencyFor(readPipeline(file, 'pipeline.yaml'), 3, 2),
    });
    for (const group of ['a', 'b', 'c', 'd', 'e', 'f']) await ring(group, { note: group, wait_ms: 250 });
    await eventually(
      'the last ends',
      async () => (await output()).filter((line) => line.startsWith('end')).length === 6,
    );
    await engine.idle();
    let at_once = 0;
    const seen = (await output()).map((line) => (at_once += line.startsWith('begin') ? 1 : -1));
    expect(Math.max(...seen)).toBe(loaders);
  });

  test.each(['report', 'throw', 'exit', 'nonsense'] as const)(
    'that fails (%s) comes again, before the next of its group',
    async (fails_by) => {
      const { engine, ring, output, faults } = await start();
      await ring('a', { note: 'bad', failures: 2, fails_by });
      await ring('a', { note: 'next' });
      await eventually('the next one’s end', async () => (await output()).includes('end next 1'));
      await engine.idle();
      expect((await output()).filter((line) => line.startsWith('begin'))).toEqual([
        'begin bad 1',
        'begin bad 2',
        'begin bad 3',
        'begin next 1',
      ]);
      const told = faults.filter(({ what }) => what === 'load');
      expect(told).toHaveLength(fails_by === 'throw' || fails_by === 'exit' ? 2 : 0);
    },
  );

  test('that has failed five times is put aside, and its group goes on', async () => {
    const { engine, ring, output, count } = await start();
    await ring('a', { note: 'bad', failures: 99 });
    await ring('a', { note: 'next' });
    await eventually('the next one’s end', async () => (await output()).includes('end next 1'));
    await engine.idle();
    expect((await output()).filter((line) => line.startsWith('begin bad'))).toHaveLength(5);
    expect(await count(engine.backend.resources.load.dlq_url)).toBe(1);
  });

  test('that is worked on for longer than the visibility timeout is not delivered twice', async () => {
    const { engine, count } = await start();
    const { sqs } = engine.backend.clients;
    const attributes = { FifoQueue: 'true', VisibilityTimeout: '1' };
    const { QueueUrl = '' } = await sqs.send(
      new CreateQueueCommand({ QueueName: 'slow.fifo', Attributes: attributes }),
    );
    const url = new URL(new URL(QueueUrl).pathname, engine.backend.endpoints.sqs).href;
    let deliveries = 0;
    const poller = startPoller({
      sqs,
      queue: { url, arn: '' },
      region: 'us-east-1',
      visibility_seconds: 1,
      concurrency: 2,
      invoke: async () => {
        deliveries += 1;
        await sleep(3_000);
      },
      onError: (error) => {
        throw error;
      },
    });
    running.push(() => poller.stop());
    const message = { QueueUrl: url, MessageBody: 'slow', MessageGroupId: 'a', MessageDeduplicationId: '1' };
    await sqs.send(new SendMessageCommand(message));
    await eventually('its end', async () => deliveries > 0 && (await count(url)) === 0);
    expect(deliveries).toBe(1);
  });
});

describe('windows', () => {
  test('never run two at a time, and their reports are told', async () => {
    const reports: unknown[] = [];
    const { engine, output } = await start({ onReport: (report) => reports.push(report) });
    const answers = await Promise.all([1, 2, 3].map(() => engine.window({ break_at_end_lsn: true })));
    expect(answers[0]).toMatchObject({
      event: { kind: 'window', pipeline: 'fixture', break_at_end_lsn: true },
      stopped_by: 'end_lsn',
    });
    expect(reports).toEqual(answers);
    expect(await output()).toEqual([1, 2, 3].flatMap(() => ['window begins', 'window ends']));
  });

  test('run by the schedule until the engine stops, which ends the last one cleanly and soon', async () => {
    const { engine, output } = await start({ schedule: { kind: 'continuous', paused: false } });
    const scheduled = engine.runSchedule();
    await eventually('a window', async () => (await output()).length === 1);
    const asked_ms = Date.now();
    await engine.stop();
    await scheduled;
    expect(Date.now() - asked_ms).toBeLessThan(5_000);
    expect(await output()).toEqual(['window begins', 'window ends']);
  });
});

test('windows run at the times of tables too (tables[].schedule), where the pipeline’s own never come', async () => {
  const options = await engineOptions(directory);
  const far = { kind: 'cron', cron: '0 0 1 1 ? 2199', timezone: 'UTC', paused: false } as const;
  const text = (await readFile(options.configPath, 'utf8')).replace(
    '[public.*]',
    '[public.*, { table: public.t, schedule: { every: 1 minute } }]',
  );
  const { engine, output } = await start({ schedule: far, pipeline: readPipeline(text, 'pipeline.yaml') });
  const scheduled = engine.runSchedule();
  await eventually('a window', async () => (await output()).length > 0);
  await engine.stop();
  await scheduled;
  expect(await output()).toEqual(['window begins', 'window ends']);
});

describe('a stop', () => {
  test('lets a function finish that ends when its time is up', async () => {
    const { engine, ring, output } = await start();
    await ring('a', { note: 'long', until_deadline: true });
    await eventually('its begin', async () => (await output()).length === 1);
    await engine.stop();
    expect(await output()).toEqual(['begin long 1', 'end long 1']);
  });

  test('does not wait for ever for one that does not', async () => {
    const { engine } = await start();
    const call = engine.invoke('operate', { wait_ms: 600_000 });
    const failed = expect(call).rejects.toMatchObject({ code: 'LOCAL_ENGINE_FAILED' });
    await sleep(500);
    const asked_ms = Date.now();
    await engine.stop();
    await failed;
    expect(Date.now() - asked_ms).toBeLessThan(STOP_MS_MAX);
  });

  test('answers no more calls', async () => {
    const { engine } = await start();
    await engine.stop();
    await expect(engine.window()).rejects.toMatchObject({ code: 'LOCAL_ENGINE_FAILED' });
  });
});

describe('the state directory', () => {
  test('has one engine at a time', async () => {
    await start();
    await expect(startEngine(await engineOptions(directory))).rejects.toMatchObject({
      code: 'STATE_IN_USE',
      facts: { pid: process.pid, directory: join(directory, 'state') },
    });
  });

  test('tells others where the engine is, as long as it runs', async () => {
    const { engine } = await start();
    const state = join(directory, 'state');
    expect(await findEngine(state)).toMatchObject({
      pid: process.pid,
      pipeline: 'fixture',
      endpoints: engine.backend.endpoints,
    });
    await engine.stop();
    expect(await findEngine(state)).toBeNull();
  });

  test('can be read beside an engine and without one', async () => {
    const key = { pk: { S: 'a' }, sk: { S: 'b' } };
    const options = await engineOptions(directory);
    const { engine } = await start();
    const { clients, resources } = engine.backend;
    await clients.dynamodb.send(new PutItemCommand({ TableName: resources.table, Item: { ...key, n: { N: '7' } } }));
    const read = async (): Promise<unknown> => {
      const backend = await shareBackend(options);
      try {
        const get = new GetItemCommand({ TableName: backend.resources.table, Key: key, ConsistentRead: true });
        return (await backend.clients.dynamodb.send(get)).Item?.n;
      } finally {
        await backend.stop();
      }
    };
    expect(await read()).toEqual({ N: '7' });
    await engine.stop();
    expect(await read()).toEqual({ N: '7' });
    const again = await start();
    expect(again.engine.backend.resources).toEqual({
      ...resources,
      load: { ...resources.load, url: expect.any(String), dlq_url: expect.any(String) },
      extract: { ...resources.extract, url: expect.any(String), dlq_url: expect.any(String) },
    });
  });

  test('goes on after a stop with what was staged and recorded, and with empty queues', async () => {
    const first = await start();
    const { clients, resources } = first.engine.backend;
    await clients.s3.send(new PutObjectCommand({ Bucket: resources.bucket, Key: 'cuts/1', Body: 'rows' }));
    await first.engine.stop();
    const { engine, count } = await start();
    const { Body } = await engine.backend.clients.s3.send(
      new GetObjectCommand({ Bucket: resources.bucket, Key: 'cuts/1' }),
    );
    expect(await Body?.transformToString()).toBe('rows');
    expect(await count(engine.backend.resources.load.url)).toBe(0);
  });
});

describe('SIGKILL of the engine’s process', () => {
  async function startOwner(): Promise<{ owner: ChildProcess; lines: string[] }> {
    const script = join(import.meta.dirname, '../support/fixtures/own-engine.ts');
    const owner = spawn(process.execPath, [script, directory], { stdio: ['ignore', 'pipe', 'inherit'] });
    running.push(async () => owner.kill('SIGKILL'));
    if (owner.stdout === null) throw new TypeError('no stdout');
    const lines: string[] = [];
    createInterface(owner.stdout).on('line', (line) => lines.push(line));
    await eventually('the engine', () => lines.length > 0);
    return { owner, lines };
  }

  test('keeps others out while it lives, and nobody after', async () => {
    const { owner } = await startOwner();
    await expect(start()).rejects.toMatchObject({ code: 'STATE_IN_USE', facts: { pid: owner.pid } });
    owner.kill('SIGKILL');
    await once(owner, 'exit');
    const { engine } = await start();
    expect(await engine.invoke('operate', {})).toMatchObject({ function_name: 'operate' });
  });

  test('loses nothing that was answered, and leaves no half of anything', async () => {
    for (const killed_after of [3, 20, 40]) {
      const { owner, lines } = await startOwner();
      await eventually('some writes', () => lines.length > killed_after);
      owner.kill('SIGKILL');
      await once(owner, 'exit');
      const answered = Number(lines.at(-1)?.split(' ')[1]);

      const { engine } = await start();
      const { clients, resources } = engine.backend;
      for (let n = 1; n <= answered; n++) {
        const head = await clients.s3.send(new HeadObjectCommand({ Bucket: resources.bucket, Key: `objects/${n}` }));
        expect(head.ContentLength).toBe(300_000);
        const get = new GetItemCommand({
          TableName: resources.table,
          Key: { pk: { S: 'killed' }, sk: { S: String(n) } },
        });
        expect((await clients.dynamodb.send(get)).Item?.n).toEqual({ N: String(n) });
      }
      const { Contents = [] } = await clients.s3.send(new ListObjectsV2Command({ Bucket: resources.bucket }));
      expect(Contents.every(({ Size }) => Size === 300_000)).toBe(true);
      expect(Contents.length - answered).toBeLessThanOrEqual(1);
      await engine.stop();
      await removeDirectory(join(directory, 'state'));
    }
  });
});

test('source, target: a pipeline that names no servers gets its own, and they keep what is in them', async () => {
  const configPath = join(directory, 'embedded.yaml');
  const text = '# mine\npipeline: embedded\ntables: [public.*] # all\n';
  await writeFile(configPath, text);
  const options = { pipeline: readPipeline(text, configPath), configPath };
  const first = await start(options);
  const { databases, environment } = first.engine.backend;
  expect(databases.source?.port).not.toBe(databases.target?.port);

  // What a function reads leads it to the servers.
  const seen = (await first.engine.invoke('operate', {
    names: ['SLUICE_CONFIG', 'SLUICE_EMBEDDED_SOURCE_PASSWORD'],
  })) as {
    environment: Record<string, string>;
  };
  const path = seen.environment.SLUICE_CONFIG ?? '';
  const local = await readFile(path, 'utf8');
  expect(local).not.toContain('mine');
  expect(local).not.toContain(databases.source?.password);
  const reject = () => Promise.reject(new Error('not asked for'));
  const readers = {
    env: environment,
    readFile: reject,
    readSecret: reject,
    readAuthorities: reject,
    signToken: reject,
  };
  for (const side of ['source', 'target'] as const) {
    const connection = await resolveConnection(readShippedPipeline(local, path)[side], side, readers);
    expect(connection).toMatchObject(databases[side] ?? {});
  }
  expect(await readFile(configPath, 'utf8')).toBe(text);

  const client = new Client(databases.target ?? {});
  await client.connect();
  await client.query('CREATE TABLE kept AS SELECT 7 AS n');
  await client.end();
  const beside = await shareBackend({ ...(await engineOptions(directory)), ...options });
  expect(beside.environment.SLUICE_EMBEDDED_TARGET_PASSWORD).toBe(databases.target?.password);
  expect(beside.configPath).toBe(path);
  await beside.stop();
  await first.engine.stop();

  const second = await start(options);
  const again = new Client(second.engine.backend.databases.target ?? {});
  await again.connect();
  expect((await again.query('SELECT n FROM kept')).rows).toEqual([{ n: 7 }]);
  await again.end();
});

test('where AWS_ENDPOINT_URL is set the engine serves nothing, and uses that', async () => {
  const services = await startServices({
    directory: join(directory, 'elsewhere'),
    onError: () => undefined,
    onEnd: () => undefined,
  });
  running.push(() => services.stop());
  const gate = await startGate(services.endpoints);
  running.push(() => gate.stop());
  const { environment } = await engineOptions(directory);
  const { engine, ring, output } = await start({ environment: { ...environment, AWS_ENDPOINT_URL: gate.endpoint } });
  const names = ['AWS_ENDPOINT_URL', 'AWS_ENDPOINT_URL_S3', 'AWS_ENDPOINT_URL_SQS', 'AWS_ENDPOINT_URL_DYNAMODB'];
  expect(await engine.invoke('operate', { names })).toMatchObject({
    environment: Object.fromEntries(names.map((name) => [name, gate.endpoint])),
  });
  await ring('a', { note: 'one', failures: 1 });
  await eventually('its end', async () => (await output()).includes('end one 2'));
  expect(await readdir(join(directory, 'state'))).not.toContain('s3');
  const { url } = engine.backend.resources.load;
  await engine.stop();
  const { sqs } = clientsFor(services.endpoints, awsEnvironment({}));
  const left = { MessageBody: 'left over', MessageGroupId: 'a', MessageDeduplicationId: 'left over' };
  await sqs.send(new SendMessageCommand({ QueueUrl: url, ...left }));
  sqs.destroy();

  // The queue outlives the engine here; what it held is rung again by a window, and not waited for.
  const again = await start({ environment: { ...environment, AWS_ENDPOINT_URL: gate.endpoint } });
  expect(await again.count(again.engine.backend.resources.load.url)).toBe(0);
  await again.ring('a', { note: 'two' });
  await eventually('its end', async () => (await output()).includes('end two 1'));
}, 60_000);

/** One endpoint for three services, as emulators have it. */
async function startGate(endpoints: ServiceEndpoints): Promise<LocalServer> {
  const server = createServer((inbound, outbound) => {
    const target = String(inbound.headers['x-amz-target'] ?? '');
    const service = target.startsWith('DynamoDB') ? 'dynamodb' : target.startsWith('AmazonSQS') ? 'sqs' : 's3';
    const url = new URL(inbound.url ?? '/', endpoints[service]);
    const forwarded = request(url, { method: inbound.method, headers: inbound.headers }, (answer) => {
      outbound.writeHead(answer.statusCode ?? 500, answer.headers);
      answer.pipe(outbound);
    });
    forwarded.on('error', () => outbound.destroy());
    outbound.on('close', () => forwarded.destroy());
    inbound.pipe(forwarded);
  });
  return await listenOnLoopback(server);
}

test('queues have the redrive of the stack', async () => {
  const { engine } = await start();
  const { clients, resources } = engine.backend;
  for (const { url } of [resources.load, resources.extract]) {
    const { Attributes } = await clients.sqs.send(
      new GetQueueAttributesCommand({ QueueUrl: url, AttributeNames: ['All'] }),
    );
    expect(JSON.parse(Attributes?.RedrivePolicy ?? '')).toMatchObject({ maxReceiveCount: 5 });
    expect(Attributes).toMatchObject({ FifoQueue: 'true' });
  }
  expect((await stat(join(directory, 'state/.gitignore'))).size).toBeGreaterThan(0);
});

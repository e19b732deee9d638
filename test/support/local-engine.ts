/** The local engine for tests: in a directory of its own, with the fixtures for functions, and with what a test needs to see. */
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { GetQueueAttributesCommand, type QueueAttributeName, SendMessageCommand } from '@aws-sdk/client-sqs';
import { type Engine, type EngineOptions, type LogLine, startEngine } from '../../infra/local/engine.ts';
import { readPipeline } from '../../lib/config/read.ts';
import type { SluiceError } from '../../lib/errors.ts';
import type { LoadFixtureBody } from './fixtures/load.ts';

export interface TestEngine {
  readonly engine: Engine;
  readonly logs: LogLine[];
  readonly faults: { readonly what: string; readonly error: SluiceError }[];
  /** Lines that the fixtures have left. */
  readonly output: () => Promise<string[]>;
  /** Puts a message into the load queue. */
  readonly ring: (group: string, body: LoadFixtureBody) => Promise<void>;
  /** Messages in the queue, visible or not. */
  readonly count: (url: string) => Promise<number>;
}

export const FIXTURES = {
  drain: new URL('./fixtures/drain.ts', import.meta.url).href,
  load: new URL('./fixtures/load.ts', import.meta.url).href,
  extract: new URL('./fixtures/load.ts', import.meta.url).href,
  operate: new URL('./fixtures/operate.ts', import.meta.url).href,
};

const PIPELINE = `
pipeline: fixture
source: { host: source.test, user: u, database: d, password: '\${env:SOURCE_PASSWORD}' }
tables: [public.*]
target: { host: target.test, user: u, database: d }
`;

export async function scratchDirectory(): Promise<string> {
  return await mkdtemp(join(tmpdir(), 'sluice-test-'));
}

/** Options for an engine whose state and output are in `directory`. */
export async function engineOptions(directory: string): Promise<EngineOptions> {
  const configPath = join(directory, 'pipeline.yaml');
  await writeFile(configPath, PIPELINE);
  return {
    pipeline: readPipeline(PIPELINE, configPath),
    configPath,
    stateDirectory: join(directory, 'state'),
    environment: { PATH: process.env.PATH, FIXTURE_OUTPUT: join(directory, 'output'), SOURCE_PASSWORD: 'secret' },
    concurrency: { load: 2, extract: 2 },
    functions: FIXTURES,
    onFatal: (error) => {
      throw error;
    },
  };
}

export async function startTestEngine(directory: string, overrides: Partial<EngineOptions> = {}): Promise<TestEngine> {
  const logs: LogLine[] = [];
  const faults: { what: string; error: SluiceError }[] = [];
  const engine = await startEngine({
    ...(await engineOptions(directory)),
    onLog: (line) => logs.push(line),
    onFault: (what, error) => faults.push({ what, error }),
    ...overrides,
  });
  const { clients, resources } = engine.backend;
  let rings = 0;
  return {
    engine,
    logs,
    faults,
    output: async () => {
      const text = await readFile(join(directory, 'output'), 'utf8').catch(() => '');
      return text.split('\n').filter((line) => line !== '');
    },
    ring: async (group, body) => {
      rings += 1;
      const message = { QueueUrl: resources.load.url, MessageBody: JSON.stringify(body), MessageGroupId: group };
      await clients.sqs.send(new SendMessageCommand({ ...message, MessageDeduplicationId: `${Date.now()}-${rings}` }));
    },
    count: async (url) => {
      const AttributeNames: QueueAttributeName[] = [
        'ApproximateNumberOfMessages',
        'ApproximateNumberOfMessagesNotVisible',
      ];
      const { Attributes = {} } = await clients.sqs.send(
        new GetQueueAttributesCommand({ QueueUrl: url, AttributeNames }),
      );
      return AttributeNames.reduce((sum, name) => sum + Number(Attributes[name]), 0);
    },
  };
}

/** Looks until `check` says yes; fails with `what` after `wait_ms`. */
export async function eventually(
  what: string,
  check: () => boolean | Promise<boolean>,
  wait_ms = 20_000,
): Promise<void> {
  for (let waited_ms = 0; waited_ms < wait_ms; waited_ms += 25) {
    if (await check()) return;
    await sleep(25);
  }
  throw new Error(`${what}: not within ${wait_ms} ms`);
}

export async function removeDirectory(directory: string): Promise<void> {
  await rm(directory, { recursive: true, force: true, maxRetries: 10 });
}

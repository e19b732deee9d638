/**
 * What the functions share: the pipeline, the clients of AWS, and lib's ports over them, made once for a process and used by every
 * invocation of it. The only place that has the environment in its hand.
 */
import { randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { DynamoDBClient } from '@aws-sdk/client-dynamodb';
import { S3Client } from '@aws-sdk/client-s3';
import { SQSClient } from '@aws-sdk/client-sqs';
import type { Pipeline } from '../lib/config/schema.ts';
import { readShippedPipeline } from '../lib/config/shipped.ts';
import { SluiceError } from '../lib/errors.ts';
import { sqsDoorbell } from '../lib/ledger/doorbell.ts';
import { dynamoLedger } from '../lib/ledger/dynamo.ts';
import type { OperatePorts } from '../lib/operate.ts';
import type { Clock, Stage } from '../lib/ports.ts';
import { s3Stage } from '../lib/stage/s3.ts';
import { type Environment, readEnvironment } from './environment.ts';
import { jsonLog } from './log.ts';
import { Connector, keptSalt, secretReaders } from './postgres.ts';

/** Attempts of the SDK at one call; it waits up to 20 seconds between them, and longer for what it is told is throttled. */
const ATTEMPTS_MAX = 5;
const CONNECT_MS_MAX = 5_000;
/** Until an answer begins. A part of 32 MiB has to arrive first, over whatever line there is. */
const ANSWER_MS_MAX = { item: 10_000, part: 120_000 };
/** A connection without a byte for this long is given up. A body that a slow target left waiting is opened again (lib/stage/resume.ts). */
const IDLE_MS_MAX = 60_000;

export interface Runtime {
  readonly pipeline: Pipeline;
  readonly environment: Environment;
  readonly sqs: SQSClient;
  readonly connector: Connector;
  /** Of hashed columns; null: no column is hashed. */
  readonly mask_salt: () => Promise<string | null>;
  /** What every function has. Those of one function only are made in ports.ts. */
  readonly ports: OperatePorts & {
    readonly stage: Stage;
    readonly newId: () => string;
    readonly random: () => number;
  };
}

export const clock: Clock = {
  now: () => Date.now(),
  sleep: async (ms) => {
    await sleep(ms);
  },
};

/** One line on stdout, as it is: Lambda's `console.log` would wrap it. */
export function printLine(line: string): void {
  process.stdout.write(`${line}\n`);
}

let made: Runtime | null = null;

/** Made by the first call. Throws CONFIG_INVALID and USAGE; the next invocation tries again. */
export function runtime(): Runtime {
  made ??= shippedRuntime(process.env);
  return made;
}

function shippedRuntime(env: NodeJS.ProcessEnv): Runtime {
  const { SLUICE_CONFIG: path } = readEnvironment(env);
  return runtimeOf(env, readShippedPipeline(readConfig(path), path), printLine);
}

/** For one pipeline, with the names of its resources in `env`. Throws USAGE. */
export function runtimeOf(env: NodeJS.ProcessEnv, pipeline: Pipeline, print: (line: string) => void): Runtime {
  const environment = readEnvironment(env);
  const name = pipeline.pipeline;
  const log = jsonLog(print, { pipeline: name });
  const { s3, sqs, dynamo } = awsClients(environment);

  const ledger = dynamoLedger({ client: dynamo, table: environment.SLUICE_TABLE, pipeline: name, clock });
  const stage = s3Stage({ client: s3, bucket: environment.SLUICE_BUCKET, log });
  const doorbell = sqsDoorbell({
    client: sqs,
    pipeline: name,
    load_queue_url: environment.SLUICE_LOAD_QUEUE_URL,
    extract_queue_url: environment.SLUICE_EXTRACT_QUEUE_URL,
    clock,
  });
  const readers = secretReaders(env, environment.SLUICE_CONFIG, clientOptions(ANSWER_MS_MAX.item));
  const connector = new Connector(pipeline, readers, () => clock.now());
  return {
    pipeline,
    environment,
    sqs,
    connector,
    mask_salt: keptSalt(pipeline, readers),
    ports: { clock, log, stage, ledger, doorbell, newId: randomUUID, random: Math.random },
  };
}

function awsClients(environment: Environment) {
  const endpoint = environment.AWS_ENDPOINT_URL;
  return {
    dynamo: new DynamoDBClient(clientOptions(ANSWER_MS_MAX.item)),
    s3: new S3Client({
      ...clientOptions(ANSWER_MS_MAX.part),
      // A bucket is no host name on an endpoint that is an address.
      forcePathStyle: (environment.AWS_ENDPOINT_URL_S3 ?? endpoint) !== undefined,
      // Each frame brings its own CRC-32, which is checked before it is used; S3's would cover whole objects only.
      responseChecksumValidation: 'WHEN_REQUIRED',
    }),
    // The host in a queue's URL need not resolve where an endpoint is given.
    sqs: new SQSClient({
      ...clientOptions(ANSWER_MS_MAX.item),
      useQueueUrlAsEndpoint: (environment.AWS_ENDPOINT_URL_SQS ?? endpoint) === undefined,
    }),
  };
}

/**
 * Region, credentials and endpoints are the SDK's own settings. `answer_ms_max`: until an answer begins; `idle_ms_max`: without a byte, its body included.
 */
export function clientOptions(answer_ms_max: number, idle_ms_max = Math.max(IDLE_MS_MAX, answer_ms_max)) {
  return {
    maxAttempts: ATTEMPTS_MAX,
    retryMode: 'standard',
    requestHandler: {
      connectionTimeout: CONNECT_MS_MAX,
      requestTimeout: answer_ms_max,
      throwOnRequestTimeout: true,
      socketTimeout: idle_ms_max,
      // Secrets pass here: NODE_TLS_REJECT_UNAUTHORIZED does not make anybody who answers AWS.
      httpsAgent: { rejectUnauthorized: true },
    },
  };
}

function readConfig(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new SluiceError('CONFIG_INVALID', { problem: `${path} cannot be read: ${reason}` }, { cause: error });
  }
}

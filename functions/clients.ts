/**
 * What the functions share: the pipeline, the clients of AWS, and lib's ports over them, made once for a process and used by every
 * invocation of it. The only place with the environment in one hand and the adapters in the other.
 */
import { randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { DynamoDBClient } from '@aws-sdk/client-dynamodb';
import { S3Client } from '@aws-sdk/client-s3';
import { SQSClient } from '@aws-sdk/client-sqs';
import type { Pipeline } from '../lib/config/schema.ts';
import { readShippedPipeline } from '../lib/config/shipped.ts';
import { postgresComparer } from '../lib/epoch/comparer.ts';
import { postgresExtractor } from '../lib/epoch/extractor.ts';
import { SluiceError } from '../lib/errors.ts';
import { sqsDoorbell } from '../lib/ledger/doorbell.ts';
import { dynamoLedger } from '../lib/ledger/dynamo.ts';
import { postgresTarget } from '../lib/load/target.ts';
import type { OperatePorts } from '../lib/operate.ts';
import type { DrainPorts, ExtractPorts, LoadPorts } from '../lib/pipeline.ts';
import type { Clock } from '../lib/ports.ts';
import type { Connect } from '../lib/postgres/session.ts';
import { appendPublicationName } from '../lib/slot/append-publication.ts';
import { openSlotReader } from '../lib/slot/reader.ts';
import { postgresSource } from '../lib/slot/source.ts';
import { s3Stage } from '../lib/stage/s3.ts';
import { sessionName } from '../lib/window/free-slot.ts';
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
  readonly drain: DrainPorts;
  readonly extract: ExtractPorts;
  readonly load: LoadPorts;
  readonly operate: OperatePorts;
  readonly connectSource: Connect;
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
  made ??= makeRuntime(process.env);
  return made;
}

function makeRuntime(env: NodeJS.ProcessEnv): Runtime {
  const environment = readEnvironment(env);
  const pipeline = readShippedPipeline(readConfig(environment.SLUICE_CONFIG), environment.SLUICE_CONFIG);
  const name = pipeline.pipeline;
  const log = jsonLog(printLine, { pipeline: name });
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
  const { source: config } = pipeline;
  const source = postgresSource({
    config,
    connect: () => connector.connect('source'),
    openSlot: async (from, session, appends, tables) =>
      await openSlotReader({
        client: await connector.connect('source', {
          replication: true,
          application_name: sessionName(config.application_name, session),
        }),
        clock,
        slot: config.replication_slot,
        plugin: config.plugin,
        publication: config.publication_name,
        tables,
        append_publication: appends ? appendPublicationName(config.publication_name) : null,
        from,
        wal_sender_timeout_ms: config.wal_sender_timeout,
      }),
  });
  const extractor = postgresExtractor({
    connect: () => connector.connect('source'),
    connectReplication: () => connector.connect('source', { replication: true }),
    publications: [config.publication_name, appendPublicationName(config.publication_name)],
    secondary: config.use_secondary ? { connect: () => connector.connect('source', { secondary: true }), clock } : null,
  });
  const comparer = postgresComparer({
    connectSource: () => connector.connect('source'),
    connectTarget: () => connector.connect('target'),
    pipeline,
  });
  const target = postgresTarget({
    connect: () => connector.connect('target'),
    pipeline: name,
    options: pipeline.target,
    clock,
    log,
  });
  const ports = { clock, log, stage, ledger, doorbell, newId: randomUUID, random: Math.random };
  const mask_salt = keptSalt(pipeline, readers);
  return {
    pipeline,
    environment,
    sqs,
    drain: { ...ports, source, mask_salt },
    extract: { ...ports, mask_salt, extractor, comparer, target },
    load: { ...ports, target },
    operate: ports,
    connectSource: () => connector.connect('source'),
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

/** Region, credentials and endpoints are the SDK's own settings. */
function clientOptions(answer_ms_max: number) {
  return {
    maxAttempts: ATTEMPTS_MAX,
    retryMode: 'standard',
    requestHandler: {
      connectionTimeout: CONNECT_MS_MAX,
      requestTimeout: answer_ms_max,
      throwOnRequestTimeout: true,
      socketTimeout: Math.max(IDLE_MS_MAX, answer_ms_max),
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

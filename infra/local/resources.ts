/**
 * What the stateful stack is on AWS, made by the same calls on whatever endpoints are given: bucket, table, two FIFO queues with their dead-letter
 * queues. Each is made when it is missing and left as it is otherwise.
 */
import {
  CreateTableCommand,
  DescribeTableCommand,
  DynamoDBClient,
  ResourceInUseException,
  ResourceNotFoundException,
  waitUntilTableExists,
} from '@aws-sdk/client-dynamodb';
import { CreateBucketCommand, HeadBucketCommand, NotFound, S3Client } from '@aws-sdk/client-s3';
import {
  CreateQueueCommand,
  GetQueueAttributesCommand,
  PurgeQueueCommand,
  PurgeQueueInProgress,
  SetQueueAttributesCommand,
  SQSClient,
} from '@aws-sdk/client-sqs';
import type { ServiceEndpoints } from './services.ts';

export interface DoorbellQueue {
  readonly url: string;
  readonly arn: string;
  readonly dlq_url: string;
}

export interface Resources {
  readonly bucket: string;
  readonly table: string;
  readonly load: DoorbellQueue;
  readonly extract: DoorbellQueue;
}

export interface Clients {
  readonly s3: S3Client;
  readonly sqs: SQSClient;
  readonly dynamodb: DynamoDBClient;
}

/** As on AWS (infra/aws/limits.ts). */
export const RECEIVES_MAX = 5;
/** Short, because the poller renews it while a message is worked on: what a dead sandbox had comes again soon. */
export const VISIBILITY_SECONDS = 30;
const TABLE_WAIT_SECONDS = 60;
/** Of a call, which the SDK tries again; a queue that is listened to answers after 20 seconds at most. */
const REQUEST_LIMITS = {
  connectionTimeout: 5_000,
  requestTimeout: 60_000,
  throwOnRequestTimeout: true,
  socketTimeout: 60_000,
};

/** Real clients on the given endpoints; region and credentials as the sandboxes have them. */
export function clientsFor(endpoints: ServiceEndpoints, environment: Readonly<Record<string, string>>): Clients {
  const credentials = {
    accessKeyId: environment.AWS_ACCESS_KEY_ID ?? '',
    secretAccessKey: environment.AWS_SECRET_ACCESS_KEY ?? '',
    ...(environment.AWS_SESSION_TOKEN === undefined ? {} : { sessionToken: environment.AWS_SESSION_TOKEN }),
  };
  // Where the caller names no keys (a profile, say), the SDK's own search finds them.
  const common = {
    region: environment.AWS_REGION ?? '',
    ...(credentials.accessKeyId === '' ? {} : { credentials }),
    requestHandler: REQUEST_LIMITS,
  };
  return {
    s3: new S3Client({ ...common, endpoint: endpoints.s3, forcePathStyle: true }),
    sqs: new SQSClient({ ...common, endpoint: endpoints.sqs }),
    dynamodb: new DynamoDBClient({ ...common, endpoint: endpoints.dynamodb }),
  };
}

/**
 * Names after the pipeline, whose own name is at most 40 of `[a-z0-9-]`: within the limits of all three services. Queue URLs are
 * those of the endpoint: emulators like to name a host that need not resolve here, and the SDK calls what the URL says.
 */
export async function makeResources(
  clients: Clients,
  endpoints: ServiceEndpoints,
  pipeline: string,
): Promise<Resources> {
  const name = `sluice-${pipeline}`;
  const bucket = `${name}-stage`;
  const table = `${name}-ledger`;
  await makeBucket(clients.s3, bucket);
  await makeTable(clients.dynamodb, table);
  return {
    bucket,
    table,
    load: await makeQueue(clients.sqs, endpoints.sqs, `${name}-load`),
    extract: await makeQueue(clients.sqs, endpoints.sqs, `${name}-extract`),
  };
}

/** Empties the doorbells (I9): what is left to do is rung again by the next window, and a message in flight would hold up its group. */
export async function purgeDoorbells(sqs: SQSClient, resources: Resources): Promise<void> {
  for (const { url } of [resources.load, resources.extract]) {
    await sqs.send(new PurgeQueueCommand({ QueueUrl: url })).catch((thrown: unknown) => {
      if (!(thrown instanceof PurgeQueueInProgress)) throw thrown; // SQS allows one a minute, and one has just been.
    });
  }
}

async function makeBucket(s3: S3Client, bucket: string): Promise<void> {
  const isThere = await s3.send(new HeadBucketCommand({ Bucket: bucket })).then(
    () => true,
    (thrown: unknown) => {
      if (thrown instanceof NotFound) return false;
      throw thrown;
    },
  );
  if (!isThere) await s3.send(new CreateBucketCommand({ Bucket: bucket }));
}

async function makeTable(dynamodb: DynamoDBClient, table: string): Promise<void> {
  const isThere = await dynamodb.send(new DescribeTableCommand({ TableName: table })).then(
    () => true,
    (thrown: unknown) => {
      if (thrown instanceof ResourceNotFoundException) return false;
      throw thrown;
    },
  );
  if (isThere) return;
  const create = new CreateTableCommand({
    TableName: table,
    BillingMode: 'PAY_PER_REQUEST',
    AttributeDefinitions: [
      { AttributeName: 'pk', AttributeType: 'S' },
      { AttributeName: 'sk', AttributeType: 'S' },
    ],
    KeySchema: [
      { AttributeName: 'pk', KeyType: 'HASH' },
      { AttributeName: 'sk', KeyType: 'RANGE' },
    ],
  });
  await dynamodb.send(create).catch((thrown: unknown) => {
    if (!(thrown instanceof ResourceInUseException)) throw thrown; // Made by another meanwhile.
  });
  await waitUntilTableExists({ client: dynamodb, maxWaitTime: TABLE_WAIT_SECONDS, minDelay: 1 }, { TableName: table });
}

async function makeQueue(sqs: SQSClient, endpoint: string, name: string): Promise<DoorbellQueue> {
  const dlq_url = await queueUrl(sqs, endpoint, `${name}-dlq.fifo`);
  const url = await queueUrl(sqs, endpoint, `${name}.fifo`);
  const redrive = { deadLetterTargetArn: await queueArn(sqs, dlq_url), maxReceiveCount: RECEIVES_MAX };
  const attributes = { VisibilityTimeout: String(VISIBILITY_SECONDS), RedrivePolicy: JSON.stringify(redrive) };
  await sqs.send(new SetQueueAttributesCommand({ QueueUrl: url, Attributes: attributes }));
  return { url, arn: await queueArn(sqs, url), dlq_url };
}

/** CreateQueue gives the URL of a queue that is there already with the same attributes. */
async function queueUrl(sqs: SQSClient, endpoint: string, name: string): Promise<string> {
  const { QueueUrl } = await sqs.send(new CreateQueueCommand({ QueueName: name, Attributes: { FifoQueue: 'true' } }));
  if (QueueUrl === undefined) throw new TypeError(`SQS made ${name} without a URL`);
  return new URL(new URL(QueueUrl).pathname, endpoint).href;
}

async function queueArn(sqs: SQSClient, url: string): Promise<string> {
  const { Attributes } = await sqs.send(new GetQueueAttributesCommand({ QueueUrl: url, AttributeNames: ['QueueArn'] }));
  if (Attributes?.QueueArn === undefined) throw new TypeError(`SQS tells no ARN of ${url}`);
  return Attributes.QueueArn;
}

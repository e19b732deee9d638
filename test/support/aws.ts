/**
 * S3, SQS and DynamoDB for a test, by their real protocols: servers on loopback that live as long as the test, or whatever AWS_ENDPOINT_URL names.
 * Every call makes a table, a bucket and two FIFO queues of its own.
 */
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import type { Server } from 'node:http';
import { createRequire } from 'node:module';
import type { AddressInfo } from 'node:net';
import { CreateTableCommand, DynamoDBClient, waitUntilTableExists } from '@aws-sdk/client-dynamodb';
import { CreateBucketCommand, S3Client } from '@aws-sdk/client-s3';
import { CreateQueueCommand, SQSClient } from '@aws-sdk/client-sqs';
import { buildApp } from 'fauxqs';

/** dynalite brings no types. */
const dynalite = createRequire(import.meta.url)('dynalite') as (options: { createTableMs: number }) => Server;

export interface TestAws extends AsyncDisposable {
  readonly dynamo: DynamoDBClient;
  readonly s3: S3Client;
  readonly sqs: SQSClient;
  /** Of S3 and SQS. */
  readonly s3_endpoint: string;
  readonly dynamo_endpoint: string;
  readonly table: string;
  readonly bucket: string;
  readonly load_queue_url: string;
  readonly extract_queue_url: string;
}

const CREDENTIALS = { accessKeyId: 'test', secretAccessKey: 'test' };

export async function startAws(): Promise<TestAws> {
  await using stack = new AsyncDisposableStack();
  const endpoints = await endpointsOf(stack);
  const options = { region: 'us-east-1', credentials: CREDENTIALS, maxAttempts: 2 };
  const dynamo = stack.adopt(new DynamoDBClient({ ...options, endpoint: endpoints.dynamo }), (client) =>
    client.destroy(),
  );
  const s3 = stack.adopt(new S3Client({ ...options, endpoint: endpoints.rest, forcePathStyle: true }), (client) =>
    client.destroy(),
  );
  const sqs = stack.adopt(
    new SQSClient({ ...options, endpoint: endpoints.rest, useQueueUrlAsEndpoint: false }),
    (client) => client.destroy(),
  );
  const id = randomUUID().slice(0, 8);
  const [table, bucket] = [`sluice-test-${id}`, `sluice-test-${id}`];
  await makeLedgerTable(dynamo, table);
  await s3.send(new CreateBucketCommand({ Bucket: bucket }));
  const queueUrl = async (name: string) => {
    const queue = new CreateQueueCommand({ QueueName: `${name}-${id}.fifo`, Attributes: { FifoQueue: 'true' } });
    const { QueueUrl } = await sqs.send(queue);
    if (!QueueUrl) throw new Error('no queue url');
    return QueueUrl;
  };
  const load_queue_url = await queueUrl('load');
  const extract_queue_url = await queueUrl('extract');
  const held = stack.move();
  return {
    dynamo,
    s3,
    sqs,
    s3_endpoint: endpoints.rest,
    dynamo_endpoint: endpoints.dynamo,
    table,
    bucket,
    load_queue_url,
    extract_queue_url,
    [Symbol.asyncDispose]: () => held.disposeAsync(),
  };
}

/** Empty. */
export async function makeLedgerTable(dynamo: DynamoDBClient, table: string): Promise<void> {
  await dynamo.send(
    new CreateTableCommand({
      TableName: table,
      BillingMode: 'PAY_PER_REQUEST',
      KeySchema: [
        { AttributeName: 'pk', KeyType: 'HASH' },
        { AttributeName: 'sk', KeyType: 'RANGE' },
      ],
      AttributeDefinitions: [
        { AttributeName: 'pk', AttributeType: 'S' },
        { AttributeName: 'sk', AttributeType: 'S' },
      ],
    }),
  );
  await waitUntilTableExists({ client: dynamo, maxWaitTime: 20, minDelay: 1 }, { TableName: table });
}

async function endpointsOf(stack: AsyncDisposableStack): Promise<{ dynamo: string; rest: string }> {
  const given = process.env.AWS_ENDPOINT_URL;
  if (given) return { dynamo: given, rest: given };
  const server = dynalite({ createTableMs: 0 });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  stack.defer(async () => {
    server.closeAllConnections();
    await new Promise((done) => server.close(done));
  });
  const app = stack.adopt(buildApp({ logger: false }), async (app) => {
    app.server.closeAllConnections();
    await app.close();
  });
  const rest = await app.listen({ port: 0, host: '127.0.0.1' });
  return { dynamo: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, rest };
}

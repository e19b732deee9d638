/**
 * Stands before S3, SQS and DynamoDB and counts what is asked of them, as AWS bills it: requests by kind, and units of DynamoDB by the size of what is written and
 * read. Sizes are those of the messages, which are a little more than the items'.
 */
import { once } from 'node:events';
import { Agent, createServer, type IncomingMessage, request } from 'node:http';
import { pipeline } from 'node:stream/promises';
import type { Environment } from '../../infra/local/environment.ts';

/** Names are those of the price table (docs/COST.md). */
export interface Requests {
  s3_put: number;
  s3_get: number;
  s3_put_bytes: number;
  sqs_request: number;
  dynamodb_write_unit: number;
  dynamodb_read_unit: number;
}

const WRITE_UNIT_BYTES = 1024;
/** Strongly consistent. */
const READ_UNIT_BYTES = 4096;
const READS = /^(GetItem|Query|Scan|BatchGetItem)$/;
/** Of S3: what costs nothing. */
const FREE = new Set(['DELETE']);

export interface Counted extends AsyncDisposable {
  readonly requests: Requests;
  environment(own: Environment): Promise<Environment>;
}

export function counted(): Counted {
  const requests: Requests = {
    s3_put: 0,
    s3_get: 0,
    s3_put_bytes: 0,
    sqs_request: 0,
    dynamodb_write_unit: 0,
    dynamodb_read_unit: 0,
  };
  const closing: (() => Promise<void>)[] = [];
  const count = (service: string, from: IncomingMessage, sent_bytes: number, got_bytes: number): void => {
    const target = String(from.headers['x-amz-target'] ?? '');
    if (service === 'SQS') requests.sqs_request += 1;
    else if (service === 'DYNAMODB') {
      const isRead = READS.test(target.slice(target.indexOf('.') + 1));
      if (isRead) requests.dynamodb_read_unit += Math.max(1, Math.ceil(got_bytes / READ_UNIT_BYTES));
      else requests.dynamodb_write_unit += Math.max(1, Math.ceil(sent_bytes / WRITE_UNIT_BYTES));
    } else if (!FREE.has(from.method ?? '')) {
      if (from.method === 'PUT' || from.method === 'POST') {
        requests.s3_put += 1;
        requests.s3_put_bytes += sent_bytes;
      } else requests.s3_get += 1;
    }
  };
  const before = async (service: string, upstream: string): Promise<string> => {
    const { hostname, port } = new URL(upstream);
    const agent = new Agent({ keepAlive: true });
    const server = createServer((from, to) => {
      let [sent, got] = [0, 0];
      from.on('data', (chunk: Buffer) => {
        sent += chunk.length;
      });
      const asking = request({ hostname, port, method: from.method, path: from.url, headers: from.headers, agent });
      asking.on('response', (answer) => {
        answer.on('data', (chunk: Buffer) => {
          got += chunk.length;
        });
        to.writeHead(answer.statusCode ?? 502, answer.headers);
        pipeline(answer, to).then(
          () => count(service, from, sent, got),
          () => to.destroy(),
        );
      });
      asking.on('error', () => to.destroy());
      from.pipe(asking);
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    closing.push(async () => {
      const closed = new Promise((done) => server.close(done));
      server.closeAllConnections();
      await closed;
      agent.destroy();
    });
    const address = server.address();
    if (address === null || typeof address === 'string') throw new TypeError('no port');
    return `http://127.0.0.1:${address.port}`;
  };
  return {
    requests,
    environment: async (own) => {
      const through: Record<string, string> = {};
      for (const service of ['S3', 'SQS', 'DYNAMODB']) {
        const name = `AWS_ENDPOINT_URL_${service}`;
        through[name] = await before(service, own[name] ?? '');
      }
      return through;
    },
    [Symbol.asyncDispose]: async () => {
      for (const close of closing) await close();
    },
  };
}

/**
 * DynamoDB on this machine: dynalite (LevelDB on disk), behind an HTTP server of our own. That gives dynalite whole requests only, because a
 * client that breaks off in the middle of one would be its end; and it gives answers to the client only when what they promise is on disk
 * (ports.ts, "durable"), which LevelDB leaves to the operating system.
 */
import { open, readdir } from 'node:fs/promises';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import dynalite from 'dynalite';
import { type LocalServer, listenOnLoopback } from './loopback.ts';
import { privateDirectory } from './state.ts';

/** The largest request that DynamoDB takes: https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Constraints.html */
const REQUEST_BYTES_MAX = 16 * 1024 * 1024;
const READS = /\.(?:Get|BatchGet|Query|Scan|Describe|List)/;

/** Opens the tables in `directory` and serves them. One process at a time. `onError` hears of faults that are the server's own. */
export async function startDynamoDb(directory: string, onError: (error: unknown) => void): Promise<LocalServer> {
  await privateDirectory(directory);
  const server = dynalite({ path: directory, createTableMs: 0, deleteTableMs: 0, updateTableMs: 0 });
  const [answer] = server.listeners('request') as [Listener];
  const sync = joined(() => syncLog(directory));
  const serve = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const { status, headers, body } = await ask(answer, request, await bodyOf(request));
    const wrote = status === 200 && !READS.test(String(request.headers['x-amz-target']));
    if (wrote) await sync();
    response.writeHead(status, headers);
    response.end(body);
  };
  server.removeAllListeners('request');
  server.on('request', (request, response) => {
    serve(request, response).catch((thrown: unknown) => {
      response.destroy();
      if (request.complete) onError(thrown); // Otherwise the client has gone away in the middle of its request.
    });
  });
  return await listenOnLoopback(server);
}

/** What dynalite uses of the two. */
type Listener = (
  request: Readable & Pick<IncomingMessage, 'method' | 'url' | 'headers'>,
  response: Pick<ServerResponse, 'statusCode'> & {
    setHeader(name: string, value: string | number): void;
    end(body?: string): void;
  },
) => void;

interface Answer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
}

/** One request through dynalite's listener, which sees a request that is complete, and a response that collects. */
async function ask(listener: Listener, request: IncomingMessage, body: Buffer): Promise<Answer> {
  const { method, url, headers } = request;
  return await new Promise((done) => {
    const answered: Record<string, string> = {};
    const whole = Object.assign(Readable.from(body.length === 0 ? [] : [body]), { method, url, headers });
    const collecting = {
      statusCode: 200,
      setHeader: (name: string, value: string | number) => {
        answered[name] = String(value);
      },
      end(text = '') {
        done({ status: this.statusCode, headers: answered, body: text });
      },
    };
    listener(whole, collecting);
  });
}

async function bodyOf(request: IncomingMessage): Promise<Buffer> {
  const pieces: Buffer[] = [];
  let bytes = 0;
  for await (const piece of request as AsyncIterable<Buffer>) {
    bytes += piece.length;
    if (bytes > REQUEST_BYTES_MAX) throw new RangeError(`a request of more than ${REQUEST_BYTES_MAX} bytes`);
    pieces.push(piece);
  }
  return Buffer.concat(pieces);
}

/**
 * LevelDB appends each write to its log and hands that to the operating system before it answers, which outlives this process but not the
 * machine. A log that has gone meanwhile was written to a table, synced.
 */
async function syncLog(directory: string): Promise<void> {
  for (const name of await readdir(directory)) {
    if (!name.endsWith('.log')) continue;
    const log = await open(join(directory, name), 'r').catch((thrown: NodeJS.ErrnoException) => {
      if (thrown.code === 'ENOENT') return null;
      throw thrown;
    });
    await log?.datasync();
    await log?.close();
  }
}

/** Calls that come while `work` is running share the next run: it begins after all of them have come. */
export function joined(work: () => Promise<void>): () => Promise<void> {
  let running: Promise<void> = Promise.resolve();
  let next: Promise<void> | null = null;
  return () => {
    next ??= running
      .catch(() => undefined)
      .then(() => {
        next = null;
        running = work();
        return running;
      });
    return next;
  };
}

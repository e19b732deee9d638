/**
 * DynamoDB on this machine: dynalite (LevelDB on disk), behind an HTTP server of our own that gives it whole requests only, and gives its answers
 * to the client only when what they promise is on disk (ports.ts, "durable"): LevelDB itself leaves that to the operating system.
 */
import { once } from 'node:events';
import { mkdir, open, readdir } from 'node:fs/promises';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import dynalite from 'dynalite';
import type { LocalServer } from './s3/server.ts';

/** The largest request that DynamoDB takes: https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Constraints.html */
const REQUEST_BYTES_MAX = 16 * 1024 * 1024;
const READS = /\.(?:Get|BatchGet|Query|Scan|Describe|List)/;

/** Opens the tables in `directory` and serves them. `onError` hears of faults that are the server's own. */
export async function startDynamoDb(directory: string, onError: (error: unknown) => void): Promise<LocalServer> {
  await mkdir(directory, { recursive: true });
  const tables = dynalite({ path: directory, createTableMs: 0, deleteTableMs: 0, updateTableMs: 0 });
  const sync = shared(() => syncLog(directory));
  const server = createServer((request, response) => {
    answer(tables, sync, request, response).catch((thrown: unknown) => {
      response.destroy();
      if (!request.destroyed || request.complete) onError(thrown);
    });
  });
  server.keepAliveTimeout = 60_000; // Longer than the SDK keeps an idle connection, or it would write to a closing one.
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  if (address === null || typeof address === 'string') throw new TypeError('a server without a port');
  return {
    endpoint: `http://127.0.0.1:${address.port}`,
    stop: async () => {
      const closed = once(server, 'close');
      server.close();
      server.closeAllConnections();
      await closed;
      await closeTables(tables);
    },
  };
}

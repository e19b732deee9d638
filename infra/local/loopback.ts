/** HTTP servers of the local engine: on loopback, on a port of the operating system's choice. */
import { once } from 'node:events';
import type { Server } from 'node:http';

export interface LocalServer {
  /** `http://127.0.0.1:<port>`: an IP address, so that the SDK addresses buckets by path. */
  readonly endpoint: string;
  /** Breaks off what is open and stops listening. */
  stop(): Promise<void>;
}

/** Longer than the SDK keeps an idle connection (node's agents: 5 s; with a hint: what it says), or it would write to one that is closing. */
const KEEP_ALIVE_MS = 60_000;

export async function listenOnLoopback(server: Server): Promise<LocalServer> {
  server.keepAliveTimeout = KEEP_ALIVE_MS;
  server.requestTimeout = 0; // A part takes as long as the source takes to fill it.
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  if (address === null || typeof address === 'string') throw new TypeError('a server without a port');
  return {
    endpoint: `http://127.0.0.1:${address.port}`,
    stop: async () =>
      await new Promise((done, fail) => {
        server.close((error) => (error ? fail(error) : done()));
        server.closeAllConnections();
      }),
  };
}

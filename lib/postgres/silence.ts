/**
 * How long a server may be silent while somebody waits for it, on either side of the path (I8): a connection on which nothing moves is broken off, and what waits
 * on it fails as on one that was lost.
 *
 * TCP's own questions find a host that is gone, in less than a minute. They do not find one that is there and does nothing: a frozen server, a proxy or a
 * firewall that has forgotten the connection and still answers. Time is counted by beats of a timer, so that a process that was frozen itself is not late.
 */
import type { Duplex, Writable } from 'node:stream';
import type { Client } from 'pg';

/**
 * Longer than anything is silent that is asked of a source, and shorter than a function lives, so that it ends with a word of its own. What may take longer has
 * limits of its own: waiting for others' transactions, and the statements of a load.
 */
export const SILENCE_MS_MAX = 10 * 60_000;
/** Silence on the target after which it is asked, on another connection, whether it is at work: a statement there may take its time. */
const ASK_MS = 60_000;
const BEATS = 10;

/** A socket, TLS over one, or a channel of SSH. */
type Wire = Duplex & { readonly bytesRead: number; readonly bytesWritten: number };

interface Watch {
  readonly silence_ms: number;
  readonly stop: () => void;
}

const watches = new WeakMap<Client, Watch>();
/** What is being written to the server by a COPY. */
const copies = new WeakMap<Client, Writable>();

function wireOf(client: Client): Wire {
  return client.connection.stream as unknown as Wire;
}

/** Of `pg`, and not in its types: no query is under way. */
function isReady(client: Client): boolean {
  const { readyForQuery } = client as unknown as { readonly readyForQuery?: boolean };
  if (readyForQuery === undefined) throw new TypeError('pg does not tell whether a query is under way');
  return readyForQuery;
}

/** What has arrived and is not read waits for us, and so does a COPY that we have nothing for yet. */
function isWaiting(client: Client, wire: Wire): boolean {
  if (isReady(client) || wire.readableLength > 0) return false;
  const copy = copies.get(client);
  return copy === undefined || copy.writableEnded || wire.writableLength > 0;
}

/** Calls `silent` when nothing has moved for `silence_ms` while somebody waited, and again after as long. It is told how to give the connection up. */
function watch(client: Client, silence_ms: number, silent: (giveUp: () => void) => void): void {
  watches.get(client)?.stop();
  isReady(client);
  const wire = wireOf(client);
  let moved = 0;
  let beats = 0;
  const giveUp = (): void => {
    wire.destroy(Object.assign(new Error(`no word from the server in ${silence_ms} ms`), { code: 'ETIMEDOUT' }));
  };
  const timer = setInterval(() => {
    const now = wire.bytesRead + wire.bytesWritten;
    beats = now === moved && isWaiting(client, wire) ? beats + 1 : 0;
    moved = now;
    if (beats < BEATS) return;
    beats = 0;
    silent(giveUp);
  }, silence_ms / BEATS);
  timer.unref();
  const stop = (): void => {
    clearInterval(timer);
    wire.off('close', stop);
  };
  wire.once('close', stop);
  watches.set(client, { silence_ms, stop });
}

/** From now on, in the place of an earlier limit: whoever waits for an answer on this connection waits no longer than `silence_ms` without a byte. */
export function limitSilence(client: Client, silence_ms: number): void {
  watch(client, silence_ms, (giveUp) => giveUp());
}

/**
 * In the place of a limit, for statements that may be long and are bounded by themselves: after some silence the server is asked, by `connect`, what the session
 * does. Twice found to wait for its client, while its client waits for it: the connection is broken off. Where nobody can tell (no other connection is to be had;
 * a pooler, whose process numbers are its own), nothing is done.
 */
export function askAfterSilence(client: Client, connect: () => Promise<Client>): void {
  const ask_ms = Math.min(ASK_MS, watches.get(client)?.silence_ms ?? ASK_MS);
  const wire = wireOf(client);
  let isAsking = false;
  let suspected = -1;
  const ask = async (giveUp: () => void): Promise<void> => {
    const moved = wire.bytesRead + wire.bytesWritten;
    const waits = await waitsForClient(client, connect);
    if (wire.bytesRead + wire.bytesWritten !== moved || !isWaiting(client, wire)) return;
    if (waits && suspected === moved) giveUp();
    suspected = waits ? moved : -1;
  };
  watch(client, ask_ms, (giveUp) => {
    if (isAsking) return;
    isAsking = true;
    ask(giveUp)
      .catch(() => undefined) // Nobody can tell.
      .finally(() => {
        isAsking = false;
      });
  });
}

const SESSION_SQL = `SELECT state <> 'active' OR wait_event_type IS NOT DISTINCT FROM 'Client' AS waits
  FROM pg_stat_activity WHERE pid = $1 AND usename = current_user AND application_name = $2`;

async function waitsForClient(client: Client, connect: () => Promise<Client>): Promise<boolean> {
  const { processID, connectionParameters } = client as unknown as {
    readonly processID: number | null;
    readonly connectionParameters: { readonly application_name?: string };
  };
  const other = await connect();
  other.on('error', () => undefined); // The query fails by it.
  try {
    const named = [processID, connectionParameters.application_name];
    const { rows } = await other.query<{ waits: boolean | null }>(SESSION_SQL, named);
    return rows[0]?.waits === true;
  } finally {
    other.end().catch(() => undefined); // It is not waited for, and goes with its socket.
  }
}

/** Runs `work`, which writes `copy` to the server. */
export async function whileCopying<T>(client: Client, copy: Writable, work: () => Promise<T>): Promise<T> {
  copies.set(client, copy);
  try {
    return await work();
  } finally {
    copies.delete(client);
  }
}

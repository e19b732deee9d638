/**
 * How long a server may be silent while somebody waits for it, on either side of the path (I8): a connection on which nothing moves is broken off, and what waits
 * on it fails as on one that was lost.
 *
 * TCP's own questions find a host that is gone, in less than a minute. They do not find one that is there and does nothing: a frozen server, a proxy or a
 * firewall that has forgotten the connection and still answers. Time is counted by beats of a timer, so that a process that was frozen itself is not late.
 */
import type { Duplex, Writable } from 'node:stream';
import type { Client } from 'pg';

/** Shorter than a function lives, so that it ends with a word of its own. Whom the server works for longer, and says so on another connection, is waited for. */
export const SILENCE_MS_MAX = 10 * 60_000;
/** Silence on the target after which it is asked, on another connection, whether it is at work: a statement there may take its time. */
const ASK_MS = 60_000;
const BEATS = 10;

/** A socket, TLS over one, or a channel of SSH. */
type Wire = Duplex & { readonly bytesRead: number; readonly bytesWritten: number };

/** Another connection to the same server, to ask what a session does there. */
export type Ask = () => Promise<Client>;

interface Watch {
  readonly silence_ms: number;
  readonly ask: Ask | null;
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
function watch(
  client: Client,
  { silence_ms, ask }: Pick<Watch, 'silence_ms' | 'ask'>,
  silent: (giveUp: () => void) => void,
): void {
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
  watches.set(client, { silence_ms, ask, stop });
}

/** Whether nothing has moved since, and somebody still waits. */
function silentSince(client: Client): () => boolean {
  const wire = wireOf(client);
  const moved = wire.bytesRead + wire.bytesWritten;
  return () => wire.bytesRead + wire.bytesWritten === moved && isWaiting(client, wire);
}

/**
 * From now on, in the place of an earlier limit: whoever waits for an answer on this connection waits no longer than `silence_ms` without a byte; unless the
 * server, asked by `ask`, is at work for it. Where nobody can tell, and where the server does not answer that either, it is broken off.
 */
export function limitSilence(client: Client, silence_ms: number, ask: Ask | null = null): void {
  let isAsking = false;
  const judge = async (giveUp: () => void): Promise<void> => {
    isAsking = true;
    const isSilent = silentSince(client);
    const works = await isAtWork(client);
    isAsking = false;
    if (!works && isSilent()) giveUp();
  };
  watch(client, { silence_ms, ask }, (giveUp) => {
    if (ask === null || isAsking) giveUp();
    else void judge(giveUp);
  });
}

/**
 * Whether the server works for a session that is silent: told by the way that was given with its limit. A session that waits for its client, or for
 * something to do, does not; one that waits for a lock does. False where nobody can tell.
 */
export async function isAtWork(client: Client): Promise<boolean> {
  const ask = watches.get(client)?.ask ?? null;
  if (ask === null) return false;
  return await worksFor(client, ask).then(
    (works) => works === true,
    () => false,
  );
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
    const isSilent = silentSince(client);
    const waits = (await worksFor(client, connect)) === false;
    if (!isSilent()) return;
    if (waits && suspected === moved) giveUp();
    suspected = waits ? moved : -1;
  };
  watch(client, { silence_ms: ask_ms, ask: connect }, (giveUp) => {
    if (isAsking) return;
    isAsking = true;
    ask(giveUp)
      .catch(() => undefined) // Nobody can tell.
      .finally(() => {
        isAsking = false;
      });
  });
}

/** A walsender that has nothing to send waits for activity, in whatever state it is shown. */
const SESSION_SQL = `SELECT (state = 'active' OR backend_type = 'walsender')
    AND COALESCE(wait_event_type, '') NOT IN ('Client', 'Activity') AS works
  FROM pg_stat_activity WHERE pid = $1 AND usename = current_user AND application_name = $2`;

/** Null: no such session is seen. Throws what connecting and the query throw. */
async function worksFor(client: Client, ask: Ask): Promise<boolean | null> {
  const { processID, connectionParameters } = client as unknown as {
    readonly processID: number | null;
    readonly connectionParameters: { readonly application_name?: string };
  };
  const other = await ask();
  other.on('error', () => undefined); // The query fails by it.
  try {
    const named = [processID, connectionParameters.application_name];
    const { rows } = await other.query<{ works: boolean | null }>(SESSION_SQL, named);
    return rows[0]?.works ?? null;
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

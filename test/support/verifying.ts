/**
 * `verify` over a line between two databases (fresh-line.ts): windows and loaders run when it asks for the chain to move.
 */
import { Client } from 'pg';
import { postgresExtractor } from '../../lib/epoch/extractor.ts';
import { clientConfig, connectClient } from '../../lib/postgres/connection.ts';
import type { Connect } from '../../lib/postgres/session.ts';
import type { StreamFindings } from '../../lib/verify/findings.ts';
import { type VerifyOptions, verify } from '../../lib/verify/verify.ts';
import type { FreshLine } from './fresh-line.ts';
import { memoryDoorbell, memoryLedger } from './memory-ports.ts';

const IDLE_MS_MAX = 20_000;

export interface Verifying extends Partial<Pick<VerifyOptions, 'repair' | 'named' | 'range_rows'>> {
  /** Names of tables of public; all where it is left out. */
  readonly tables?: readonly string[];
  /** Told before each window. */
  readonly onAdvance?: () => Promise<void>;
}

/** What is found, by the table's name without its schema. */
export async function verifyLine(
  { line, from, to }: Pick<FreshLine, 'line' | 'from' | 'to'>,
  { tables, onAdvance, repair = false, named = false, ...options }: Verifying = {},
): Promise<Record<string, StreamFindings>> {
  const ledger = memoryLedger(line.world, line.durable);
  const connectSource = connectionAs(from, 'source');
  const extractor = postgresExtractor({
    connect: connectSource,
    connectReplication: connectSource,
    publications: [line.pipeline.source.publication_name],
  });
  const found = await verify(
    {
      clock: { now: () => Date.now(), sleep: (ms) => new Promise((resolve) => setTimeout(resolve, ms)) },
      log: line.log,
      ledger,
      doorbell: memoryDoorbell(line.world, line.durable),
      connectSource,
      connectTarget: connectionAs(to, 'target'),
      table: (name) => extractor.table(name),
      advance: async () => {
        await onAdvance?.();
        await line.window();
        await line.pump();
      },
      idle_ms_max: IDLE_MS_MAX,
    },
    {
      pipeline: line.pipeline,
      streams: (await ledger.bookmarks()).filter(({ table }) => tables === undefined || tables.includes(table.table)),
      named,
      repair,
      onProgress: () => undefined,
      ...options,
    },
  );
  return Object.fromEntries(found.map((one) => [one.table.replace('public.', ''), one]));
}

/** To the database that `client` is connected to. */
function connectionAs(client: Client, side: 'source' | 'target'): Connect {
  const { host, port, user = '', password = '', database = '' } = client;
  const connection = { host, port, user, password, database, application_name: 'verify', connect_timeout_seconds: 10 };
  const endpoint = { side, connection: { ...connection, password: password ?? '' } };
  return () => connectClient(() => new Client(clientConfig(endpoint)), endpoint);
}

export interface Writing extends AsyncDisposable {
  /** Resolves with the number of statements; throws what one of them failed with. */
  end(): Promise<number>;
}

/** Statements one after another on a connection of its own to where `client` is, until it is ended. */
export function writingOn(client: Client, statement: (n: number) => string, pause_ms = 2): Writing {
  const ending = new AbortController();
  const { signal } = ending;
  const write = async (): Promise<number> => {
    const own = await connectionAs(client, 'source')();
    try {
      await own.query('RESET ALL');
      for (let n = 0; ; n++) {
        if (signal.aborted) return n;
        await own.query(statement(n));
        await new Promise((resolve) => setTimeout(resolve, pause_ms));
      }
    } finally {
      await own.end();
    }
  };
  const course = write();
  course.catch(() => undefined); // Told by `end`.
  const end = async (): Promise<number> => {
    ending.abort();
    return await course;
  };
  return { end, [Symbol.asyncDispose]: async () => void (await end()) };
}

/**
 * A `Target` on a test server, and the steps of an epoch, for tests of the loader. Every connection it opens carries the same application_name, so
 * that a test can see that none is left.
 */
import type pg from 'pg';
import { Client } from 'pg';
import { afterAll, afterEach, beforeAll, expect } from 'vitest';
import type { SwapPatience } from '../../lib/load/finish.ts';
import type { LoadOptions } from '../../lib/load/options.ts';
import { postgresTarget } from '../../lib/load/target.ts';
import { type Lsn, lsnOf } from '../../lib/lsn.ts';
import type { Chunk, Epoch, Log, SegmentSource, Target, TargetStream } from '../../lib/ports.ts';
import type { Shape, TableName } from '../../lib/shape.ts';
import { quoteIdentifier, quoteTable } from '../../lib/sql-text.ts';
import { startPostgres, type TestPostgres } from './postgres.ts';
import { type Line, segmentOf } from './segments.ts';

/** A server for the tests of one file; each leaves no connection of a target behind. */
export function onLoaderServer(
  use: (opened: { readonly server: TestPostgres; readonly client: pg.Client }) => void,
): void {
  let server: TestPostgres;
  let client: pg.Client;
  beforeAll(async () => {
    server = await startPostgres();
    client = await server.connect();
    use({ server, client });
  }, 60_000);
  afterEach(async () => {
    expect(await connectionsLeft(client)).toBe(0);
  });
  afterAll(() => server.stop());
}

export const APPLICATION = 'sluice/test-load';
export const INCARNATION = 'chain-1';

export interface TargetFor extends Partial<LoadOptions> {
  readonly pipeline?: string;
  readonly user?: string;
  readonly password?: string;
  readonly database?: string;
  /** Called with each client as it is handed over: to break it. */
  readonly onClient?: (client: pg.Client) => void;
  readonly patience?: SwapPatience;
}

export interface LoggedTarget extends Target {
  readonly events: { readonly event: string; readonly facts: Record<string, unknown> }[];
}

/** Hard deletes without `add_metadata_columns` unless asked otherwise; those turn metadata columns on (options). */
export function targetOn(
  server: TestPostgres,
  { pipeline = 'shop', user, password, database, onClient, patience, ...options }: TargetFor = {},
): LoggedTarget {
  const connect = async (): Promise<pg.Client> => {
    const client = new Client({
      host: server.host,
      port: server.port,
      user: user ?? server.user,
      password: password ?? server.password,
      database: database ?? server.database,
      application_name: APPLICATION,
    });
    await client.connect();
    onClient?.(client);
    return client;
  };
  const events: LoggedTarget['events'] = [];
  const write = (event: string, facts: Record<string, unknown> = {}): void => {
    events.push({ event, facts });
  };
  const log: Log = { info: write, warn: write, error: write };
  const clock = {
    now: () => Date.now(),
    sleep: (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms)),
  };
  const loadOptions = {
    hard_delete: true,
    add_metadata_columns: false,
    on_truncate: 'apply',
    custom_types: 'create',
    on_type_change: 'widen',
    on_drop_column: 'keep',
    ...options,
  } as const;
  const given = { connect, pipeline, options: loadOptions, clock, log, ...(patience && { patience }) };
  return { ...postgresTarget(given), events };
}

export function streamOf(table: TableName, stream = `${table.schema}.${table.table}`): TargetStream {
  return { stream, target: table };
}

export function epochOf(stream: TargetStream, change: Partial<Epoch> = {}): Epoch {
  return {
    stream: stream.stream,
    number: 1,
    kind: 'first_sync',
    where: null,
    state: 'planned',
    plan: 'plan-1',
    chunks: 1,
    rows_estimate: 0,
    held_cut: 10,
    opened_at_ms: 0,
    done_at_ms: null,
    rung_at_ms: 0,
    ...change,
  };
}

export function chunkOf(epoch: Epoch, number = 0, change: Partial<Chunk> = {}): Chunk {
  const staged = { object: 'o', object_bytes: 1, rows: 0, text_bytes: 0, lsn: lsnOf(0x2000n) };
  return {
    stream: epoch.stream,
    epoch: epoch.number,
    plan: epoch.plan ?? '',
    number,
    range: { by: 'whole' },
    staged,
    loaded: false,
    ...change,
  };
}

export const CHUNKS_LSN: Lsn = lsnOf(0x2000n);
export const HELD_LSN: Lsn = lsnOf(0x1000n);

/** A whole epoch, one chunk for each element of `chunks`. */
export async function synchronise(
  target: Target,
  stream: TargetStream,
  shape: Shape,
  chunks: readonly (readonly Line[])[],
  {
    overlapping = false,
    incarnation = INCARNATION,
    ...change
  }: Partial<Epoch> & { overlapping?: boolean; incarnation?: string } = {},
): Promise<void> {
  const epoch = epochOf(stream, { chunks: chunks.length, ...change });
  const plan = epoch.plan ?? '';
  await target.prepareEpoch(stream, epoch, plan, shape, incarnation, overlapping);
  for (const [number, lines] of chunks.entries()) {
    await target.loadChunk(
      stream,
      epoch,
      chunkOf(epoch, number),
      segmentOf({ shape, blocks: [{ kind: 'upsert', lines, rows: null }] }),
    );
  }
  await target.finishEpoch(stream, epoch, plan, CHUNKS_LSN, HELD_LSN);
}

/** One cut: its segments in one transaction, after the row's applied cut. */
export async function applyCut(
  target: Target,
  stream: TargetStream,
  segments: readonly SegmentSource[],
): Promise<number> {
  return await target.transaction(stream, async (tx) => {
    const cut = (tx.row?.applied_cut ?? 0) + 1;
    for (const segment of segments) await tx.apply(segment);
    await tx.advance({ cut, lsn: lsnOf(0x1000n + BigInt(cut)), caught_up: true });
    return cut;
  });
}

const BY_TEXT = new Intl.Collator('en', { numeric: true });

/** The table's rows as arrays of PostgreSQL's text, sorted. `list`: SQL of the select list; without it all columns but the metadata columns. */
export async function rowsOf(client: pg.Client, table: TableName, list?: string): Promise<(string | null)[][]> {
  const names = await client.query<{ attname: string }>(
    `SELECT attname FROM pg_attribute WHERE attrelid = $1::regclass AND attnum > 0 AND NOT attisdropped AND attname !~ '^_sdc_' ORDER BY attnum`,
    [quoteTable(table)],
  );
  const columns = list ?? names.rows.map(({ attname }) => quoteIdentifier(attname)).join(', ');
  const asText = { getTypeParser: () => (text: unknown) => text } as unknown as pg.CustomTypesConfig;
  const { rows } = await client.query<(string | null)[]>({
    text: `SELECT ${columns} FROM ${quoteTable(table)}`,
    types: asText,
    rowMode: 'array',
  });
  return rows.toSorted((x, y) => BY_TEXT.compare(JSON.stringify(x), JSON.stringify(y)));
}

/** Connections of the targets above that the server still has, after giving those that were just closed a moment. */
export async function connectionsLeft(client: pg.Client): Promise<number> {
  for (let attempt = 0; ; attempt++) {
    const { rows } = await client.query<{ n: number }>(
      'SELECT count(*)::int4 AS n FROM pg_stat_activity WHERE application_name = $1',
      [APPLICATION],
    );
    const left = rows[0]?.n ?? 0;
    if (left === 0 || attempt === 40) return left;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

/**
 * The whole line between two real servers, in this process: windows, extractors and loaders are lib's own, with PostgreSQL at both ends; stage, ledger and
 * queues are in memory. What a test does to the source is on the target after `settle`, or the stream is halted.
 */
import type { Duplex } from 'node:stream';
import { Client } from 'pg';
import { readPipeline } from '../../lib/config/read.ts';
import type { Pipeline } from '../../lib/config/schema.ts';
import { streamId } from '../../lib/config/stream-id.ts';
import { postgresComparer } from '../../lib/epoch/comparer.ts';
import { postgresExtractor } from '../../lib/epoch/extractor.ts';
import { refusalsOf } from '../../lib/load/quarantine.ts';
import { postgresTarget } from '../../lib/load/target.ts';
import {
  type DrainPorts,
  drain,
  type ExtractPorts,
  extract,
  type LoadPorts,
  load,
  type Window,
} from '../../lib/pipeline.ts';
import type { Bookmark, Clock, Ledger, RunReport } from '../../lib/ports.ts';
import { clientConfig, connectClient, type Endpoint } from '../../lib/postgres/connection.ts';
import { SILENCE_MS_MAX } from '../../lib/postgres/silence.ts';
import type { TableName } from '../../lib/shape.ts';
import { appendPublicationName } from '../../lib/slot/append-publication.ts';
import { openPeekReader } from '../../lib/slot/peek-reader.ts';
import { openSlotReader } from '../../lib/slot/reader.ts';
import { postgresSource } from '../../lib/slot/source.ts';
import { ajvCompiler } from '../../lib/validation/ajv-compiler.ts';
import { sessionName } from '../../lib/window/free-slot.ts';
import { columnsOf } from './compare.ts';
import { keptLog } from './ledger-nouns.ts';
import { rowsOf } from './loading.ts';
import { Durable, memoryDoorbell, memoryLedger, memoryStage, World } from './memory-ports.ts';

/** What hashes are salted with. */
export const MASK_SALT = 'a salt that nobody knows';

const WINDOW_MS = 120_000;
/** Bells that one pumping answers: more, and they ring each other without end. */
const BELLS_MAX = 2_000;
const WINDOWS_MAX = 12;
/** After these, others write as well. */
const QUIET_WINDOWS = 4;

/** A server as TestPostgres is one. */
export interface LineServer {
  readonly host: string;
  readonly port: number;
  readonly user: string;
  readonly password: string;
  readonly database: string;
}

export interface LineOptions {
  readonly source: LineServer;
  readonly target: LineServer;
  /** Lines of the pipeline file, as they stand behind their key: `tables: '[public.*]'`, `source: 'fold_partitions: false'`. */
  readonly config?: { readonly tables?: string; readonly source?: string; readonly target?: string };
  /** Instead of a connection of its own to either server: a tunnel. */
  readonly connect?: (endpoint: Endpoint) => Promise<Client>;
  /** SlotReaderOptions. */
  readonly silence_ms?: number;
  /** Name of the pipeline, and of its slot and publication: two lines on one server have two. */
  readonly pipeline?: string;
  /** The source's wal2json is as one before 2.0, which knows format 1 only. */
  readonly old_wal2json?: boolean;
}

export interface Line extends AsyncDisposable {
  readonly pipeline: Pipeline;
  /** The file is changed: what begins from now on has it so. `source` and `target` stand for what `LineOptions.config` gave, but for the names of slot and publication. */
  configure(changed: {
    readonly tables?: string;
    readonly mask_salt?: string;
    readonly source?: string;
    readonly target?: string;
  }): void;
  readonly durable: Durable;
  /** What is durable, as a command sees it. */
  readonly ledger: Ledger;
  /** Where its process can be made to die. */
  readonly world: World;
  readonly log: ReturnType<typeof keptLog>;
  /** What a process that begins now works with: for steps that a test takes one by one. */
  ports(): DrainPorts & ExtractPorts & LoadPorts;
  /** One window, up to where the source's log stands now; its bells wait. Throws what the window failed with. */
  window(): Promise<RunReport>;
  /** So much time goes by, for whoever asks this process' clock; the servers' own stay. */
  passTime(ms: number): void;
  /** One window, with what its event may say. */
  windowWith(event: Partial<Window>): Promise<RunReport>;
  /** Answers every bell. */
  pump(): Promise<void>;
  /** Windows and bells until every stream is live and has applied all there is, or is halted. Throws when that does not come. */
  settle(): Promise<void>;
  /** Another process: nothing is kept but what is durable. */
  restart(): void;
  bookmark(table: string): Bookmark;
  /** Rows of `schema.table` on either side as text, sorted; columns by name, generated ones included. */
  rows(side: 'source' | 'target', table: string): Promise<(string | null)[][]>;
  /** Columns with their types, in the order of their names. */
  columns(side: 'source' | 'target', table: string): Promise<string[]>;
  /** Both sides' rows, to be compared: the columns that the source has, in the order of their names. */
  both(table: string): Promise<{ readonly source: unknown; readonly target: unknown }>;
  /** The same columns, with the same text in every row. */
  equal(table: string): Promise<boolean>;
}

/** Makes nothing on either server but what a pipeline makes: publication and slot, and `_sluice` with the tables. Closing drops the slot. */
export async function openLine({
  source: at,
  target: to,
  config = {},
  connect: through,
  pipeline: name = 'line',
  old_wal2json = false,
  silence_ms = SILENCE_MS_MAX,
}: LineOptions): Promise<Line> {
  let { tables = '[public.*]', source = '', target = '' } = config;
  const more = (text: string): string => (text === '' ? '' : `, ${text}`);
  const place = ({ host, port, user, database }: LineServer): string =>
    `host: ${host}, port: ${port}, user: ${JSON.stringify(user)}, database: ${JSON.stringify(database)}`;
  const file = (): string =>
    [
      `pipeline: ${name}`,
      `tables: ${tables}`,
      'mask_salt: ${env:MASK_SALT}',
      `source: { ${place(at)}, break_at_end_lsn: true${more(source)} }`,
      `target: { ${place(to)}${target.includes('hard_delete') ? '' : ', hard_delete: true'}${more(target)} }`,
      'schedule: { every: 5 minutes }',
    ].join('\n');
  let pipeline = readPipeline(file(), 'pipeline.yaml');
  let salt = MASK_SALT;
  let ahead_ms = 0;
  const clock: Clock = {
    now: () => Date.now() + ahead_ms,
    sleep: (ms) => new Promise((resolve) => setTimeout(resolve, ms)),
  };
  const world = new World();
  const durable = new Durable();
  const log = keptLog();
  const { use_secondary, secondary_host, secondary_port } = pipeline.source;
  const replica =
    use_secondary && secondary_host !== null ? { ...at, host: secondary_host, port: secondary_port } : null;
  const connect = async (server: LineServer, replication?: string, named?: string): Promise<Client> => {
    const { host, port, user, password, database } = server;
    const application_name = replication ?? named ?? 'sluice/line';
    const endpoint = {
      side: server === to ? ('target' as const) : ('source' as const),
      connection: { host, port, user, password, database, application_name, connect_timeout_seconds: 10 },
      replication: replication !== undefined,
    };
    const open = (asked: Endpoint): Promise<Client> =>
      through ? through(asked) : connectClient(() => new Client(clientConfig(asked)), asked);
    const plain = {
      ...endpoint,
      replication: false,
      connection: { ...endpoint.connection, application_name: 'sluice/line' },
    };
    return await open({ ...endpoint, ask: () => open(plain) });
  };
  const connectSlot = async (application_name: string, reader: 'stream' | 'peek'): Promise<Client> => {
    const client = await (reader === 'stream'
      ? connect(at, application_name)
      : connect(at, undefined, application_name));
    if (old_wal2json) refuseFormat2(client);
    return client;
  };
  const opened = new Map<LineServer, Client>();
  /** Opened again after its server was started anew. */
  const on = async (side: 'source' | 'target'): Promise<Client> => {
    const server = side === 'source' ? at : to;
    const known = opened.get(server);
    if (known) return known;
    const client = await connect(server);
    opened.set(server, client);
    client.once('error', () => opened.delete(server));
    return client;
  };
  await Promise.all([on('source'), on('target')]);
  let runs = 0;

  const portsNow = () => {
    const ports = {
      clock,
      log,
      stage: memoryStage(world, durable),
      ledger: memoryLedger(world, durable),
      doorbell: memoryDoorbell(world, durable),
      newId: world.newId,
      random: () => 0.5,
      mask_salt: async () => salt,
      schemas: async () => ajvCompiler,
    };
    const { source: options } = pipeline;
    return {
      ...ports,
      source: postgresSource({
        config: options,
        connect: () => connect(at),
        connectReplication: () => connect(at, 'sluice/line'),
        openSlot: async (from, session, appends, tables) => {
          const application_name = sessionName(options.application_name, session);
          const read = {
            clock,
            slot: options.replication_slot,
            plugin: options.plugin,
            publication: options.publication_name,
            tables,
            append_publication: appends ? appendPublicationName(options.publication_name) : null,
            from,
          };
          if (options.slot_reader === 'peek') {
            return await openPeekReader({ ...read, connect: () => connectSlot(application_name, 'peek') });
          }
          const client = await connectSlot(application_name, 'stream');
          return await openSlotReader({
            ...read,
            client,
            wal_sender_timeout_ms: options.wal_sender_timeout,
            silence_ms,
          });
        },
      }),
      extractor: postgresExtractor({
        connect: () => connect(at),
        connectReplication: () => connect(at, 'sluice/line'),
        publications: [options.publication_name, appendPublicationName(options.publication_name)],
        secondary: replica && { connect: () => connect(replica), clock, wait_ms_max: 1_000 },
      }),
      comparer: postgresComparer({ connectSource: () => connect(at), connectTarget: () => connect(to), pipeline }),
      target: postgresTarget({ connect: () => connect(to), pipeline: name, options: pipeline.target, clock, log }),
    };
  };

  const windowWith = async (event: Partial<Window>): Promise<RunReport> => {
    const run = `run-${++runs}`;
    world.clock.now_ms += WINDOW_MS;
    const report = await drain(portsNow(), pipeline, {
      run,
      owner: run,
      lease_ms: WINDOW_MS,
      deadline_ms: clock.now() + WINDOW_MS,
      ring_all: true,
      ...event,
    });
    if (report.error) throw new Error(`window: ${report.error.code}: ${report.error.message}`);
    return report;
  };

  const window = (): Promise<RunReport> => windowWith({});

  const pump = async (): Promise<void> => {
    const { extractBells, loadBells } = durable;
    for (let bells = 0; bells < BELLS_MAX; bells++) {
      const extractBell = extractBells.shift();
      if (extractBell) {
        await extract(portsNow(), pipeline, extractBell);
        continue;
      }
      const loadBell = loadBells.shift();
      if (!loadBell) return;
      const { consistency } = pipeline.target;
      const refusals = refusalsOf(pipeline, portsNow().newId);
      await load(portsNow(), loadBell, { deadline_ms: clock.now() + WINDOW_MS, consistency, refusals });
    }
    throw new Error('the bells do not end');
  };

  /** Whether the stream has everything up to the chain's end, as the target itself says; or waits for a person. */
  const isSettled = ({ stream, state, halt, reset_requested, resync_requested, applied_cut }: Bookmark): boolean => {
    if (halt !== null) return resync_requested !== true;
    const behind = durable.chain.some((cut) => cut.number > applied_cut && cut.streams[stream] !== undefined);
    if ([...durable.requests.values()].some((request) => request.stream === stream)) return false;
    return state === 'live' && !reset_requested && resync_requested !== true && !behind;
  };

  const settle = async (): Promise<void> => {
    for (let windows = 0; windows < WINDOWS_MAX; windows++) {
      // An idle server leaves what a reader has pruned unflushed for some seconds, and chunks are caught up to past that: somebody commits.
      if (windows >= QUIET_WINDOWS)
        await (await on('source')).query("SELECT pg_logical_emit_message(true, 'line', '')");
      await window();
      await pump();
      const bookmarks = [...durable.bookmarks.values()];
      if (bookmarks.length > 0 && bookmarks.every(isSettled)) return;
    }
    throw new Error(
      `not settled: ${JSON.stringify([...durable.bookmarks.values()], (_, v: unknown) => (typeof v === 'bigint' ? String(v) : v))}`,
    );
  };

  const named = (table: string): TableName => {
    const [schema = '', ...rest] = table.split('.');
    return { schema, table: rest.join('.') };
  };
  const bookmark = (table: string): Bookmark => {
    const found = durable.bookmarks.get(streamId(named(table)));
    if (!found) throw new RangeError(`no stream ${table}`);
    return found;
  };
  const placeOf = (side: 'source' | 'target', table: string): TableName =>
    side === 'source' ? named(table) : (durable.bookmarks.get(streamId(named(table)))?.target ?? named(table));
  const listed = async (side: 'source' | 'target', table: string, names: readonly string[]) => {
    const list = names.map((column) => `"${column.replaceAll('"', '""')}"::text`).join(', ');
    return await rowsOf(await on(side), placeOf(side, table), list === '' ? "''" : list);
  };
  const namesOf = async (side: 'source' | 'target', table: string): Promise<string[]> =>
    (await columnsOf(await on(side), placeOf(side, table))).toSorted();

  const both: Line['both'] = async (table) => {
    const names = await namesOf('source', table);
    const there = await namesOf('target', table);
    const missing = names.filter((column) => !there.includes(column));
    return {
      source: { missing: [], rows: await listed('source', table, names) },
      target: { missing, rows: missing.length > 0 ? [] : await listed('target', table, names) },
    };
  };

  return {
    get pipeline() {
      return pipeline;
    },
    configure: (changed) => {
      const { replication_slot, publication_name } = pipeline.source;
      tables = changed.tables ?? tables;
      target = changed.target ?? target;
      if (changed.source !== undefined)
        source = `replication_slot: ${replication_slot}, publication_name: ${publication_name}${more(changed.source)}`;
      pipeline = readPipeline(file(), 'pipeline.yaml');
      salt = changed.mask_salt ?? salt;
    },
    durable,
    get ledger() {
      return memoryLedger(world, durable);
    },
    world,
    log,
    ports: portsNow,
    window,
    windowWith,
    passTime: (ms) => {
      ahead_ms += ms;
    },
    pump,
    settle,
    restart: () => world.revive(),
    bookmark,
    rows: async (side, table) => await listed(side, table, await namesOf(side, table)),
    columns: async (side, table) => {
      const place = placeOf(side, table);
      const client = await on(side);
      const { rows } = await client.query<{ column: string }>(
        `SELECT quote_ident(a.attname) || ' ' || format_type(a.atttypid, a.atttypmod) AS column
           FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
          WHERE n.nspname = $1 AND c.relname = $2 AND a.attnum > 0 AND NOT a.attisdropped AND a.attname NOT LIKE '\\_sdc\\_%'
          ORDER BY a.attname`,
        [place.schema, place.table],
      );
      return rows.map(({ column }) => column);
    },
    both,
    equal: async (table) => {
      const { source: left, target: right } = await both(table);
      return JSON.stringify(left) === JSON.stringify(right);
    },
    [Symbol.asyncDispose]: async () => {
      const { replication_slot, publication_name } = pipeline.source;
      const source = await on('source').catch(() => null); // The server may be stopped already, and all of this with it.
      await source
        ?.query('SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = $1', [
          replication_slot,
        ])
        .catch(() => undefined);
      await source?.query(`DROP PUBLICATION IF EXISTS "${publication_name}"`).catch(() => undefined);
      await Promise.all([...opened.values()].map((client) => client.end().catch(() => undefined)));
    },
  };
}

/** Asks for a format that no version has, in as many bytes: the plugin refuses it, as one before 2.0 refuses the option. */
function refuseFormat2(client: Client): void {
  const { stream } = (client as unknown as { connection: { stream: Duplex } }).connection;
  const write = stream.write.bind(stream) as (bytes: Buffer) => boolean;
  const asOld = (bytes: Buffer): boolean => {
    const text = Buffer.from(bytes).toString('latin1');
    return write(Buffer.from(text.replace(/(["']format-version["'],?) '2'/, "$1 '9'"), 'latin1'));
  };
  stream.write = asOld as typeof stream.write;
}

/**
 * The connection of the reader by calls (peek-reader.ts), and what is asked of the source on it: how the slot is opened, where the log ends, that the slot be
 * moved, and that a call be ended. One statement at a time.
 */
import type { Client } from 'pg';
import { SluiceError } from '../errors.ts';
import { formatLsn, LSN_ZERO, type Lsn, parseLsn } from '../lsn.ts';
import type { Clock, SlotDialect } from '../ports.ts';
import { closeClient } from '../postgres/connection.ts';
import { sqlstateOf } from '../postgres/faults.ts';
import { lastRecordEnd, type WalSizes } from '../postgres/log-position.ts';
import { type Connect, one } from '../postgres/session.ts';
import { SLOT_ADVANCE_SINCE } from '../postgres/versions.ts';
import type { TableName } from '../shape.ts';
import { PeekCall } from './peek-call.ts';
import { advanceSql, CANCEL_SQL, END_SQL, OPEN_SQL, peekSql, trySql } from './peek-sql.ts';
import { type PluginOptions, pgoutputOptions, refusesOptions, wal2jsonOptions } from './plugin-options.ts';
import { thrownSlotFault } from './slot-fault.ts';

/** Somebody else may have a look at the slot at the same moment. */
const SLOT_WAIT_MS_MAX = 5_000;
const SLOT_POLL_MS = 100;
/** object_in_use */
const IN_USE = '55006';
/**
 * Reads of the slot by pgoutput in one session where each registers its callbacks anew, and there is room for ten with those of others ("out of
 * relcache_callback_list slots"). Mended in these releases (https://www.postgresql.org/docs/release/15.3/); 10 was not.
 */
const READS_MAX = 6;
const READS_WITHOUT_END_SINCE: Readonly<Record<number, number>> = { 11: 20, 12: 15, 13: 11, 14: 8, 15: 3 };

export interface PeekOptions {
  /** An ordinary connection under the window's name; asked for another one where a call must be ended. */
  readonly connect: Connect;
  readonly clock: Clock;
  readonly slot: string;
  /** As SlotReaderOptions (reader.ts). */
  readonly plugin?: 'pgoutput' | 'wal2json';
  readonly publication: string;
  readonly tables?: readonly TableName[] | undefined;
  readonly append_publication?: string | null;
}

interface OpenRow extends WalSizes {
  readonly version: number;
  readonly confirmed_lsn: string | null;
}

interface EndRow {
  readonly insert_lsn: string;
  readonly flush_lsn: string;
  readonly confirmed_lsn: string | null;
}

function slotMissing(slot: string): SluiceError {
  return new SluiceError('SLOT_MISSING', { slot, lsn: formatLsn(LSN_ZERO), known: false });
}

/** Throws what connecting throws, SLOT_ACTIVE, SLOT_MISSING, SLOT_LOST, REPLICATION_NOT_ALLOWED, PLUGIN_MISSING, SLOT_STREAM_FAILED. */
export async function openPeekSession(options: PeekOptions): Promise<PeekSession> {
  const { slot, plugin, publication, append_publication: more = null } = options;
  const client = await options.connect();
  let version = 0;
  try {
    // A role's own setting may hide what the plugin warns of.
    if (plugin === 'wal2json') await client.query('SET client_min_messages = warning');
    const row = one((await client.query<OpenRow>(OPEN_SQL, [slot])).rows);
    version = row.version;
    if (row.confirmed_lsn === null) throw slotMissing(slot);
    const choices =
      plugin === 'wal2json'
        ? wal2jsonOptions(options.tables ?? null)
        : pgoutputOptions(version, [publication, ...(more === null ? [] : [more])]);
    const asked = await takenOptions(client, slot, choices, options.clock);
    return new PeekSession(options, client, row, asked, parseLsn(row.confirmed_lsn));
  } catch (error) {
    await closeClient(client);
    throw thrownSlotFault(slot, error, version);
  }
}

/** The first of `choices` that the plugin takes. */
async function takenOptions(
  client: Client,
  slot: string,
  choices: readonly PluginOptions[],
  clock: Clock,
): Promise<PluginOptions> {
  for (const [i, asked] of choices.entries()) {
    try {
      await unlessBusy(clock, () => client.query(trySql(slot, asked)));
      return asked;
    } catch (error) {
      if (i + 1 === choices.length || !refusesOptions(sqlstateOf(error))) throw error;
    }
  }
  throw new RangeError('no options to choose from');
}

async function unlessBusy<T>(clock: Clock, ask: () => Promise<T>): Promise<T> {
  const until_ms = clock.now() + SLOT_WAIT_MS_MAX;
  for (;;) {
    try {
      return await ask();
    } catch (error) {
      if (sqlstateOf(error) !== IN_USE || clock.now() >= until_ms) throw error;
    }
    await clock.sleep(SLOT_POLL_MS);
  }
}

function readsMax(version: number): number {
  const since =
    READS_WITHOUT_END_SINCE[Math.floor(version / 10_000)] ?? (version < 110_000 ? Number.POSITIVE_INFINITY : 0);
  return version % 10_000 < since ? READS_MAX : Number.POSITIVE_INFINITY;
}

export class PeekSession {
  readonly dialect: SlotDialect;
  /** Where the slot stood at the last look. */
  confirmed_lsn: Lsn;
  readonly #options: PeekOptions;
  readonly #version: number;
  readonly #sizes: WalSizes;
  readonly #asked: PluginOptions;
  readonly #reads_max: number;
  #client: Client;
  #closed = false;
  /** Of the slot, on this connection: the first was to see whether it can be read. */
  #reads = 1;
  /** The last place where a record is known to end, and that may not be flushed. */
  #record_lsn: Lsn = LSN_ZERO;

  constructor(options: PeekOptions, client: Client, row: OpenRow, asked: PluginOptions, confirmed_lsn: Lsn) {
    this.#options = options;
    this.#client = client;
    this.#version = row.version;
    this.#sizes = row;
    this.#asked = asked;
    this.dialect = asked.dialect;
    this.#reads_max = asked.dialect.plugin === 'pgoutput' ? readsMax(row.version) : Number.POSITIVE_INFINITY;
    this.confirmed_lsn = confirmed_lsn;
  }

  /**
   * How far the log can be decoded. It may be flushed by whole pages, in the middle of a record, which a call would wait for, with the slot in its hands, until there
   * is more log; so the position is one where a record ends. At worst that of the last look, then null.
   */
  async end(): Promise<Lsn | null> {
    const { slot } = this.#options;
    const row = one((await this.#client.query<EndRow>(END_SQL, [slot])).rows);
    if (row.confirmed_lsn === null) throw slotMissing(slot);
    this.confirmed_lsn = parseLsn(row.confirmed_lsn);
    const flush_lsn = parseLsn(row.flush_lsn);
    const insert_lsn = lastRecordEnd(parseLsn(row.insert_lsn), this.#sizes);
    const known_lsn = this.#record_lsn;
    if (known_lsn <= flush_lsn) this.#record_lsn = insert_lsn;
    if (insert_lsn <= flush_lsn || flush_lsn % BigInt(this.#sizes.page_bytes) !== 0n) return flush_lsn;
    return known_lsn > LSN_ZERO && known_lsn <= flush_lsn ? known_lsn : null;
  }

  get slot(): string {
    return this.#options.slot;
  }

  /** Whether the slot can be moved to any position. Before 11 it goes to where a record ends, which may be past what was recorded. */
  get movesAnywhere(): boolean {
    return this.#version >= SLOT_ADVANCE_SINCE;
  }

  /** Before the slot is moved and read once more: another connection, where this one has no room for that. */
  async renew(): Promise<void> {
    if (this.#reads + 2 <= this.#reads_max) return;
    await closeClient(this.#client);
    this.#client = await this.#options.connect();
    this.#reads = 0;
  }

  /** Moves the slot; it must be free of our own calls. */
  async advance(lsn: Lsn): Promise<void> {
    const { clock, slot, publication } = this.#options;
    this.#reads++;
    const sql = advanceSql(slot, lsn, this.#version, this.dialect.plugin, publication);
    await unlessBusy(clock, () => this.#client.query(sql));
    this.confirmed_lsn = lsn;
  }

  /** As `advance`, in a bounded time; whether it has been moved. */
  async advanceSoon(lsn: Lsn, wait_ms: number): Promise<boolean> {
    try {
      await this.#client.query(`SET statement_timeout = ${wait_ms}`);
      await this.advance(lsn);
      return true;
    } catch {
      // The connection may be gone, or the time over: what is confirmed is durable all the same, and the next window moves the slot first.
      return false;
    }
  }

  call(upto: Lsn, messages_max: number, news: () => void): PeekCall {
    const { clock, slot } = this.#options;
    this.#reads++;
    return this.#client.query(new PeekCall(peekSql(slot, upto, messages_max, this.#asked), () => clock.now(), news));
  }

  /** Ends the statement that is being run, from another connection; none once this one is closed, for its process may be another one by then. */
  async cancel(): Promise<void> {
    const { processID } = this.#client as unknown as { readonly processID: number | null };
    if (processID === null) return;
    const other = await this.#options.connect();
    try {
      if (!this.#closed) await other.query(CANCEL_SQL, [processID]);
    } finally {
      await closeClient(other);
    }
  }

  async close(): Promise<void> {
    this.#closed = true;
    await closeClient(this.#client);
  }

  fault(error: unknown): SluiceError {
    return thrownSlotFault(this.#options.slot, error, this.#version);
  }
}

/**
 * One connection to the target and its transactions: opened for one piece of work, closed with it, whatever happens in between.
 *
 * Under everything of `lib/load`. Values' text is pinned (I6) for each transaction alone (SET LOCAL), so that a pooler may hand the session to
 * somebody else afterwards. Every statement and wait is bounded on the server by its timeouts, and here by a limit a little longer (I8).
 */

import type { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import type { Client, QueryResult } from 'pg';
import { from as copyFrom } from 'pg-copy-streams';
import { asSluiceError, SluiceError } from '../errors.ts';
import { closeClient, pinSettingsSql } from '../postgres/connection.ts';
import { askAfterSilence, whileCopying } from '../postgres/silence.ts';
import { type CopiedColumn, targetFault } from './faults.ts';

/** Gives a connected client: `connectClient` with everything bound. */
export type Connect = () => Promise<Client>;

/** Limits of one transaction, in ms. */
export interface Limits {
  /** The longest that one statement may run, COPY and the reading of what it copies included. */
  readonly statement_ms: number;
  /** The longest wait for one lock, of a row or a table. */
  readonly lock_ms: number;
}

const STATEMENT_MS_MAX = 15 * 60_000;
/** A load waits for another of the same stream; the doorbell's next message would find the same. */
const LOCK_MS_MAX = 60_000;
/** An index on a very large table takes hours; the server goes on with it when the function that asked is gone. */
const KEY_BUILD_MS_MAX = 6 * 3_600_000;
/** Readers queue behind a waiting ACCESS EXCLUSIVE lock, so it must give up soon. */
const SWAP_LOCK_MS_MAX = 5_000;
/** A loader that died without a word lets go of its row after this. */
const IDLE_IN_TRANSACTION_MS_MAX = 5 * 60_000;
/** How long the server is silent before TCP asks whether a loader is there; three unanswered questions end its session. */
const KEEPALIVE_IDLE_S = 60;
/** What the answer to a statement may take on top of its own timeout before the connection counts as broken. */
const ANSWER_GRACE_MS = 30_000;
const ROLLBACK_MS_MAX = 5_000;

export const LOAD_LIMITS: Limits = { statement_ms: STATEMENT_MS_MAX, lock_ms: LOCK_MS_MAX };
export const KEY_LIMITS: Limits = { statement_ms: KEY_BUILD_MS_MAX, lock_ms: LOCK_MS_MAX };
export const SWAP_LIMITS: Limits = { statement_ms: STATEMENT_MS_MAX, lock_ms: SWAP_LOCK_MS_MAX };

/**
 * Settings of every transaction here, on top of the pinned ones:
 * - row_security off: a policy that would hide rows from the loader is an error, not a difference.
 * - synchronous_commit: the ledger is told what is applied, and believes it; so it is on the disk first. Only `off` is not taken: what else a role
 *   has chosen waits for its standbys.
 * - standard_conforming_strings, xmloption: what a literal and an xml value mean, whatever the role's defaults say (as pg_dump does).
 */
const LOAD_SETTINGS: Readonly<Record<string, string>> = {
  row_security: 'off',
  standard_conforming_strings: 'on',
  xmloption: 'content',
  client_min_messages: 'warning',
  idle_in_transaction_session_timeout: String(IDLE_IN_TRANSACTION_MS_MAX),
  tcp_keepalives_idle: String(KEEPALIVE_IDLE_S),
  tcp_keepalives_interval: '10',
  tcp_keepalives_count: '3',
};

const DURABLE_SQL = `SELECT set_config('synchronous_commit', 'on', true) WHERE current_setting('synchronous_commit') = 'off'`;

/** READ COMMITTED, so that a row that was waited for is read as it is when the lock is won. */
const BEGIN = 'BEGIN ISOLATION LEVEL READ COMMITTED';

/** Everything that is pinned, for one transaction. */
export function settingsSql(limits: Limits): string {
  const settings = {
    ...LOAD_SETTINGS,
    statement_timeout: String(limits.statement_ms),
    lock_timeout: String(limits.lock_ms),
  };
  return [
    pinSettingsSql('LOCAL'),
    ...Object.entries(settings).map(([name, value]) => `SET LOCAL ${name} = '${value}'`),
    DURABLE_SQL,
  ].join('; ');
}

/** For errors: whose work this is. */
export interface Subject {
  readonly stream: string;
  readonly table: string;
}

/** What a statement is for: completes "it may not …", with the SQL that gives the right. */
export interface Purpose {
  readonly action: string;
  readonly grant_sql?: string;
  readonly copied?: readonly CopiedColumn[];
}

export type Row = Readonly<Record<string, unknown>>;

export class Session {
  #client: Client;
  #subject: Subject;
  #open = false;
  #statement_ms = STATEMENT_MS_MAX;
  /** Given to every statement that names no purpose of its own. */
  #purpose: Purpose;

  constructor(client: Client, subject: Subject) {
    this.#client = client;
    this.#subject = subject;
    this.#purpose = { action: `write to ${subject.table}` };
  }

  get user(): string {
    return this.#client.user ?? '';
  }

  get database(): string {
    return this.#client.database ?? '';
  }

  /** The same connection and transaction for another subject, whom its errors name. Beginning and ending the transaction stays with this one. */
  as(subject: Subject): Session {
    const other = new Session(this.#client, subject);
    other.#statement_ms = this.#statement_ms;
    return other;
  }

  /** Begins a transaction; `sql` goes with it in the same trip, and its last result comes back. */
  async begin(limits: Limits, sql = '', purpose?: Purpose): Promise<QueryResult<Row>> {
    this.#open = true;
    this.#statement_ms = limits.statement_ms;
    return await this.run(`${BEGIN}; ${settingsSql(limits)}; ${sql}`, purpose);
  }

  /**
   * Statements in one trip that are a transaction by themselves: the server commits them when they are done, also where nobody is left to hear of it
   * (https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-MULTI-STATEMENT).
   */
  async runAlone(limits: Limits, sql: string, purpose?: Purpose): Promise<void> {
    this.#statement_ms = limits.statement_ms;
    await this.run(`${settingsSql(limits)}; ${sql}`, purpose);
  }

  /** Statements without parameters, in one trip; the last one's result. After an error nothing of the transaction can be used. */
  async run(sql: string, purpose?: Purpose): Promise<QueryResult<Row>> {
    return await this.#bounded(this.#statement_ms, purpose, async () => {
      // `pg` gives an array where the text has several statements; its types do not say so.
      const results: QueryResult<Row> | QueryResult<Row>[] = await this.#client.query(sql);
      const last = Array.isArray(results) ? results.at(-1) : results;
      if (last === undefined) throw new Error('no statement');
      return last;
    });
  }

  /** One statement with parameters. `R` is what its select list says. */
  async query<R extends Row = Row>(
    sql: string,
    values: readonly unknown[],
    purpose?: Purpose,
  ): Promise<QueryResult<R>> {
    return await this.#bounded(this.#statement_ms, purpose, () => this.#client.query<R>(sql, [...values]));
  }

  /**
   * `COPY … FROM STDIN` of what `source` brings, byte for byte; resolves with the number of rows when the server has all of them. Throws the
   * source's own error when that breaks; the server has given the COPY up then.
   */
  async copy(sql: string, source: Readable, purpose?: Purpose): Promise<number> {
    return await this.#bounded(this.#statement_ms, purpose, async () => {
      const sink = copyFrom(sql);
      let broken: 'source' | 'sink' | null = null;
      source.once('error', () => {
        broken ??= 'source';
      });
      // Stays: `pg-copy-streams` reports the server's answer to a COPY that was given up as one more error.
      sink.on('error', () => {
        broken ??= 'sink';
      });
      this.#client.query(sink);
      try {
        await whileCopying(this.#client, sink, () => pipeline(source, sink));
      } catch (error) {
        // Told apart here, because the network's errors look alike on both sides.
        throw (broken as 'source' | 'sink' | null) === 'sink' ? error : asSluiceError(error);
      }
      return sink.rowCount;
    });
  }

  /** Commits, after `sql` in the same trip. */
  async commit(sql = ''): Promise<void> {
    const { command } = await this.run(sql === '' ? 'COMMIT' : `${sql}; COMMIT`);
    this.#open = false;
    // The answer to the COMMIT of a transaction that had failed (https://www.postgresql.org/docs/current/sql-commit.html).
    if (command === 'ROLLBACK') {
      throw new SluiceError('UNEXPECTED', {
        reason: `a transaction for ${this.#subject.stream} had failed before its commit`,
      });
    }
  }

  /** Gives the transaction up. Never throws: on a connection that is broken the server does it by itself. */
  async rollback(): Promise<void> {
    if (!this.#open) return;
    this.#open = false;
    await this.#bounded(ROLLBACK_MS_MAX, undefined, () => this.#client.query('ROLLBACK')).catch(() => undefined);
  }

  /** Runs `work` in a transaction that `sql` begins. */
  async transaction<T>(limits: Limits, work: () => Promise<T>, sql = ''): Promise<T> {
    try {
      await this.begin(limits, sql);
      const result = await work();
      await this.commit();
      return result;
    } catch (error) {
      await this.rollback();
      throw error;
    }
  }

  /** An answer that does not come in time breaks the connection, and with it the statement. */
  async #bounded<T>(statement_ms: number, purpose: Purpose | undefined, work: () => Promise<T>): Promise<T> {
    const { host, port } = this.#client;
    const timer = setTimeout(() => {
      this.#client.connection.stream.destroy(Object.assign(new Error('no answer'), { code: 'ETIMEDOUT' }));
    }, statement_ms + ANSWER_GRACE_MS);
    try {
      return await work();
    } catch (error) {
      const server = { host, port, user: this.user, database: this.database };
      throw targetFault(error, { ...this.#subject, ...this.#purpose, ...purpose, server });
    } finally {
      clearTimeout(timer);
    }
  }
}

/** Runs `work` on a connection of its own, which is closed when it is done. */
export async function withSession<T>(
  connect: Connect,
  subject: Subject,
  work: (session: Session) => Promise<T>,
): Promise<T> {
  const client = await connect().catch((error: unknown) => {
    throw targetFault(error, { ...subject, action: 'connect', server: null });
  });
  // A connection that breaks while nobody waits for it fails the next statement.
  client.on('error', () => undefined);
  askAfterSilence(client, connect);
  try {
    return await work(new Session(client, subject));
  } finally {
    await closeClient(client);
  }
}

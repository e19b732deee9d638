/**
 * Reads one side of a comparison: thin, a statement a call. Each runs in a transaction of its own that pins what values are written by (I6), and locks
 * nothing but what every reader locks. Its snapshot is that of the statement.
 */
import type { Client } from 'pg';
import type { SluiceError } from '../errors.ts';
import type { Lsn } from '../lsn.ts';
import { closeClient } from '../postgres/connection.ts';
import { isServerError } from '../postgres/faults.ts';
import { readInsertLsn } from '../postgres/log-position.ts';
import { beginReadOnlySql } from '../postgres/read-only.ts';
import { type Connect, one, serverVersion } from '../postgres/session.ts';
import type { TableName } from '../shape.ts';
import { quoteTable } from '../sql-text.ts';
import { copiesSql, keysSql, type Side } from './checksum.ts';
import type { FoundColumn, FoundTable } from './compared.ts';
import type { DigestRow } from './differences.ts';
import type { Seen } from './verdict.ts';

/** $1 the table. A column of text is in plain order under "C" and "POSIX", be it its own collation or the database's. */
const COLUMNS_SQL = `
  SELECT a.attname::text AS name, a.atttypid::int8::float8 AS type_oid,
    CASE WHEN a.attcollation = 0 THEN true WHEN c.collname = 'default' THEN d.datcollate IN ('C', 'POSIX') AND %provider%
         ELSE c.collname IN ('C', 'POSIX') AND c.collnamespace = 'pg_catalog'::regnamespace END AS plain_order
  FROM pg_attribute a CROSS JOIN (SELECT * FROM pg_database WHERE datname = current_database()) AS d
  LEFT JOIN pg_collation c ON c.oid = a.attcollation
  WHERE a.attrelid = $1::regclass AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum`;
/** Databases may have another provider than libc, whose locale is not `datcollate`. */
const PROVIDERS_SINCE = 150_000;

const FETCH_ROWS = 2_000;
/** Keys that one statement asks for: more of them, and the server plans longer than it reads. */
const KEYS_A_STATEMENT = 500;

const BEGIN_SQL = beginReadOnlySql('READ COMMITTED');

/** What the catalog says of a table that is there. */
export async function findTable(client: Client, name: TableName): Promise<FoundTable> {
  const version = await serverVersion(client);
  const sql = COLUMNS_SQL.replace('%provider%', version >= PROVIDERS_SINCE ? "d.datlocprovider = 'c'" : 'true');
  const { rows: columns } = await client.query<FoundColumn>(sql, [quoteTable(name)]);
  const { rows } = await client.query<{ encoding: string }>("SELECT current_setting('server_encoding') AS encoding");
  return { version, encoding: one(rows).encoding, columns };
}

export interface Bucket {
  readonly bucket: number;
  readonly rows: string;
  readonly sum: string;
}

/** The answer of `bucketsSql`. */
export async function readBuckets(client: Client, sql: string): Promise<ReadonlyMap<number, Bucket>> {
  const { rows } = await client.query<Bucket>(sql);
  return new Map(rows.map((row) => [row.bucket, row]));
}

/** A failed read, as one of our errors. */
export class ReadFault extends Error {
  override readonly name = 'ReadFault';
  readonly error: SluiceError;
  /** The connection is gone: nothing more can be read by it. */
  readonly is_lost: boolean;

  constructor(error: SluiceError, is_lost: boolean) {
    super(error.message, { cause: error });
    this.error = error;
    this.is_lost = is_lost;
  }
}

/** Classes of SQLSTATEs after which the server ends the connection: connection exceptions, and an operator's intervention. */
const LOST = /^(?:08|57P)/;

/** One connection to one side. Throws ReadFault, with what `fault` makes of the server's error. */
export class Reader implements AsyncDisposable {
  readonly #client: Client;
  readonly #fault: (error: unknown) => SluiceError;

  private constructor(client: Client, fault: (error: unknown) => SluiceError) {
    this.#client = client;
    this.#fault = fault;
  }

  static async open(connect: Connect, fault: (error: unknown) => SluiceError): Promise<Reader> {
    const client = await connect();
    client.on('error', () => undefined); // A connection that breaks while nobody waits for it fails the next statement.
    return new Reader(client, fault);
  }

  async read<T>(work: (client: Client) => Promise<T>): Promise<T> {
    try {
      await this.#client.query(BEGIN_SQL);
      const result = await work(this.#client);
      await this.#client.query('COMMIT');
      return result;
    } catch (error) {
      await this.#client.query('ROLLBACK').catch(() => undefined); // The first error is the one to tell.
      throw this.#faultOf(error);
    }
  }

  async table(name: TableName): Promise<FoundTable> {
    return await this.read((client) => findTable(client, name));
  }

  async buckets(sql: string): Promise<ReadonlyMap<number, Bucket>> {
    return await this.read((client) => readBuckets(client, sql));
  }

  /** The rows of `digestsSql` as they are asked for; whoever stops asking ends it. Nothing else must be read meanwhile. */
  async *digests(sql: string): AsyncGenerator<DigestRow> {
    try {
      await this.#client.query(`${BEGIN_SQL}; DECLARE _sluice NO SCROLL CURSOR FOR ${sql}`);
      for (;;) {
        const { rows } = await this.#client.query<DigestRow>(`FETCH ${FETCH_ROWS} FROM _sluice`);
        yield* rows;
        if (rows.length < FETCH_ROWS) return;
      }
    } catch (error) {
      throw this.#faultOf(error);
    } finally {
      await this.#client.query('ROLLBACK').catch(() => undefined); // A connection that is gone has rolled back.
    }
  }

  /** Where a range ends (`rangeEndSql`); null: it is the last. */
  async rangeEnd(sql: string): Promise<readonly string[] | null> {
    const { rows } = await this.read((client) => client.query<{ _sluice_key: string }>(sql));
    const [row] = rows;
    return row === undefined ? null : (JSON.parse(row._sluice_key) as string[]);
  }

  /** Rows by their places; who is not there is not in it. `places`: of a table without a key. */
  async seen(side: Side, wanted: Wanted): Promise<Map<string, Seen>> {
    const found = new Map<string, Seen>();
    if ('places' in wanted) {
      if (wanted.places.length > 0) collect(found, await this.#rows(copiesSql(side, wanted.places)));
      return found;
    }
    const { columns, keys } = wanted;
    for (let i = 0; i < keys.length; i += KEYS_A_STATEMENT) {
      collect(found, await this.#ofKeys(side, columns, keys.slice(i, i + KEYS_A_STATEMENT)));
    }
    return found;
  }

  /** The position that lies past every commit that statements before this call have seen (I11). */
  async insertLsn(): Promise<Lsn> {
    return await this.read(readInsertLsn);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await closeClient(this.#client);
  }

  #faultOf(error: unknown): ReadFault {
    const is_lost = !isServerError(error) || LOST.test(error.code);
    return new ReadFault(this.#fault(error), is_lost);
  }

  async #rows(sql: string): Promise<SeenRow[]> {
    return await this.read(async (client) => (await client.query<SeenRow>(sql)).rows);
  }

  /** A key of the other side may be no value of this side's type (text that was put in by hand): then no row here has it. */
  async #ofKeys(side: Side, columns: readonly string[], keys: readonly (readonly string[])[]): Promise<SeenRow[]> {
    const sql = keysSql(side, { by: 'keys', columns, keys });
    let refused: unknown = null;
    const rows = await this.read(async (client) => {
      try {
        return (await client.query<SeenRow>(sql)).rows;
      } catch (error) {
        if (!isServerError(error) || !error.code.startsWith(DATA_EXCEPTION)) throw error;
        refused = error;
        await client.query('ROLLBACK');
        return [];
      }
    });
    if (refused === null || keys.length === 1) return rows;
    const middle = keys.length >> 1;
    return [
      ...(await this.#ofKeys(side, columns, keys.slice(0, middle))),
      ...(await this.#ofKeys(side, columns, keys.slice(middle))),
    ];
  }
}

/** Class of SQLSTATEs of values that are none of their type. */
const DATA_EXCEPTION = '22';

/** Which rows are looked at: by their keys (`columns`: the source's names), or by their digests. */
export type Wanted =
  | { readonly columns: readonly string[]; readonly keys: readonly (readonly string[])[] }
  | { readonly places: readonly string[] };

interface SeenRow {
  readonly place: string;
  readonly digest: string;
  readonly version?: string;
}

/** Two rows of one key, which a table without its key may have, are seen as one that has the digests of both. */
function collect(found: Map<string, Seen>, rows: readonly SeenRow[]): void {
  for (const { place, digest, version = '' } of rows) {
    const other = found.get(place);
    found.set(place, other ? joined(other, { digest, version }) : { digest, version });
  }
}

function joined(...both: readonly [Seen, Seen]): Seen {
  const [a, b] = both.toSorted((one, other) => (one.digest < other.digest ? -1 : 1)) as [Seen, Seen];
  return { digest: `${a.digest} ${b.digest}`, version: `${a.version} ${b.version}` };
}

/**
 * Contracts of the source (see ports.ts): what is asked of it by query, for a window and for the chunks of an epoch.
 */

import type { Readable } from 'node:stream';
import type { Lsn } from '../lsn.ts';
import type { Column, GeneratedColumn, SourceType, TableDescription, TableName } from '../shape.ts';
import type { ChunkRange } from './ledger.ts';
import type { SlotReader } from './slot.ts';

/** `pg_replication_slots` for our slot; null where the server's version does not have the column. */
export interface SlotRow {
  readonly plugin: string;
  readonly database: string;
  readonly active_pid: number | null;
  readonly active_application: string | null;
  readonly active_client: string | null;
  readonly confirmed_lsn: Lsn;
  /** 13+: reserved, extended, unreserved, lost. */
  readonly wal_status: string | null;
  /** 13+: bytes that can still be written before the slot is in danger of being lost; null: no limit. */
  readonly safe_wal_bytes: number | null;
  /** 17+: why the slot was invalidated. */
  readonly invalidation_reason: string | null;
}

/** What a window must know of the source before it reads. One look, taken at one time. */
export interface Ground {
  readonly version: number;
  readonly system_identifier: string;
  readonly timeline: number;
  readonly in_recovery: boolean;
  readonly wal_level: string;
  readonly encoding: string;
  readonly user: string;
  readonly may_replicate: boolean;
  readonly flush_lsn: Lsn;
  readonly slot: SlotRow | null;
}

export interface SourceTable extends TableName {
  readonly oid: number;
  /** pg_class.relkind: r ordinary, p partitioned, v view, m materialized view, f foreign. */
  readonly kind: string;
  /** pg_class.relpersistence: p permanent, u unlogged, t temporary. */
  readonly persistence: string;
  /** pg_class.relreplident: d default, n nothing, f full, i index. */
  readonly replica_identity: string;
  /** Columns in the order of attnum, without dropped ones and those that the log does not carry (generated ones). */
  readonly columns: readonly SourceColumn[];
  readonly generated?: readonly GeneratedColumn[];
  /** TableDescription.filenode. */
  readonly filenode?: string;
  readonly definition?: string;
  /** Shape.greatest. */
  readonly greatest?: number;
  /** Names of the key's columns: of the replica identity index where one is used, else of the primary key. Empty: no key. */
  readonly key: readonly string[];
  readonly may_select: boolean;
  /** Row-level security would filter what this role reads. */
  readonly row_security: boolean;
  /** Estimates from pg_class, for planning and progress; -1: never analysed. */
  readonly rows_estimate: number;
  readonly pages: number;
  /** Some value may lie outside its row (TOAST), so that an update may leave it out of the log (I7). Not given: it may. */
  readonly toasted?: boolean;
  /** 13+, of a partition: OIDs of the partitioned tables that it belongs to, nearest first. Absent: it is no partition. */
  readonly partition_of?: readonly number[];
  /** 13+, of a partitioned table: what is below it, at any depth, in the order of OIDs. Absent: of any other table, and where it cannot be folded (below 13). */
  readonly partitions?: readonly Partition[];
}

/** A partition: a table that holds rows, or one that is partitioned itself. */
export interface Partition {
  readonly oid: number;
  /** Changes when its rows were written anew or thrown away without a word in its root's log, and when it was taken out of the tree and put back. */
  readonly mark: string;
}

/** How tables are published at one moment, by `tableKey`: a text that changes whenever changes of the table may have been passed over. A table that is not there is not published. */
export type Published = ReadonlyMap<string, string>;

/** A table whose updates and deletes the source refuses, because of the publication that holds it; as sentences. */
export interface RefusedUpdates {
  readonly table: TableName;
  readonly problem: string;
  readonly remedy: string;
}

export interface SourceColumn extends Column {
  readonly not_null: boolean;
}

/** What the catalog says now of tables and types that the log names. */
export interface Described {
  readonly tables: ReadonlyMap<number, TableDescription>;
  /** By OID; of the types that were asked for, those that are not PostgreSQL's own. */
  readonly types: ReadonlyMap<number, SourceType>;
}

/** Rows of one table, by the text of their key. */
export interface SpecialNumbersQuery {
  /** Must be seen: transactions (xid) of the log, which has a commit a moment before others see it. */
  readonly transactions: readonly number[];
  /** OID. */
  readonly table: number;
  /** pg_attribute.attnum of each. */
  readonly key: readonly number[];
  readonly columns: readonly number[];
  readonly rows: readonly (readonly string[])[];
}

/** `row`: index into the query's rows. `values`: by column, NaN, Infinity or -Infinity; null: none of them. */
export interface SpecialNumbers {
  readonly row: number;
  readonly values: readonly (string | null)[];
}

/** A transaction that holds a write lock on a table: it may have written before the table was captured. */
export interface Writer {
  /** Its oldest xid: names the transaction as long as it lives, also when it is prepared, and when the server is started anew. */
  readonly transaction: string;
  readonly pid: number | null;
}

/** Queries on the source's primary. Each call is a transaction of its own. */
export interface Source {
  look(): Promise<Ground>;
  /** Every table, view and partition that the role can see outside the system's schemas, with what planning needs. */
  tables(): Promise<SourceTable[]>;
  /**
   * How each of the tables is published now. Throws PUBLICATION_INCOMPLETE where the publication holds one of them and leaves out some of its
   * changes: somebody has altered it.
   */
  published(tables: readonly SourceTable[]): Promise<Published>;
  /**
   * Makes the publication, or adds the tables and the settings that it lacks. PUBLICATION_NOT_ALLOWED carries the SQL for an owner to run.
   * `altered`: its settings were changed by this call, so that every table's text is another one, though none has been passed over.
   * `refused`: tables whose updates and deletes the source refuses, because of a publication that this call cannot mend.
   */
  publish(tables: readonly SourceTable[]): Promise<{
    readonly published: Published;
    readonly altered: boolean;
    readonly refused?: readonly RefusedUpdates[];
  }>;
  /** Of these partitions (OIDs), those that may have had rows before they became partitions: rows that their root's log does not have. */
  filledBefore(partitions: readonly number[]): Promise<number[]>;
  /** Makes the slot; its changes begin after the returned position. */
  createSlot(): Promise<Lsn>;
  /** Moves an unread slot to `lsn`; only while the chain has captured nothing. */
  advanceSlot(lsn: Lsn): Promise<void>;
  /** Transactions that hold a lock of ROW EXCLUSIVE or stronger on one of the tables now, prepared ones included (I11). */
  writers(tables: readonly SourceTable[]): Promise<Writer[]>;
  /** pg_current_wal_insert_lsn: past every commit that any snapshot taken before this call can see. */
  insertLsn(): Promise<Lsn>;
  /** Describes tables and types, by OID, in one look. One that is gone is not in the answer. */
  describe(tables: readonly number[], types: readonly number[]): Promise<Described>;
  /** Ends one backend of ours that outlived its window. */
  terminate(pid: number): Promise<void>;
  /**
   * Opens the slot for changes after `from`, of `tables` at least (left out: of all). `appends`: also by the publication of tables that are only
   * appended to, which was there at `from`. `session` ends the connection's application_name: by it a later window knows its own zombie.
   */
  openSlot(from: Lsn, session: string, appends: boolean, tables?: readonly TableName[]): Promise<SlotReader>;
  /** Which of these rows have NaN or an infinity now, in these columns (lib/decode/number-doubts.ts). Asked for with wal2json only. */
  specialNumbers?(query: SpecialNumbersQuery): Promise<readonly SpecialNumbers[]>;
}

export interface ChunkRead {
  /** The table as the chunk's own transaction sees it: what the lines are made of. */
  readonly table: SourceTable;
  /** COPY text lines of the chunk's rows, columns in the order of the shape. */
  readonly lines: Readable;
  /** After the lines have ended: rows read, and a position past every commit that the snapshot saw. */
  result(): Promise<{ readonly rows: number; readonly lsn: Lsn }>;
}

export interface Extractor {
  /** One table as it is now; null: there is none. */
  table(name: TableName): Promise<SourceTable | null>;
  version(): Promise<number>;
  /** Least and greatest value of an integer key, as text; null for an empty table. From the index, without a scan. */
  keyBounds(table: SourceTable, column: string): Promise<{ readonly min: string; readonly max: string } | null>;
  insertLsn(): Promise<Lsn>;
  /** Opens the chunk in a transaction of its own (repeatable read, read only). */
  readChunk(table: SourceTable, range: ChunkRange, where: string | null): Promise<ChunkRead>;
}

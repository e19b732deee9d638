/**
 * Contracts of the source (see ports.ts): what is asked of it by query, for a window and for the chunks of an epoch.
 */

import type { Readable } from 'node:stream';
import type { SluiceError } from '../errors.ts';
import type { Lsn } from '../lsn.ts';
import type { Projection } from '../projection/projection.ts';
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
  /** 13+: max_slot_wal_keep_size; null: no limit. */
  readonly wal_limit_bytes?: number | null;
  /** WAL that the server keeps for it: also what an old transaction holds back, and no reader ever gets. Null: it keeps none any more. */
  readonly kept_wal_bytes?: number | null;
  /** 17+: why the slot was invalidated. */
  readonly invalidation_reason: string | null;
  /** 17+: kept on standbys as well. */
  readonly failover?: boolean | null;
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
  /** Row filter that it is published with (15+): null none, whatever is there now; absent: nobody has a say in it. */
  readonly filter?: string | null;
  /** Its staged rows have the position of their commit as a column (source.debug_lsn; lib/lsn-column.ts). */
  readonly lsn?: boolean;
  /** Shape.hidden. */
  readonly hidden?: readonly number[];
  /** Names of the key's columns: of the replica identity index where one is used, else of the primary key. Empty: no key. */
  readonly key: readonly string[];
  /** Names of the primary key's columns, whatever identifies rows in the log. Not given: as `key`. */
  readonly primary_key?: readonly string[];
  /** Read by query alone, with these columns as its key; null: the primary key (lib/config/queryable.ts). Absent: followed by the log. */
  readonly by_query?: { readonly key_properties: readonly string[] | null };
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
  /** What stands for its values, where the file says so: they must not be seen, nor the bounds of ranges over them. The type is that of the mask. */
  readonly mask?: 'hash' | 'null' | 'redact';
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
  /** OIDs of those that it has locked, of the tables and partitions that were asked about. */
  readonly tables: readonly number[];
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
  /** Why the source cannot publish the filters of these tables (SourceTable.filter), by `tableKey`; those of which it can are not in the answer. */
  filterFaults?(tables: readonly SourceTable[]): Promise<ReadonlyMap<string, SluiceError>>;
  /** Of these partitions (OIDs), those that may have had rows before they became partitions: rows that their root's log does not have. */
  filledBefore(partitions: readonly number[]): Promise<number[]>;
  /** Makes the slot; its changes begin after the returned position. */
  createSlot(): Promise<Lsn>;
  /** Drops our slot if it is lost, and nobody reads it; one that works, or is gone already, is left alone. */
  dropLostSlot(): Promise<void>;
  /** Has a slot that nobody reads kept on standbys, or not (17+). */
  setFailover?(failover: boolean): Promise<void>;
  /** Where a former timeline ended, by the history of the one that is written `now`; null: it is not in it. Asked of a walsender: throws what opening one does. */
  timelineEnd?(timeline: number, now: number): Promise<Lsn | null>;
  /** Moves an unread slot to `lsn`; only while the chain has captured nothing. */
  advanceSlot(lsn: Lsn): Promise<void>;
  /** Transactions that hold a lock of ROW EXCLUSIVE or stronger on one of the tables now, prepared ones included (I11). */
  writers(tables: readonly SourceTable[]): Promise<Writer[]>;
  /** Past every commit that any snapshot taken before this call can see (lib/postgres/log-position.ts). */
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
  result(): Promise<{
    readonly rows: number;
    readonly lsn: Lsn;
    /** Keys of rows that were left out because they are not valid (lib/validation), some at least. */
    readonly left_out?: readonly { readonly columns: readonly string[]; readonly values: readonly string[] }[];
  }>;
}

/** How a table is measured and looked into before it is cut (lib/epoch/plan.ts). */
export interface SampleRequest {
  /** Columns that ranges are made of, in the order of the key; none: it is only measured. */
  readonly columns: readonly string[];
  /** What a chunk has at most of rows, and of bytes as the source stores them. */
  readonly chunk_rows: number;
  readonly chunk_bytes: number;
  readonly chunks_max: number;
  /** As ChunkRequest.filter: of rows that it leaves out no key is told. */
  readonly filter?: string | null;
  /** Not before that: as ChunkRequest.from_lsn. */
  readonly from_lsn: Lsn | null;
}

/** What a table holds now, by a look at a bounded number of its pages: no estimate of it depends on ANALYZE. */
export interface TableSample {
  /** server_version_num of the server that was asked. */
  readonly version: number;
  /** Where it was looked into, those that the filter lets through; -1: not known. */
  readonly rows: number;
  /** Of the table with what is stored beside it (TOAST), without indexes. */
  readonly bytes: number;
  readonly pages: number;
  /** How many chunks of that size there are; at least 1. */
  readonly chunks: number;
  /** Keys between which there is about one chunk of that size, ascending as the source compares them; fewer than `chunks`. */
  readonly edges: readonly (readonly string[])[];
  /** Of the rows' place by key with their place in the table, -1 to 1: near 0, a range of keys lies all over it. Null: not known. */
  readonly correlation: number | null;
}

/** Which rows of a chunk, as what snapshot. */
export interface ChunkRequest {
  /** The epoch's condition on rows (backfill). */
  readonly where: string | null;
  /** The stream's own, from the pipeline file; both must hold. */
  readonly filter?: string | null;
  /** Columns that the chunk has in their own form, or not at all (lib/projection/select.ts); hashes are made of its lines. */
  readonly projection?: Projection | null;
  /** The table is followed by the log: without a key, its snapshot must be known exactly. False: what is read is all there is (FULL_TABLE, INCREMENTAL). */
  readonly is_logged: boolean;
  /** A position of the primary: no earlier snapshot will do. Null: nobody knows one, and only the primary will do. */
  readonly from_lsn: Lsn | null;
}

/** INCREMENTAL: what one run is to read. */
export interface PagesRequest {
  readonly column: string;
  /** The bookmark: null, from the beginning. */
  readonly from: string | null;
  /** How far before it (lib/config/tables.ts). */
  readonly lookback: string | null;
  /** Rows of a page; null: only the greatest value is asked for. */
  readonly rows: number | null;
  readonly pages_max: number;
  /** As ChunkRequest.filter. */
  readonly filter?: string | null;
  /** As ChunkRequest.from_lsn. */
  readonly from_lsn: Lsn | null;
}

/** Values of the replication key as PostgreSQL's text. */
export interface Pages {
  /** Where the run begins, at this value; null: with the least. */
  readonly from: string | null;
  /** Last values of the pages, ascending, without that of the last page. */
  readonly ends: readonly string[];
  /** Last value of the run, of those that have an end; null: there are no such rows. */
  readonly to: string | null;
  /** There are rows without a value. */
  readonly nulls: boolean;
  /** There are rows with this value or a greater one, and no bookmark may come so far (`infinity`, `NaN`); null: there are none. */
  readonly endless: string | null;
}

export interface Extractor {
  /** One table as it is now; null: there is none. Asked of the primary. */
  table(name: TableName): Promise<SourceTable | null>;
  /** Of the primary, likewise. */
  insertLsn(): Promise<Lsn>;
  /** The same, and of a source that is a standby where it has replayed to: past what no log goes on from. */
  position(): Promise<Lsn>;
  /** The pages of a run, as the server shows them that chunks are read from. Throws REPLICATION_KEY. */
  pages(table: SourceTable, request: PagesRequest): Promise<Pages>;
  /** Throws as `readChunk`, and REPLICA_BEHIND where a replica is asked that has not come to `from_lsn`. */
  sample(table: SourceTable, request: SampleRequest): Promise<TableSample>;
  /** Opens the chunk in a transaction of its own (read only). */
  readChunk(table: SourceTable, range: ChunkRange, request: ChunkRequest): Promise<ChunkRead>;
}

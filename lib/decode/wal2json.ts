/**
 * wal2json, decoded: one message of the output plugin in, calls on a ChangeSink out, the same as pgoutput's messages make (decode/pgoutput.ts).
 * Format version 2, one object a change; the layout of a message is read by one of two readers (wal2json-v1.ts, wal2json-v2.ts).
 * https://github.com/eulerto/wal2json
 *
 * Values stay bytes where they arrived (I6, I7): names and values are found by a cursor, and escapes are undone in place. Where a message shows a table
 * otherwise than it was known, the catalog is asked first, and a Relation is made up. Throws DECODE_FAILED for what does not fit.
 */
import { type ChangeSink, type OldImage, Tuple, VALUE } from '../change.ts';
import { lsnOf } from '../lsn.ts';
import type { Piece } from '../piece.ts';
import type { SourceTable } from '../ports.ts';
import { tableKey } from '../shape.ts';
import { JsonBytes } from './json-bytes.ts';
import type { LogDecoder } from './log-decoder.ts';
import { compactGiantJson } from './wal2json-giant.ts';
import { Image } from './wal2json-image.ts';
import { KnownTable } from './wal2json-table.ts';

export type Wal2jsonAction = 'begin' | 'commit' | 'insert' | 'update' | 'delete' | 'truncate' | 'other';

/** How a format lays out its messages. */
export interface Wal2jsonReader {
  /** Old images have no column that is NULL. */
  readonly leavesOutNulls: boolean;
  /**
   * Reads the message that `json` stands at the beginning of. Of a change: calls `tableOf`, and, if it is followed, reads `row` and `old`. Of a begin and of
   * a commit: sets what it says of itself.
   */
  read(json: JsonBytes, message: Wal2jsonMessage): Wal2jsonAction;
  /** The image's columns, which had to be read, are those of the table: the next message with the same text is told by its bytes. */
  known(table: KnownTable, image: Image): void;
}

/** What a message says, filled by its reader. */
export interface Wal2jsonMessage {
  readonly row: Image;
  readonly old: Image;
  xid: number;
  committed_at_us: number;
  /** End of the commit record; and a position before it. */
  end_lsn: bigint;
  commit_lsn: bigint;
  /** Null: not followed; what follows need not be read. */
  tableOf(schema: string, table: string): KnownTable | null;
}

/** What a null of a number stands for, where the plugin does not say it (number-doubts.ts). */
export interface Doubts {
  /** So many rows are in doubt that they must be settled before more is decoded. */
  readonly isFull: boolean;
  /** False: a value that identifies the row is not known; the stream has been failed, and the change is to be passed over. */
  admits(table: KnownTable, unknown: readonly number[]): boolean;
  /** What follows is of this transaction. */
  begin(xid: number): void;
  /**
   * Before a row is told: these of its columns are in doubt, and no others any more. `old`: what identified it before, where the log says so. False: as
   * `admits`.
   */
  row(table: KnownTable, row: Tuple, unknown: readonly number[] | null, old: Tuple | null): boolean;
  /** Before the row of this key is deleted. */
  gone(table: KnownTable, old: Tuple): void;
  truncated(table: KnownTable): void;
  /** Before the sink's part is taken, and before any table is described otherwise: what is noted is noted by its description. */
  settle(sink: ChangeSink): Promise<void>;
}

export interface Wal2jsonOptions {
  /** The tables that are followed, as the catalog has them when the window begins. All others are passed over. */
  readonly tables: readonly SourceTable[];
  /** Asked when a message shows a table otherwise than it was known. */
  readonly catalog: () => Promise<readonly SourceTable[]>;
  readonly reader: Wal2jsonReader;
  /** Numbers are strings (the option numeric-data-types-as-string of 2.6): a null is NULL. */
  readonly numbers_as_text: boolean;
  readonly doubts: Doubts;
}

export class Wal2jsonDecoder implements LogDecoder {
  #sink: ChangeSink;
  #options: Wal2jsonOptions;
  #json = new JsonBytes();
  #tables: Map<string, KnownTable>;
  #message: Wal2jsonMessage;
  #table: KnownTable | null = null;
  #tupleOld = new Tuple();
  #tupleRow = new Tuple();
  #giants: readonly (readonly Piece[])[] = [];
  /** The message that waits for the catalog, and what was taken out of it. */
  #kept: { readonly bytes: Buffer; readonly giants: readonly (readonly Piece[])[] } | null = null;
  /** The catalog has been asked for this message: it is decoded by what there is. */
  #asked = false;

  constructor(sink: ChangeSink, options: Wal2jsonOptions) {
    this.#sink = sink;
    this.#options = options;
    this.#tables = new Map(options.tables.map((table) => [tableKey(table), new KnownTable(table)]));
    this.#message = {
      row: new Image(),
      old: new Image(),
      xid: 0,
      committed_at_us: 0,
      end_lsn: 0n,
      commit_lsn: 0n,
      tableOf: (schema, table) => {
        this.#table = this.#tables.get(tableKey({ schema, table })) ?? null;
        return this.#table;
      },
    };
  }

  get waits(): boolean {
    return this.#kept !== null || this.#options.doubts.isFull;
  }

  decode(bytes: Buffer, start: number, end: number): void {
    const message = this.#message;
    this.#json.over(bytes, start, end);
    this.#table = null;
    message.row.present = false;
    message.old.present = false;
    const action = this.#options.reader.read(this.#json, message);
    switch (action) {
      case 'begin':
        this.#options.doubts.begin(message.xid);
        return this.#sink.begin(message.xid, message.committed_at_us, lsnOf(message.commit_lsn));
      case 'commit':
        return this.#sink.commit(lsnOf(message.end_lsn));
      case 'other':
        return;
      default:
        if (this.#table && !this.#change(action, this.#table)) {
          this.#kept = { bytes: Buffer.from(bytes.subarray(start, end)), giants: this.#giants };
        }
    }
  }

  decodeGiant(pieces: readonly Piece[]): void {
    const { bytes, giants } = compactGiantJson(pieces);
    this.#decodeWith(bytes, giants);
  }

  async proceed(): Promise<void> {
    await this.settle();
    const kept = this.#kept;
    if (!kept) return;
    for (const table of await this.#options.catalog()) this.#tables.get(tableKey(table))?.learn(table);
    this.#kept = null;
    this.#asked = true;
    try {
      this.#decodeWith(kept.bytes, kept.giants);
    } finally {
      this.#asked = false;
    }
  }

  async settle(): Promise<void> {
    await this.#options.doubts.settle(this.#sink);
  }

  #decodeWith(bytes: Buffer, giants: readonly (readonly Piece[])[]): void {
    this.#giants = giants;
    try {
      this.decode(bytes, 0, bytes.length);
    } finally {
      this.#giants = [];
      this.#tupleOld.giants = null;
      this.#tupleRow.giants = null;
    }
  }

  /** False: the catalog must be asked first; nothing has been told. */
  #change(action: 'insert' | 'update' | 'delete' | 'truncate', table: KnownTable): boolean {
    const { row, old } = this.#message;
    if (row.present && !this.#takeColumns(table, action === 'insert')) return false;
    if (old.present && !this.#takeIdentity(table)) return false;
    if (!table.described) {
      this.#sink.relation(table.relation());
      table.described = true;
    }
    switch (action) {
      case 'insert':
        this.#insert(table);
        return true;
      case 'update':
        this.#update(table);
        return true;
      case 'delete':
        this.#delete(table);
        return true;
      case 'truncate':
        this.#options.doubts.truncated(table);
        this.#sink.truncate([table.id]);
        return true;
      default:
        return action satisfies never;
    }
  }

  #insert(table: KnownTable): void {
    const { doubts } = this.#options;
    const row = this.#tupleRow;
    const unknown = this.#fill(row, this.#message.row, table, VALUE.unchanged);
    if (unknown && !doubts.admits(table, unknown)) return;
    if (!doubts.row(table, row, unknown, null)) return;
    this.#sink.insert(table.id, row);
  }

  #update(table: KnownTable): void {
    const { doubts } = this.#options;
    const [row, old] = [this.#tupleRow, this.#tupleOld];
    const unknown = this.#fill(row, this.#message.row, table, VALUE.unchanged);
    if (unknown && !doubts.admits(table, unknown)) return;
    let oldImage: OldImage = 'none';
    if (this.#message.old.present) {
      const unknownOld = this.#fill(old, this.#message.old, table, VALUE.null);
      if (unknownOld && !doubts.admits(table, unknownOld)) return;
      // Without a change of key the identity is taken from the new row: that is no old image.
      if (table.isFull) oldImage = 'full';
      else if (!this.#sameIdentity(table)) oldImage = 'key';
    }
    if (!doubts.row(table, row, unknown, oldImage === 'none' ? null : old)) return;
    this.#sink.update(table.id, oldImage, old, row);
  }

  #delete(table: KnownTable): void {
    const { doubts } = this.#options;
    const old = this.#tupleOld;
    const unknown = this.#fill(old, this.#message.old, table, VALUE.null);
    if (unknown && !doubts.admits(table, unknown)) return;
    doubts.gone(table, old);
    this.#sink.delete(table.id, table.isFull ? 'full' : 'key', old);
  }

  #fill(tuple: Tuple, image: Image, table: KnownTable, missing: number): number[] | null {
    if (!image.present) throw this.#json.fault('a change without its row');
    return image.fill(tuple, table, this.#json.bytes, this.#giants, missing, this.#options.numbers_as_text);
  }

  /** The columns of the row are the table's. False: the catalog must be asked. */
  #takeColumns(table: KnownTable, whole: boolean): boolean {
    const { row } = this.#message;
    if ((row.seen !== null && !row.match(table)) || row.lacks(table, whole)) {
      if (!this.#asked) return false;
      row.seen ??= [...row.columns(table)];
      table.describe(row.seen, whole ? 'nothing' : 'left_out');
      if (!row.match(table)) throw this.#json.fault('columns that are not in the order of their positions');
    }
    table.show();
    if (row.seen !== null) this.#options.reader.known(table, row);
    return true;
  }

  /** The identity's columns are the table's key, or all. False: the catalog must be asked. */
  #takeIdentity(table: KnownTable): boolean {
    const { old } = this.#message;
    if (old.seen !== null && !old.match(table)) {
      if (!this.#asked) return false;
      // A deletion shows nothing but the key: what else the table has stays as it is known.
      table.describe(table.numbered(old.seen), 'others');
      if (!old.match(table)) throw this.#json.fault('an identity of columns that the row does not have');
    }
    const { leavesOutNulls } = this.#options.reader;
    if (!table.isIdentity(old.index, old.count, !leavesOutNulls)) {
      if (!this.#asked) return false;
      table.identify(
        old.columns(table).map(({ name }) => name),
        !leavesOutNulls,
      );
    }
    if (old.seen !== null) this.#options.reader.known(table, old);
    return true;
  }

  #sameIdentity(table: KnownTable): boolean {
    const [row, old] = [this.#tupleRow, this.#tupleOld];
    const { bytes } = row;
    for (let i = 0; i < this.#message.old.count; i++) {
      const place = table.places[this.#message.old.index[i] as number] as number;
      if (place < 0) continue;
      if (row.kind[place] !== old.kind[place] || row.giants?.has(place) || old.giants?.has(place)) return false;
      const [from, to] = [row.start[place] as number, row.end[place] as number];
      if (bytes.compare(bytes, old.start[place], old.end[place], from, to) !== 0) return false;
    }
    return true;
  }
}

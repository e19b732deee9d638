/**
 * pgoutput, decoded: one message of the output plugin in, one call on a ChangeSink out. Protocol version 1, and of version 2 what a server sends
 * without `streaming` (https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html).
 *
 * Nothing is copied and nothing becomes a string but the names in a Relation message. Every read is checked against the message's end: what does not fit
 * the format is DECODE_FAILED with the offset, never a guess (I6).
 */
import {
  type ChangeSink,
  type OldImage,
  type Relation,
  type RelationColumn,
  TUPLE_COLUMNS_MAX,
  Tuple,
  VALUE,
} from '../change.ts';
import { SluiceError } from '../errors.ts';
import { type Lsn, lsnOf } from '../lsn.ts';
import type { Piece } from '../piece.ts';
import { POSTGRES_EPOCH_MS } from '../slot/wire.ts';
import { compactGiant, GIANT_LENGTH } from './giant.ts';
import type { LogDecoder } from './log-decoder.ts';

const MESSAGE = {
  begin: 0x42, // B
  commit: 0x43, // C
  origin: 0x4f, // O
  relation: 0x52, // R
  type: 0x59, // Y
  insert: 0x49, // I
  update: 0x55, // U
  delete: 0x44, // D
  truncate: 0x54, // T
  message: 0x4d, // M
} as const;

const MESSAGE_NAMES: Readonly<Record<number, string>> = Object.fromEntries(
  Object.entries(MESSAGE).map(([name, letter]) => [letter, name]),
);

const IMAGE = { new: 0x4e /* N */, key: 0x4b /* K */, full: 0x4f /* O */ } as const;

export class PgoutputDecoder implements LogDecoder {
  #sink: ChangeSink;
  #old = new Tuple();
  #row = new Tuple();
  #bytes: Buffer = Buffer.alloc(0);
  #start = 0;
  #at = 0;
  #end = 0;
  /** Values that the compacted message leaves out, in its order; empty for an ordinary one. */
  #giants: (readonly Piece[])[] = [];

  constructor(sink: ChangeSink) {
    this.#sink = sink;
  }

  /** Decodes the message `bytes[start, end)`. Throws DECODE_FAILED. */
  decode(bytes: Buffer, start: number, end: number): void {
    this.#bytes = bytes;
    this.#start = start;
    this.#at = start;
    this.#end = end;
    const letter = this.#uint8();
    switch (letter) {
      case MESSAGE.insert:
        return this.#insert();
      case MESSAGE.update:
        return this.#update();
      case MESSAGE.delete:
        return this.#delete();
      case MESSAGE.begin:
        return this.#begin();
      case MESSAGE.commit:
        return this.#commit();
      case MESSAGE.relation:
        return this.#relation();
      case MESSAGE.truncate:
        return this.#truncate();
      case MESSAGE.type:
        // Names a type of the server's own making; the catalog is asked where it matters.
        this.#uint32();
        this.#text();
        this.#text();
        return this.#finish();
      case MESSAGE.origin:
        this.#lsn();
        this.#text();
        return this.#finish();
      case MESSAGE.message: {
        this.#uint8();
        this.#lsn();
        this.#text();
        this.#skip(this.#length());
        return this.#finish();
      }
      default:
        throw this.#fault(`unknown message type ${letter}`);
    }
  }

  /** Decodes a message that is held in pieces, without putting it together. Throws DECODE_FAILED. */
  decodeGiant(pieces: readonly Piece[]): void {
    const { bytes, giants } = compactGiant(pieces);
    this.#giants = giants;
    try {
      this.decode(bytes, 0, bytes.length);
    } finally {
      this.#giants = [];
      this.#old.giants = null;
      this.#row.giants = null;
    }
  }

  /** Its messages say everything. */
  readonly waits = false;

  async proceed(): Promise<void> {}

  async settle(): Promise<void> {}

  #begin(): void {
    const commit_lsn = this.#lsn(); // where its record begins
    const committed_at_us = this.#timestamp();
    const xid = this.#uint32();
    this.#finish();
    this.#sink.begin(xid, committed_at_us, commit_lsn);
  }

  #commit(): void {
    this.#uint8(); // flags, unused
    this.#lsn(); // of the commit record
    const end_lsn = this.#lsn();
    this.#timestamp();
    this.#finish();
    this.#sink.commit(end_lsn);
  }

  #relation(): void {
    const id = this.#uint32();
    const schema = this.#text() || 'pg_catalog'; // the manual: an empty namespace stands for pg_catalog
    const table = this.#text();
    const replica_identity = String.fromCharCode(this.#uint8());
    const count = this.#columnCount();
    const columns: RelationColumn[] = [];
    for (let i = 0; i < count; i++) {
      const flags = this.#uint8();
      const name = this.#text();
      const type_oid = this.#uint32();
      const type_modifier = this.#int32();
      columns.push({ name, type_oid, type_modifier, identity: (flags & 1) === 1 });
    }
    this.#finish();
    const relation: Relation = { id, schema, table, replica_identity, columns };
    this.#sink.relation(relation);
  }

  #insert(): void {
    const relation = this.#uint32();
    this.#expect(IMAGE.new);
    this.#tuple(this.#row);
    this.#finish();
    this.#sink.insert(relation, this.#row);
  }

  #update(): void {
    const relation = this.#uint32();
    let oldImage: OldImage = 'none';
    const image = this.#uint8();
    if (image === IMAGE.key || image === IMAGE.full) {
      oldImage = image === IMAGE.key ? 'key' : 'full';
      this.#tuple(this.#old);
      this.#expect(IMAGE.new);
    } else if (image !== IMAGE.new) {
      throw this.#fault(`an image of type ${image}`);
    }
    this.#tuple(this.#row);
    this.#finish();
    this.#sink.update(relation, oldImage, this.#old, this.#row);
  }

  #delete(): void {
    const relation = this.#uint32();
    const image = this.#uint8();
    if (image !== IMAGE.key && image !== IMAGE.full) throw this.#fault(`an image of type ${image}`);
    this.#tuple(this.#old);
    this.#finish();
    this.#sink.delete(relation, image === IMAGE.key ? 'key' : 'full', this.#old);
  }

  #truncate(): void {
    const count = this.#uint32();
    this.#uint8(); // 1 CASCADE, 2 RESTART IDENTITY: the tables that a cascade reached are listed, and identities stay with the source
    if (count * 4 !== this.#end - this.#at) throw this.#fault(`${count} relations in ${this.#end - this.#at} bytes`);
    const relations: number[] = [];
    for (let i = 0; i < count; i++) relations.push(this.#uint32());
    this.#sink.truncate(relations);
  }

  #tuple(tuple: Tuple): void {
    const bytes = this.#bytes;
    const count = this.#columnCount();
    tuple.bytes = bytes;
    tuple.count = count;
    let at = this.#at;
    const end = this.#end;
    for (let i = 0; i < count; i++) {
      if (at >= end) throw this.#fault('a column beyond the end', at);
      const kind = bytes[at++] as number;
      tuple.kind[i] = kind;
      if (kind === VALUE.text) {
        if (end - at < 4) throw this.#fault('a length beyond the end', at);
        const length =
          (((bytes[at] as number) << 24) |
            ((bytes[at + 1] as number) << 16) |
            ((bytes[at + 2] as number) << 8) |
            (bytes[at + 3] as number)) >>>
          0;
        at += 4;
        if (length === GIANT_LENGTH && this.#giants.length > 0) {
          tuple.giants ??= new Map();
          tuple.giants.set(i, this.#giants.shift() as readonly Piece[]);
          tuple.start[i] = at;
          tuple.end[i] = at;
          continue;
        }
        if (length > end - at) throw this.#fault(`a value of ${length} bytes beyond the end`, at);
        tuple.start[i] = at;
        at += length;
        tuple.end[i] = at;
      } else if (kind !== VALUE.null && kind !== VALUE.unchanged) {
        // 'b', binary, comes only where it was asked for.
        throw this.#fault(`a column of kind ${kind}`, at);
      }
    }
    this.#at = at;
  }

  #columnCount(): number {
    const at = this.#need(2);
    const count = this.#bytes.readInt16BE(at);
    if (count < 0 || count > TUPLE_COLUMNS_MAX) throw this.#fault(`${count} columns`);
    return count;
  }

  #expect(letter: number): void {
    const found = this.#uint8();
    if (found !== letter) throw this.#fault(`an image of type ${found}`);
  }

  #need(length: number): number {
    const at = this.#at;
    if (this.#end - at < length) throw this.#fault('the end');
    this.#at = at + length;
    return at;
  }

  #uint8(): number {
    return this.#bytes[this.#need(1)] as number;
  }

  #int32(): number {
    return this.#bytes.readInt32BE(this.#need(4));
  }

  #uint32(): number {
    return this.#bytes.readUInt32BE(this.#need(4));
  }

  #length(): number {
    const length = this.#uint32();
    if (length > this.#end - this.#at) throw this.#fault(`${length} bytes beyond the end`);
    return length;
  }

  #skip(length: number): void {
    this.#need(length);
  }

  #lsn(): Lsn {
    return lsnOf(this.#bytes.readBigUInt64BE(this.#need(8)));
  }

  /** Microseconds since PostgreSQL's epoch, as microseconds since Unix's: exact in a double until the year 2255. */
  #timestamp(): number {
    return Number(this.#bytes.readBigInt64BE(this.#need(8))) + POSTGRES_EPOCH_MS * 1000;
  }

  #text(): string {
    const stop = this.#bytes.indexOf(0, this.#at);
    if (stop < 0 || stop >= this.#end) throw this.#fault('a name without an end');
    const text = this.#bytes.toString('utf8', this.#at, stop);
    this.#at = stop + 1;
    return text;
  }

  #finish(): void {
    if (this.#at !== this.#end) throw this.#fault(`${this.#end - this.#at} bytes too many`);
  }

  #fault(reason: string, at = this.#at): SluiceError {
    const letter = this.#bytes[this.#start] ?? 0;
    const message = this.#end > this.#start ? (MESSAGE_NAMES[letter] ?? 'foreign') : 'empty';
    return new SluiceError('DECODE_FAILED', { offset: at - this.#start, message, reason });
  }
}

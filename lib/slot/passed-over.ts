/**
 * What of a call's messages is new (peek-reader.ts): a call begins where the slot stands, so that it may have what was handed over before. That is passed over,
 * transaction by transaction (I3), as the server itself passes over what ended before the position it is asked for.
 *
 * pgoutput describes a table once a call, before its first change. Where that change is passed over, the description is kept, and handed over before the first
 * change that is not: nobody can tell then that anything was passed over.
 * https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html
 */
import { type Lsn, lsnMax, parseLsn } from '../lsn.ts';
import type { SlotDialect } from '../ports.ts';
import { readLsn } from './wire.ts';

/** Of a message that is handed over: what must be handed over before it; almost always nothing. */
const NOTHING: readonly Buffer[] = [];

export interface PassedOver {
  /** Everything up to here has been seen: the end of the last commit, or where the calls began. */
  readonly position: Lsn;
  /** A call begins: everything up to `position` in it is old. */
  begin(position: Lsn): void;
  /**
   * For each message, in order. Null: it is passed over; else what comes before it. `head`: its first bytes, HEAD_BYTES_MIN at least where it has so many.
   */
  take(head: Buffer, start: number, end: number): readonly Buffer[] | null;
}

/** Of a giant's pieces, so much must be put together to know what it is. */
export const HEAD_BYTES_MIN = 256;

export function passedOver({ plugin }: SlotDialect, from: Lsn): PassedOver {
  return plugin === 'pgoutput' ? new PassedPgoutput(from) : new PassedWal2json(from);
}

const TYPE = { begin: 0x42, commit: 0x43, relation: 0x52, type: 0x59, truncate: 0x54 } as const; // B C R Y T
/** Insert, Update, Delete: the relation stands behind the letter. */
const CHANGES = new Set([0x49, 0x55, 0x44]);
const COMMIT_BYTES = 1 + 1 + 8 + 8;

class PassedPgoutput implements PassedOver {
  position: Lsn;
  #old: Lsn;
  #passing = false;
  /** Type messages, which stand before the Relation that they are for. */
  #types: Buffer[] = [];
  /** The newest Relation of each table, with its types, that has been passed over in this call. */
  #kept = new Map<number, readonly Buffer[]>();

  constructor(from: Lsn) {
    this.position = from;
    this.#old = from;
  }

  begin(position: Lsn): void {
    this.#old = position;
    this.position = position;
    this.#passing = false;
    this.#types = [];
    this.#kept.clear();
  }

  take(head: Buffer, start: number, end: number): readonly Buffer[] | null {
    const type = head[start];
    if (type === TYPE.begin) {
      // Where the commit's record begins: the server, too, passes over those that begin before the position.
      this.#passing = readLsn(head, start + 1) < this.#old;
      return this.#passing ? null : NOTHING;
    }
    if (this.#passing) {
      if (type === TYPE.type) this.#types.push(Buffer.from(head.subarray(start, end)));
      if (type === TYPE.relation) this.#keep(Buffer.from(head.subarray(start, end)));
      return null;
    }
    if (type === TYPE.commit && end - start >= COMMIT_BYTES) {
      this.position = lsnMax(this.position, readLsn(head, start + 1 + 1 + 8));
      return NOTHING;
    }
    if (this.#kept.size === 0) return NOTHING;
    if (type === TYPE.relation) this.#kept.delete(head.readUInt32BE(start + 1));
    if (type !== undefined && CHANGES.has(type)) return this.#keptOf([head.readUInt32BE(start + 1)]);
    if (type === TYPE.truncate) return this.#keptOf(truncated(head, start));
    return NOTHING;
  }

  #keep(relation: Buffer): void {
    this.#kept.set(relation.readUInt32BE(1), [...this.#types, relation]);
    this.#types = [];
  }

  #keptOf(relations: readonly number[]): readonly Buffer[] {
    const found = relations.flatMap((id) => this.#kept.get(id) ?? []);
    for (const id of relations) this.#kept.delete(id);
    return found;
  }
}

/** Truncate: number of relations, options, and their ids. */
function truncated(bytes: Buffer, start: number): number[] {
  const count = bytes.readUInt32BE(start + 1);
  return Array.from({ length: count }, (_, i) => bytes.readUInt32BE(start + 1 + 4 + 1 + 4 * i));
}

/** Format 1: the first message of a transaction is `{"xid":…`; format 2: `{"action":"B"…`. No other begins so. */
const BEGIN_1 = Buffer.from('{"xid":');
const BEGIN_2 = Buffer.from('{"action":"B"');
/** Where the record of its commit ends. */
const END = /"nextlsn":"([0-9A-F]+\/[0-9A-F]+)"/;

class PassedWal2json implements PassedOver {
  position: Lsn;
  #old: Lsn;
  #passing = false;

  constructor(from: Lsn) {
    this.position = from;
    this.#old = from;
  }

  begin(position: Lsn): void {
    this.#old = position;
    this.position = position;
    this.#passing = false;
  }

  take(head: Buffer, start: number, end: number): readonly Buffer[] | null {
    if (beginsWith(head, start, end, BEGIN_2) || beginsWith(head, start, end, BEGIN_1)) {
      const [, text] = END.exec(head.toString('latin1', start, end)) ?? [];
      if (text === undefined) throw new RangeError('a transaction without the end of its commit');
      const ends = parseLsn(text);
      this.#passing = ends <= this.#old;
      this.position = lsnMax(this.position, ends);
    }
    return this.#passing ? null : NOTHING;
  }
}

function beginsWith(bytes: Buffer, start: number, end: number, text: Buffer): boolean {
  return end - start >= text.length && text.compare(bytes, start, start + text.length) === 0;
}

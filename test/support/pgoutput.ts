/**
 * Messages of pgoutput as a server writes them, and the frames of a replication connection around them.
 *
 * Written from the manual, not from the decoder (https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html,
 * https://www.postgresql.org/docs/current/protocol-replication.html), so that the two can disagree.
 */
import { type ChangeSink, type Relation, Tuple } from '../../lib/change.ts';
import { joined } from '../../lib/piece.ts';

/** Stands for a TOASTed value that was not written again. */
export const UNCHANGED = Symbol('unchanged');
/** A column of a tuple: text (as a string or as its bytes), NULL, or unchanged. */
export type Field = string | Buffer | null | typeof UNCHANGED;
export type Row = readonly Field[];

const POSTGRES_EPOCH_US = BigInt(Date.UTC(2000, 0, 1)) * 1000n;

const letter = (text: string): Buffer => Buffer.from(text, 'latin1');
const name = (text: string): Buffer => Buffer.from(`${text}\0`);

export function uint8(value: number): Buffer {
  return Buffer.from([value]);
}

export function int16(value: number): Buffer {
  const bytes = Buffer.alloc(2);
  bytes.writeInt16BE(value);
  return bytes;
}

export function int32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeInt32BE(value);
  return bytes;
}

export function uint32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}

export function uint64(value: bigint): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64BE(value);
  return bytes;
}

/** Microseconds since the Unix epoch, as the server writes them. */
export function timestamp(at_us: bigint): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigInt64BE(at_us - POSTGRES_EPOCH_US);
  return bytes;
}

export function begin(xid = 1, committed_at_us = 0n, commit_lsn = 0n): Buffer {
  return Buffer.concat([letter('B'), uint64(commit_lsn), timestamp(committed_at_us), uint32(xid)]);
}

/** `end_lsn` is past the commit record. */
export function commit(end_lsn: bigint, committed_at_us = 0n, commit_lsn = 0n): Buffer {
  return Buffer.concat([letter('C'), uint8(0), uint64(commit_lsn), uint64(end_lsn), timestamp(committed_at_us)]);
}

export interface RelationOf {
  readonly id: number;
  readonly schema?: string;
  readonly table?: string;
  /** pg_class.relreplident. */
  readonly identity?: 'd' | 'n' | 'f' | 'i';
  readonly columns: readonly {
    readonly name: string;
    readonly key?: boolean;
    readonly type_oid?: number;
    readonly type_modifier?: number;
  }[];
}

export function relation({ id, schema = 'public', table = 't', identity = 'd', columns }: RelationOf): Buffer {
  return Buffer.concat([
    letter('R'),
    uint32(id),
    name(schema),
    name(table),
    letter(identity),
    int16(columns.length),
    ...columns.flatMap((column) => [
      uint8(column.key || identity === 'f' ? 1 : 0),
      name(column.name),
      uint32(column.type_oid ?? 25),
      int32(column.type_modifier ?? -1),
    ]),
  ]);
}

export function tuple(row: Row): Buffer {
  return Buffer.concat([
    int16(row.length),
    ...row.flatMap((field) => {
      if (field === null) return [letter('n')];
      if (field === UNCHANGED) return [letter('u')];
      const bytes = Buffer.from(field);
      return [letter('t'), uint32(bytes.length), bytes];
    }),
  ]);
}

export function insert(relationId: number, row: Row): Buffer {
  return Buffer.concat([letter('I'), uint32(relationId), letter('N'), tuple(row)]);
}

/** What an update or a delete tells of the old row: its key, or all of it. */
export type Old = { readonly key: Row } | { readonly full: Row };

function image(old: Old): Buffer[] {
  return 'key' in old ? [letter('K'), tuple(old.key)] : [letter('O'), tuple(old.full)];
}

export function update(relationId: number, row: Row, old?: Old): Buffer {
  return Buffer.concat([
    letter('U'),
    uint32(relationId),
    ...(old === undefined ? [] : image(old)),
    letter('N'),
    tuple(row),
  ]);
}

export function del(relationId: number, old: Old): Buffer {
  return Buffer.concat([letter('D'), uint32(relationId), ...image(old)]);
}

/** `options`: 1 CASCADE, 2 RESTART IDENTITY. */
export function truncate(relationIds: readonly number[], options = 0): Buffer {
  return Buffer.concat([letter('T'), uint32(relationIds.length), uint8(options), ...relationIds.map(uint32)]);
}

export function origin(lsn: bigint, text: string): Buffer {
  return Buffer.concat([letter('O'), uint64(lsn), name(text)]);
}

export function type(oid: number, schema: string, text: string): Buffer {
  return Buffer.concat([letter('Y'), uint32(oid), name(schema), name(text)]);
}

/** pg_logical_emit_message. */
export function message(prefix: string, content: Buffer, transactional = true, lsn = 0n): Buffer {
  return Buffer.concat([
    letter('M'),
    uint8(transactional ? 1 : 0),
    uint64(lsn),
    name(prefix),
    uint32(content.length),
    content,
  ]);
}

/** Any message of the protocol: type byte, length that counts itself, payload. */
export function frame(kind: string, payload: Buffer): Buffer {
  return Buffer.concat([letter(kind), uint32(payload.length + 4), payload]);
}

/** CopyData with XLogData around a message of the plugin. */
export function xlogData(payload: Buffer, walStart = 0n, walEnd = 0n, sent_at_us = 0n): Buffer {
  return frame('d', Buffer.concat([letter('w'), uint64(walStart), uint64(walEnd), timestamp(sent_at_us), payload]));
}

/** CopyData with a primary keepalive message. */
export function keepalive(walEnd: bigint, reply = false, sent_at_us = 0n): Buffer {
  return frame('d', Buffer.concat([letter('k'), uint64(walEnd), timestamp(sent_at_us), uint8(reply ? 1 : 0)]));
}

/** Tuples over one buffer, as the decoder hands them over: the images of one message share its bytes. */
export function tuplesOf(...rows: readonly Row[]): Tuple[] {
  const bytes = Buffer.concat(rows.flat().map((field) => Buffer.from(isText(field) ? field : '')));
  let at = 0;
  return rows.map((row) => {
    const made = new Tuple();
    made.bytes = bytes;
    made.count = row.length;
    for (const [i, field] of row.entries()) {
      made.kind[i] = (field === null ? 'n' : field === UNCHANGED ? 'u' : 't').charCodeAt(0);
      made.start[i] = at;
      at += isText(field) ? Buffer.byteLength(field) : 0;
      made.end[i] = at;
    }
    return made;
  });
}

export function tupleOf(row: Row): Tuple {
  return tuplesOf(row)[0] as Tuple;
}

function isText(field: Field): field is string | Buffer {
  return field !== null && field !== UNCHANGED;
}

/** The columns of a tuple, copied: `t:` and the bytes in hex, `n`, `u`; giants as their pieces joined. */
export function readTuple(from: Tuple): string[] {
  return Array.from({ length: from.count }, (_, i) => {
    const kind = String.fromCharCode(from.kind[i] ?? 0);
    if (kind !== 't') return kind;
    const giant = from.giants?.get(i);
    return `t:${giant ? joined(giant).toString('hex') : from.bytes.toString('hex', from.start[i], from.end[i])}`;
  });
}

/** What `readTuple` says of a row. */
export function expectedTuple(row: Row): string[] {
  return row.map((field) =>
    field === null ? 'n' : field === UNCHANGED ? 'u' : `t:${Buffer.from(field).toString('hex')}`,
  );
}

export type Call =
  | { readonly call: 'begin'; readonly xid: number; readonly committed_at_us: number }
  | { readonly call: 'commit'; readonly end_lsn: bigint }
  | { readonly call: 'relation'; readonly relation: Relation }
  | { readonly call: 'insert'; readonly id: number; readonly row: readonly string[] }
  | {
      readonly call: 'update';
      readonly id: number;
      readonly old: readonly string[] | null;
      readonly image: string;
      readonly row: readonly string[];
    }
  | { readonly call: 'delete'; readonly id: number; readonly old: readonly string[]; readonly image: string }
  | { readonly call: 'truncate'; readonly ids: readonly number[] };

/** A ChangeSink that keeps what it was called with. */
export function recorder(): { readonly calls: Call[]; readonly sink: ChangeSink } {
  const calls: Call[] = [];
  const sink: ChangeSink = {
    begin: (xid, committed_at_us) => void calls.push({ call: 'begin', xid, committed_at_us }),
    commit: (end_lsn) => void calls.push({ call: 'commit', end_lsn }),
    relation: (described) => void calls.push({ call: 'relation', relation: described }),
    insert: (id, row) => void calls.push({ call: 'insert', id, row: readTuple(row) }),
    update: (id, image, old, row) =>
      void calls.push({
        call: 'update',
        id,
        image,
        old: image === 'none' ? null : readTuple(old),
        row: readTuple(row),
      }),
    delete: (id, image, old) => void calls.push({ call: 'delete', id, image, old: readTuple(old) }),
    truncate: (ids) => void calls.push({ call: 'truncate', ids: [...ids] }),
  };
  return { calls, sink };
}

/**
 * Format version 1 of wal2json, in chunks: a transaction is one object, which comes in many messages,
 *
 *     {"xid":5,"nextlsn":"0/2","timestamp":"…","change":[
 *     {"kind":"update","schema":"s","table":"t","columnnames":[…],"columntypes":[…],"columntypeoids":[…],"columnpositions":[…],"columnvalues":[…],
 *      "oldkeys":{"keynames":[…],"keytypes":[…],"keytypeoids":[…],"keyvalues":[…]}}          (each but the first after a comma)
 *     ]}
 *
 * It has no TRUNCATE at all, and leaves NULLs out of old keys. What stands before the values is the same from row to row: it is compared, and not
 * read again. Only a plugin of before 2.0 is asked for it.
 */
import { lsnOf, parseLsn } from '../lsn.ts';
import type { JsonBytes } from './json-bytes.ts';
import type { Wal2jsonAction, Wal2jsonMessage, Wal2jsonReader } from './wal2json.ts';
import type { Image } from './wal2json-image.ts';
import { modifierOf } from './wal2json-modifier.ts';
import type { KnownTable, SeenColumn } from './wal2json-table.ts';
import { commitTime } from './wal2json-time.ts';

const KINDS: Readonly<Record<string, Wal2jsonAction>> = {
  insert: 'insert',
  update: 'update',
  delete: 'delete',
  truncate: 'truncate',
  message: 'other',
};
const VALUES = { row: Buffer.from('"columnvalues":['), old: Buffer.from('"keyvalues":[') } as const;
const TYPE_OIDS = { row: Buffer.from(',"columntypeoids":'), old: Buffer.from(',"keytypeoids":') } as const;

/** The text before an image's values, and the columns that it names, by their index. */
interface Header {
  readonly version: number;
  readonly text: Buffer;
  readonly index: Int32Array;
}

export class Wal2jsonV1 implements Wal2jsonReader {
  readonly leavesOutNulls = true;
  #headers = { row: new Map<KnownTable, Header>(), old: new Map<KnownTable, Header>() };
  /** Headers that had to be read, by the image they are of. */
  #read = new Map<Image, { readonly which: 'row' | 'old'; readonly text: Buffer }>();

  read(json: JsonBytes, message: Wal2jsonMessage): Wal2jsonAction {
    json.take(0x2c);
    if (json.take(0x5d)) {
      json.expect(0x7d);
      json.finish();
      return 'commit';
    }
    json.expect(0x7b);
    let action: Wal2jsonAction = 'begin';
    let schema = '';
    let table: KnownTable | null = null;
    for (;;) {
      const start = json.at;
      const key = json.name();
      json.expect(0x3a);
      switch (key) {
        case 'xid':
          message.xid = json.integer();
          break;
        case 'nextlsn':
          message.end_lsn = parseLsn(json.name());
          message.commit_lsn = lsnOf(message.end_lsn - 1n);
          break;
        case 'timestamp':
          message.committed_at_us = commitTime(json);
          break;
        case 'change':
          // A message outside of a transaction is an object of its own, which ends here; a transaction goes on.
          json.expect(0x5b);
          return json.at === json.end ? action : 'other';
        case 'kind':
          action = KINDS[json.name()] ?? 'other';
          if (action === 'other') return action;
          break;
        case 'schema':
          schema = json.name();
          break;
        case 'table':
          table = message.tableOf(schema, json.name());
          if (!table) return action;
          break;
        case 'columnnames':
          json.at = start;
          if (table) this.#image(json, message.row, table, 'row');
          break;
        case 'oldkeys':
          json.expect(0x7b);
          if (table) this.#image(json, message.old, table, 'old');
          json.expect(0x7d);
          break;
        default:
          json.skip();
      }
      if (!json.take(0x2c)) break;
    }
    json.expect(0x7d);
    json.finish();
    return action;
  }

  known(table: KnownTable, image: Image): void {
    const read = this.#read.get(image);
    if (!read) return;
    const index = image.index.slice(0, image.count);
    this.#headers[read.which].set(table, { version: table.version, text: read.text, index });
  }

  #image(json: JsonBytes, image: Image, table: KnownTable, which: 'row' | 'old'): void {
    const header = this.#headers[which].get(table);
    image.present = true;
    image.count = 0;
    if (header?.version === table.version && json.takeText(header.text)) {
      image.seen = null;
      this.#values(json, image, header.index);
    } else {
      const start = json.at;
      const seen = this.#columns(json, which);
      const text = Buffer.from(json.bytes.subarray(start, json.at));
      this.#values(json, image, null);
      image.seen = seen;
      this.#read.set(image, { which, text });
      if (seen.length !== image.count) throw json.fault(`${image.count} values of ${seen.length} columns`);
    }
  }

  /** Null: no column's index is known. */
  #values(json: JsonBytes, image: Image, index: Int32Array | null): void {
    if (json.take(0x5d)) return;
    do {
      json.scalar();
      image.put(index?.[image.count] ?? -1, json);
    } while (json.take(0x2c));
    json.expect(0x5d);
    if (index && index.length !== image.count) throw json.fault(`${image.count} values of ${index.length} columns`);
  }

  #columns(json: JsonBytes, which: 'row' | 'old'): SeenColumn[] {
    json.name();
    json.expect(0x3a);
    const names = listOf(json, () => json.name());
    json.expect(0x2c);
    json.name();
    json.expect(0x3a);
    const from = json.at;
    json.skipTo(TYPE_OIDS[which]);
    const types = typesOf(json.bytes.toString('utf8', from + 1, json.at - 1));
    json.expectText(TYPE_OIDS[which]);
    const oids = listOf(json, () => json.integer() >>> 0);
    json.expect(0x2c);
    let numbers: number[] = [];
    if (which === 'row') {
      json.name();
      json.expect(0x3a);
      numbers = listOf(json, () => json.integer());
      json.expect(0x2c);
    }
    json.expectText(VALUES[which]);
    return names.map((name, i) => {
      const type_oid = oids[i] ?? 0;
      const type = types.length === names.length ? (types[i] ?? null) : null;
      const type_modifier = type === null ? null : modifierOf(type_oid, type);
      return { name, type_oid, type_modifier, number: numbers[i] ?? null };
    });
  }
}

function listOf<T>(json: JsonBytes, read: () => T): T[] {
  const list: T[] = [];
  json.expect(0x5b);
  if (json.take(0x5d)) return list;
  do list.push(read());
  while (json.take(0x2c));
  json.expect(0x5d);
  return list;
}

/** Texts of types, cut at the commas between quotes. They are not always JSON, and may come out as more or fewer than there are: then none is used. */
function typesOf(text: string): string[] {
  return text.match(/(?:"(?:[^"\\]|\\.)*"|[^",])+/gs) ?? [];
}

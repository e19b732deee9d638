/**
 * Format version 2 of wal2json: one object a change,
 *
 *     {"action":"B","xid":5,"timestamp":"…","lsn":"0/1","nextlsn":"0/2"}
 *     {"action":"U",…,"schema":"s","table":"t","columns":[{"name":"a","type":"integer","typeoid":23,"value":1,"position":1},…],"identity":[…]}
 *
 * The text before a value is the same from row to row: it is compared, and not read again. The text of a type is not always JSON: a name that
 * format_type quotes is printed raw. No raw and no escaped text holds `,"typeoid":`, so it is passed over up to there.
 */
import { parseLsn } from '../lsn.ts';
import type { JsonBytes } from './json-bytes.ts';
import type { Wal2jsonAction, Wal2jsonMessage, Wal2jsonReader } from './wal2json.ts';
import type { Image } from './wal2json-image.ts';
import { modifierOf } from './wal2json-modifier.ts';
import type { KnownTable, SeenColumn } from './wal2json-table.ts';
import { commitTime } from './wal2json-time.ts';

const ACTIONS: Readonly<Record<string, Wal2jsonAction>> = {
  B: 'begin',
  C: 'commit',
  I: 'insert',
  U: 'update',
  D: 'delete',
  T: 'truncate',
  M: 'other',
};
const NAME = Buffer.from('{"name":');
const TYPE = Buffer.from(',"type":');
const TYPE_OID = Buffer.from(',"typeoid":');
const VALUE = Buffer.from(',"value":');
const POSITION = Buffer.from(',"position":');

/** Of each column: the text from its brace to its value, and the text after it in a row. */
interface Texts {
  readonly version: number;
  readonly heads: (Buffer | undefined)[];
  readonly tails: Buffer[];
}

export class Wal2jsonV2 implements Wal2jsonReader {
  readonly leavesOutNulls = false;
  #texts = new Map<KnownTable, Texts>();
  /** Heads of the columns of the image that was read last, where they had to be read. */
  #heads = new Map<Image, Buffer[]>();

  read(json: JsonBytes, message: Wal2jsonMessage): Wal2jsonAction {
    let action: Wal2jsonAction = 'other';
    let schema = '';
    let table: KnownTable | null = null;
    json.expect(0x7b);
    do {
      const key = json.name();
      json.expect(0x3a);
      switch (key) {
        case 'action': {
          const letter = json.name();
          const found = ACTIONS[letter];
          if (!found) throw json.fault(`unknown action ${letter}`);
          if (found === 'other') return found;
          action = found;
          break;
        }
        case 'xid':
          message.xid = json.integer();
          break;
        case 'timestamp':
          if (action === 'begin') message.committed_at_us = commitTime(json);
          else json.skip();
          break;
        case 'lsn':
          if (action === 'begin') message.commit_lsn = parseLsn(json.name());
          else json.skip();
          break;
        case 'nextlsn':
          message.end_lsn = parseLsn(json.name());
          break;
        case 'schema':
          schema = json.name();
          break;
        case 'table':
          table = message.tableOf(schema, json.name());
          if (!table) return action;
          break;
        case 'columns':
          if (table) this.#image(json, message.row, table, true);
          break;
        case 'identity':
          if (table) this.#image(json, message.old, table, false);
          break;
        default:
          json.skip();
      }
    } while (json.take(0x2c));
    json.expect(0x7d);
    json.finish();
    return action;
  }

  known(table: KnownTable, image: Image): void {
    const { heads } = this.#textsOf(table);
    for (const [i, head] of (this.#heads.get(image) ?? []).entries()) heads[image.index[i] as number] = head;
  }

  #textsOf(table: KnownTable): Texts {
    const known = this.#texts.get(table);
    if (known?.version === table.version) return known;
    const tails = table.columns.map(({ number }) => Buffer.from(`,"position":${number}}`));
    const texts = { version: table.version, heads: [], tails };
    this.#texts.set(table, texts);
    return texts;
  }

  #image(json: JsonBytes, image: Image, table: KnownTable, isRow: boolean): void {
    const { at, giants } = json;
    image.present = true;
    if (this.#readKnown(json, image, this.#textsOf(table), isRow)) return;
    json.at = at;
    json.giants = giants;
    this.#readSeen(json, image);
  }

  /** By the texts that are known; false: there is another. */
  #readKnown(json: JsonBytes, image: Image, { heads, tails }: Texts, isRow: boolean): boolean {
    image.count = 0;
    image.seen = null;
    json.expect(0x5b);
    if (json.take(0x5d)) return true;
    let column = 0;
    do {
      while (!json.takeText(heads[column] ?? NOTHING)) if (++column >= tails.length) return false;
      json.scalar();
      image.put(column, json);
      if (isRow ? !json.takeText(tails[column] as Buffer) : !json.take(0x7d)) return false;
      column++;
    } while (json.take(0x2c));
    json.expect(0x5d);
    return true;
  }

  #readSeen(json: JsonBytes, image: Image): void {
    const seen: SeenColumn[] = [];
    const heads: Buffer[] = [];
    image.count = 0;
    json.expect(0x5b);
    if (!json.take(0x5d)) {
      do {
        const start = json.at;
        json.expectText(NAME);
        const name = json.name();
        json.expectText(TYPE);
        const from = json.at;
        json.skipTo(TYPE_OID);
        const type = json.bytes.toString('utf8', from, json.at);
        json.expectText(TYPE_OID);
        const type_oid = json.integer() >>> 0; // It is printed as a signed number.
        json.expectText(VALUE);
        heads.push(Buffer.from(json.bytes.subarray(start, json.at)));
        json.scalar();
        image.put(-1, json);
        const number = json.takeText(POSITION) ? json.integer() : null;
        json.expect(0x7d);
        seen.push({ name, type_oid, type_modifier: modifierOf(type_oid, type), number });
      } while (json.take(0x2c));
      json.expect(0x5d);
    }
    image.seen = seen;
    this.#heads.set(image, heads);
  }
}

/** Is nowhere in a message: no byte of JSON is zero. */
const NOTHING = Buffer.from([0]);

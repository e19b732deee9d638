/**
 * What a null of a number stands for. wal2json before 2.6 prints NaN, Infinity and -Infinity of float4, float8 and numeric as null: the log does not say
 * which it was. So rows with such a null are noted by their key, and before what was decoded is staged, the source is asked which of them have
 * one of the three now; what it answers goes into the cut as an update of these columns.
 *
 * Why this is exact when the stream has caught up: the answer is of a time after the row's change. If the row has not changed since, it is the value
 * that the log left out. If it has, a later change in the log says so, and is noted in its turn. Until then the row shows, at worst, a value that
 * it comes to later, as a row of a copy does. (A commit is in the log before others see it: the source waits for its transaction.)
 *
 * Places and keys are those of the table as it is known: it is settled before a message changes that (wal2json.ts), so that no row in doubt outlives
 * the description under which it was noted.
 *
 * A key that has such a number cannot be looked up, and no more a row without a key: the stream is failed before it is wrong (NUMBER_UNKNOWN).
 */
import { type ChangeSink, Tuple, VALUE } from '../change.ts';
import { SluiceError } from '../errors.ts';
import { joined } from '../piece.ts';
import type { SpecialNumbers, SpecialNumbersQuery } from '../ports.ts';
import { displayName } from '../shape.ts';
import type { Doubts } from './wal2json.ts';
import type { KnownTable } from './wal2json-table.ts';

/** Rows in doubt at one time: their keys are held. */
const ROWS_MAX = 50_000;
/** Transactions that they are of: one row may be in doubt by many. */
const TRANSACTIONS_MAX = 50_000;
/** Rows that are asked for by one query. */
const BATCH_ROWS = 2_000;

export interface NumberDoubtsOptions {
  /** Asks the source. Only rows that have such a value are in the answer. */
  readonly lookUp: (query: SpecialNumbersQuery) => Promise<readonly SpecialNumbers[]>;
  /** The stream of this relation cannot be followed any further. */
  readonly fail: (relation: number, fault: SluiceError) => void;
  /** ROWS_MAX where it is not said. */
  readonly rows_max?: number;
}

interface DoubtfulRow {
  readonly key: readonly string[];
  /** Places in the Relation. */
  readonly places: Set<number>;
}

interface DoubtfulTable {
  readonly key: readonly number[];
  readonly rows: Map<string, DoubtfulRow>;
}

export class NumberDoubts implements Doubts {
  #options: NumberDoubtsOptions;
  /** What was looked up, of one row: told, and filled with the next. */
  #found = new Tuple();
  #tables = new Map<KnownTable, DoubtfulTable>();
  #count = 0;
  #xid = 0;
  /** Transactions that rows in doubt are of. */
  #transactions = new Set<number>();

  constructor(options: NumberDoubtsOptions) {
    this.#options = options;
  }

  get isFull(): boolean {
    return this.#count >= (this.#options.rows_max ?? ROWS_MAX) || this.#transactions.size >= TRANSACTIONS_MAX;
  }

  begin(xid: number): void {
    this.#xid = xid;
  }

  admits(table: KnownTable, unknown: readonly number[]): boolean {
    const { key } = table;
    const place = key.length === 0 ? unknown[0] : unknown.find((candidate) => key.includes(candidate));
    return place === undefined || this.#fail(table, place);
  }

  row(table: KnownTable, row: Tuple, unknown: readonly number[] | null, old: Tuple | null): boolean {
    const known = this.#tables.get(table);
    if (unknown === null && (known === undefined || known.rows.size === 0)) return true;
    const doubtful = known ?? this.#begin(table);
    const key = keyOf(doubtful.key, row, old);
    // Without its key nothing more can be asked of it; what is noted of it already is asked for under the key that was noted.
    if (key === null) return unknown?.[0] === undefined || this.#fail(table, unknown[0]);
    const name = nameOf(key);
    const name_before = nameOf((old && keyOf(doubtful.key, old, null)) ?? key);
    const before = doubtful.rows.get(name_before);
    const places = new Set(unknown);
    // What this row leaves out is as doubtful as before.
    for (const place of before?.places ?? []) if (row.kind[place] === VALUE.unchanged) places.add(place);
    this.#forget(doubtful, name_before);
    this.#forget(doubtful, name);
    if (places.size === 0) return true;
    doubtful.rows.set(name, { key, places });
    this.#count++;
    this.#transactions.add(this.#xid);
    return true;
  }

  gone(table: KnownTable, old: Tuple): void {
    const known = this.#tables.get(table);
    const key = known && keyOf(known.key, old, null);
    if (known && key) this.#forget(known, nameOf(key));
  }

  truncated(table: KnownTable): void {
    const known = this.#tables.get(table);
    this.#count -= known?.rows.size ?? 0;
    known?.rows.clear();
  }

  async settle(sink: ChangeSink): Promise<void> {
    for (const [table, { key, rows }] of this.#tables) {
      const all = [...rows.values()];
      for (let at = 0; at < all.length; at += BATCH_ROWS)
        await this.#settleRows(sink, table, key, all.slice(at, at + BATCH_ROWS));
    }
    this.#tables.clear();
    this.#transactions.clear();
    this.#count = 0;
  }

  #begin(table: KnownTable): DoubtfulTable {
    const doubtful = { key: table.key, rows: new Map<string, DoubtfulRow>() };
    this.#tables.set(table, doubtful);
    return doubtful;
  }

  #forget({ rows }: DoubtfulTable, name: string): void {
    if (rows.delete(name)) this.#count--;
  }

  /** Its column at `place` is not known, and will not be. */
  #fail(table: KnownTable, place: number): false {
    const { schema, table: name, columns } = table.relation();
    const facts = {
      stream: displayName({ schema, table: name }),
      column: columns[place]?.name,
      has_key: table.key.length > 0,
    };
    this.#options.fail(table.id, new SluiceError('NUMBER_UNKNOWN', facts));
    return false;
  }

  async #settleRows(
    sink: ChangeSink,
    table: KnownTable,
    key: readonly number[],
    rows: readonly DoubtfulRow[],
  ): Promise<void> {
    const { id, columns } = table.relation();
    const places = [...new Set(rows.flatMap((row) => [...row.places]))].sort((a, b) => a - b);
    const numberOf = (place: number): number => columns[place]?.number ?? 0;
    const found = await this.#options.lookUp({
      transactions: [...this.#transactions],
      table: id,
      key: key.map(numberOf),
      columns: places.map(numberOf),
      rows: rows.map((row) => row.key),
    });
    for (const { row, values } of found) {
      const doubtful = rows[row];
      if (!doubtful) continue;
      const given = new Map<number, string>(key.map((place, i) => [place, doubtful.key[i] as string]));
      for (const [i, place] of places.entries()) {
        const value = values[i];
        if (value && doubtful.places.has(place)) given.set(place, value);
      }
      if (given.size > key.length) sink.update(id, 'none', NO_TUPLE, filled(this.#found, columns.length, given));
    }
  }
}

const NO_TUPLE = new Tuple();

/** The key's values, as text; what `row` leaves out of them is as in `old`. Null: one of them is not there. */
function keyOf(key: readonly number[], row: Tuple, old: Tuple | null): string[] | null {
  const texts: string[] = [];
  for (const place of key) {
    const image = row.kind[place] === VALUE.unchanged && old ? old : row;
    if (image.kind[place] !== VALUE.text) return null;
    const pieces = image.giants?.get(place);
    const [start, end] = [image.start[place], image.end[place]];
    texts.push(pieces ? joined(pieces).toString() : image.bytes.toString('utf8', start, end));
  }
  return texts;
}

function nameOf(key: readonly string[]): string {
  return key.join('\0');
}

/** A row that leaves everything out but what is given. */
function filled(tuple: Tuple, count: number, given: ReadonlyMap<number, string>): Tuple {
  tuple.count = count;
  tuple.kind.fill(VALUE.unchanged, 0, count);
  tuple.bytes = Buffer.from([...given.values()].join(''));
  let at = 0;
  for (const [place, text] of given) {
    tuple.kind[place] = VALUE.text;
    tuple.start[place] = at;
    at += Buffer.byteLength(text);
    tuple.end[place] = at;
  }
  return tuple;
}

/**
 * What a null of a number stands for. wal2json before 2.6 prints NaN, Infinity and -Infinity of float4, float8 and numeric as null: the log does not say
 * which it was. So rows with such a null are noted by their key, and before what was decoded is staged, the source is asked which of them have
 * one of the three now; what it answers goes into the cut as an update of these columns.
 *
 * Why this is exact when the stream has caught up: the answer is of a time after the row's change. If the row has not changed since, it is the value
 * that the log left out. If it has, a later change in the log says so, and is noted in its turn. Until then the row shows, at worst, a value that
 * it comes to later, as a row of a copy does. (A commit is in the log before others see it: the source waits for its transaction.)
 *
 * A key that has such a number cannot be looked up, and no more a row without a key: the stream is failed before it is wrong (NUMBER_UNKNOWN).
 */
import { type ChangeSink, Tuple, VALUE } from '../change.ts';
import { SluiceError } from '../errors.ts';
import type { SpecialNumbers, SpecialNumbersQuery } from '../ports.ts';
import { displayName } from '../shape.ts';
import type { Doubts } from './wal2json.ts';
import type { KnownTable } from './wal2json-table.ts';

/** Rows in doubt at one time: their keys are held. */
const ROWS_MAX = 50_000;
/** Rows that are asked for by one query. */
const BATCH_ROWS = 2_000;

export interface NumberDoubtsOptions {
  /** Asks the source. Only rows that have such a value are in the answer. */
  readonly lookUp: (query: SpecialNumbersQuery) => Promise<readonly SpecialNumbers[]>;
  /** The stream of this relation cannot be followed any further. */
  readonly fail: (relation: number, fault: SluiceError) => void;
}

interface DoubtfulRow {
  readonly key: readonly string[];
  /** Places in the Relation. */
  readonly places: Set<number>;
}

/** Of one table in one shape. */
interface DoubtfulTable {
  readonly version: number;
  readonly key: readonly number[];
  readonly rows: Map<string, DoubtfulRow>;
}

export class NumberDoubts implements Doubts {
  #options: NumberDoubtsOptions;
  #tables = new Map<KnownTable, DoubtfulTable>();
  #count = 0;
  #xid = 0;
  /** Transactions that rows in doubt are of. */
  #transactions = new Set<number>();

  constructor(options: NumberDoubtsOptions) {
    this.#options = options;
  }

  get isFull(): boolean {
    return this.#count >= ROWS_MAX;
  }

  begin(xid: number): void {
    this.#xid = xid;
  }

  admits(table: KnownTable, unknown: readonly number[]): boolean {
    const { key } = table;
    const place = key.length === 0 ? unknown[0] : unknown.find((candidate) => key.includes(candidate));
    if (place === undefined) return true;
    const { schema, table: name, columns } = table.relation();
    const facts = {
      stream: displayName({ schema, table: name }),
      column: columns[place]?.name,
      has_key: key.length > 0,
    };
    this.#options.fail(table.id, new SluiceError('NUMBER_UNKNOWN', facts));
    return false;
  }

  row(table: KnownTable, row: Tuple, unknown: readonly number[] | null): void {
    const known = this.#tables.get(table);
    if (unknown === null && (known === undefined || known.rows.size === 0)) return;
    const doubtful = known?.version === table.version ? known : this.#begin(table);
    const key = keyOf(doubtful.key, row);
    const name = key.join('\0');
    const before = doubtful.rows.get(name);
    const places = new Set(unknown);
    // What this row leaves out is as doubtful as before.
    for (const place of before?.places ?? []) if (row.kind[place] === VALUE.unchanged) places.add(place);
    if (places.size > 0) {
      doubtful.rows.set(name, { key, places });
      this.#transactions.add(this.#xid);
      if (!before) this.#count++;
    } else if (doubtful.rows.delete(name)) {
      this.#count--;
    }
  }

  gone(table: KnownTable, old: Tuple): void {
    const known = this.#tables.get(table);
    if (known === undefined || known.rows.size === 0 || known.version !== table.version) return;
    if (known.rows.delete(keyOf(known.key, old).join('\0'))) this.#count--;
  }

  truncated(table: KnownTable): void {
    const known = this.#tables.get(table);
    this.#count -= known?.rows.size ?? 0;
    known?.rows.clear();
  }

  async settle(sink: ChangeSink): Promise<void> {
    for (const [table, { version, key, rows }] of this.#tables) {
      if (rows.size === 0 || version !== table.version) continue;
      const all = [...rows.values()];
      for (let at = 0; at < all.length; at += BATCH_ROWS)
        await this.#settleRows(sink, table, key, all.slice(at, at + BATCH_ROWS));
    }
    this.#tables.clear();
    this.#transactions.clear();
    this.#count = 0;
  }

  #begin(table: KnownTable): DoubtfulTable {
    const doubtful = { version: table.version, key: table.key, rows: new Map<string, DoubtfulRow>() };
    this.#tables.set(table, doubtful);
    return doubtful;
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
      if (given.size > key.length) sink.update(id, 'none', NO_TUPLE, tupleOf(columns.length, given));
    }
  }
}

const NO_TUPLE = new Tuple();

/** The key's values, as text. */
function keyOf(key: readonly number[], row: Tuple): string[] {
  return key.map((place) => {
    const pieces = row.giants?.get(place);
    return pieces ? Buffer.concat(pieces).toString() : row.bytes.toString('utf8', row.start[place], row.end[place]);
  });
}

/** A row that leaves everything out but what is given. */
function tupleOf(count: number, given: ReadonlyMap<number, string>): Tuple {
  const tuple = new Tuple();
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

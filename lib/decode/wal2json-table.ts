/**
 * A table as wal2json's messages show it: the plugin sends no descriptions, so a Relation is made up from the catalog and from what the messages say
 * of their own columns (name, type, position), whenever that differs from what was known.
 *
 * The log decides, not the catalog, which may be of a later time. From the catalog come only the table's OID, which columns are generated
 * (wal2json prints these, pgoutput does not), the replica identity, and the modifiers of types that are not PostgreSQL's own. Before a row has come, a
 * Relation has the identity's columns only: a deletion shows no more, and what else the catalog has may have been added after it.
 */
import type { Relation, RelationColumn } from '../change.ts';
import type { SourceTable } from '../ports.ts';

/** A column as one message shows it. */
export interface SeenColumn {
  readonly name: string;
  readonly type_oid: number;
  /** Null: the text of the type does not tell. */
  readonly type_modifier: number | null;
  /** pg_attribute.attnum; null where the message does not say (identities). */
  readonly number: number | null;
}

export interface KnownColumn {
  readonly name: string;
  readonly type_oid: number;
  readonly type_modifier: number;
  readonly number: number;
  readonly generated: boolean;
}

/**
 * Built-in types of fixed length: never outside their row, so that a column that a message leaves out is not there (I7). bool, bytes, names,
 * numbers, oids, xids, points, times, uuid, MAC addresses, reg* and pg_lsn (pg_type.dat: typlen > 0).
 */
const FIXED_LENGTH = new Set([
  16, 18, 19, 20, 21, 23, 24, 26, 27, 28, 29, 600, 601, 603, 628, 700, 701, 718, 774, 790, 829, 1082, 1083, 1114, 1184,
  1186, 1266, 2202, 2203, 2204, 2205, 2206, 2950, 3220, 3734, 3769, 4089, 4096, 4191, 5069,
]);

export class KnownTable {
  /** Those that are generated as well. */
  columns: readonly KnownColumn[] = [];
  /** By index into `columns`: index into the Relation's columns; -1: not in it. */
  places: readonly number[] = [];
  /** Columns of the Relation. */
  count = 0;
  /** The sink has been told. */
  described = false;
  /** Grows with each change of `columns`. */
  version = 0;
  #catalog: SourceTable;
  #identity: ReadonlySet<string>;
  #isFull: boolean;
  /** A row has come, inserted or updated. */
  #isShown = false;

  constructor(catalog: SourceTable) {
    this.#catalog = catalog;
    this.#identity = new Set(catalog.key);
    this.#isFull = catalog.replica_identity === 'f';
    const all = [
      ...catalog.columns.map((column) => ({ ...column, generated: false })),
      ...(catalog.generated ?? []).map((column) => ({ ...column, generated: true })),
    ].map(({ number, ...column }, i) => ({ ...column, number: number ?? i + 1 }));
    this.#set(all.sort((a, b) => a.number - b.number));
  }

  /** The table's OID: pgoutput's own id of a relation. */
  get id(): number {
    return this.#catalog.oid;
  }

  /** All columns are the replica identity. */
  get isFull(): boolean {
    return this.#isFull;
  }

  /** Places, in the Relation, of the columns that tell a row from all others. Empty: none do. */
  get key(): readonly number[] {
    const names = this.isFull ? new Set(this.#catalog.key) : this.#identity;
    return this.columns.flatMap(({ name }, i) =>
      names.has(name) && this.places[i] !== -1 ? [this.places[i] as number] : [],
    );
  }

  /** What the catalog says now; the columns stay as the log has shown them. */
  learn(catalog: SourceTable): void {
    if (catalog.oid !== this.#catalog.oid) this.described = false;
    this.#catalog = catalog;
  }

  /** Where the column is in `columns`, from `first` on; -1: it is not. */
  find(seen: SeenColumn, first: number): number {
    for (let i = first; i < this.columns.length; i++) {
      const known = this.columns[i] as KnownColumn;
      if (
        known.name === seen.name &&
        known.type_oid === seen.type_oid &&
        (seen.number === null || known.number === seen.number) &&
        (seen.type_modifier === null || known.type_modifier === seen.type_modifier)
      )
        return i;
    }
    return -1;
  }

  /** A column that a row leaves out is unchanged; false: it cannot be, so it is not there. */
  mayBeLeftOut(column: number): boolean {
    const known = this.columns[column];
    return known !== undefined && !FIXED_LENGTH.has(known.type_oid);
  }

  /**
   * Takes the columns that a message shows for the table's. What it does not show: `nothing` stays (a whole row), `left_out` values' columns stay (a row
   * that leaves unchanged values out), or all `others` (an identity).
   */
  describe(seen: readonly SeenColumn[], stays: 'nothing' | 'left_out' | 'others'): void {
    const numbers = new Set(seen.map(({ number }) => number));
    const names = new Set(seen.map(({ name }) => name));
    const left = this.columns.filter(
      ({ number, name }, i) =>
        (stays === 'others' || (stays === 'left_out' && this.mayBeLeftOut(i))) &&
        !numbers.has(number) &&
        !names.has(name),
    );
    const generated = new Set(this.#catalog.generated?.map(({ number, name }) => number ?? name));
    const shown = seen.map(({ name, type_oid, type_modifier, number }, i) => {
      const known = number ?? i + 1;
      return {
        name,
        type_oid,
        type_modifier: type_modifier ?? this.#modifierOf(known, type_oid),
        number: known,
        generated: generated.has(known) || generated.has(name),
      };
    });
    this.#set([...shown, ...left].sort((a, b) => a.number - b.number));
  }

  /** A row has come. What it leaves out is unchanged, so that all columns are in the Relation from here on. */
  show(): void {
    if (this.#isShown) return;
    this.#isShown = true;
    this.#set(this.columns);
  }

  #isListed({ name, generated }: KnownColumn): boolean {
    return !generated && (this.#isShown || this.isFull || this.#identity.has(name));
  }

  /** An identity's columns with their numbers, which a message does not say: by name, else by their place in the key. */
  numbered(seen: readonly SeenColumn[]): SeenColumn[] {
    const all = [...this.#catalog.columns, ...this.columns];
    const key = this.columns.filter(({ name }) => this.#identity.has(name));
    return seen.map((column, i) => {
      const found = all.find(({ name, type_oid }) => name === column.name && type_oid === column.type_oid);
      return { ...column, number: found?.number ?? key[i]?.number ?? null };
    });
  }

  /** True: the first `count` of `columns`, by index, are what identifies a row. `whole`: no NULL is left out of them. */
  isIdentity(columns: Int32Array, count: number, whole: boolean): boolean {
    if (this.#isFull) return !whole || count === this.columns.length;
    if (count !== this.#identity.size) return false;
    for (let i = 0; i < count; i++)
      if (!this.#identity.has(this.columns[columns[i] as number]?.name ?? '')) return false;
    return true;
  }

  /** These columns identify a row from here on; all of them only if the catalog says so as well. */
  identify(names: readonly string[], whole: boolean): void {
    this.#isFull = this.#catalog.replica_identity === 'f' && (!whole || names.length === this.columns.length);
    if (!this.#isFull) this.#identity = new Set(names);
    this.#set(this.columns);
  }

  relation(): Relation {
    const columns: RelationColumn[] = this.columns
      .filter((column) => this.#isListed(column))
      .map(({ name, type_oid, type_modifier, number }) => ({
        name,
        type_oid,
        type_modifier,
        number,
        identity: this.isFull || this.#identity.has(name),
      }));
    const { oid: id, schema, table } = this.#catalog;
    const { replica_identity: now } = this.#catalog;
    const replica_identity = this.#isFull ? 'f' : now === 'f' ? 'd' : now;
    return { id, schema, table, replica_identity, columns };
  }

  #modifierOf(number: number, type_oid: number): number {
    const column = [...this.#catalog.columns, ...(this.#catalog.generated ?? [])].find(
      (candidate) => candidate.number === number && candidate.type_oid === type_oid,
    );
    return column?.type_modifier ?? -1;
  }

  #set(columns: readonly KnownColumn[]): void {
    this.columns = columns;
    this.version++;
    this.count = 0;
    this.places = columns.map((column) => (this.#isListed(column) ? this.count++ : -1));
    this.described = false;
  }
}

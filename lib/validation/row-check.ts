/**
 * One table's rows against its JSON Schema, by one description of the table: for rows of the log (log-check.ts) and of copies (lines.ts) alike.
 *
 * A row is its columns' text; what the schema does not look at is not read. Pure, and holds one row at a time (I8).
 */
import type { Shape } from '../shape.ts';
import type { CompiledSchema, RowFault } from './compiler.ts';
import { type JsonValue, jsonValue, type ValueKind, valueKind } from './values.ts';

/** Text of one column; null: NULL; undefined: not in the log (I7). */
export type ColumnText = string | null | undefined;

/** A row of more text cannot be checked: it would have to be held as a whole. */
export const ROW_BYTES_MAX = 64 * 1024 * 1024;

export class RowCheck {
  readonly shape: Shape;
  /** By column: its value counts, and must be given as text; of others any text will do. */
  readonly reads: readonly boolean[];
  #kinds: readonly ValueKind[];
  #schema: CompiledSchema;

  constructor(shape: Shape, schema: CompiledSchema) {
    this.shape = shape;
    this.#schema = schema;
    this.#kinds = shape.columns.map(valueKind);
    this.reads = shape.columns.map(({ name }, i) => schema.reads(name, this.#kinds[i] === 'text'));
  }

  /** `row`: by column. Empty: it is valid. */
  faults(row: readonly ColumnText[]): readonly RowFault[] {
    const entries: [string, JsonValue][] = [];
    for (const [i, { name }] of this.shape.columns.entries()) {
      const text = row[i];
      if (text === undefined) continue;
      // What is not read stands as empty text, which a schema that asks for text, or for nothing, takes.
      const value = text === null ? null : this.reads[i] ? jsonValue(this.#kinds[i] ?? 'text', text) : '';
      entries.push([name, value]);
    }
    const record = Object.fromEntries(entries);
    return entries.length === this.shape.columns.length ? this.#schema.whole(record) : this.#schema.partial(record);
  }
}

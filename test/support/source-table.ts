/**
 * A source table in memory that is written to by random commands, and the messages that a server would send of them.
 *
 * Commands say what is wanted; what happens follows from the rows that are there (an insert of a key that is taken becomes an update, and so on),
 * so that any list of commands is a history that a server can have.
 */
import * as fc from 'fast-check';
import type { Shape } from '../../lib/shape.ts';
import * as pg from './pgoutput.ts';
import { keyOf, type TargetRow, type TargetRows, type Value, type Values } from './shares.ts';

export const TABLE_ID = 0x80000007;
export const MARKED_BY_TRUNCATE = '(truncated)';
/** Values from here on are taken out of a message that is decoded as a giant. */
const GIANT_BYTES = 64 * 1024;

export interface TableForm {
  readonly shape: Shape;
  /** REPLICA IDENTITY FULL: the log has the whole old row. */
  readonly full: boolean;
}

export type Command =
  | {
      readonly do: 'insert' | 'update' | 'move' | 'delete';
      readonly at: number;
      readonly to: number;
      readonly values: readonly Wanted[];
      readonly giant: boolean;
      /** Where there is no such row, the next one is taken; where the key is taken, the next free one. */
      readonly nearest?: boolean;
    }
  | { readonly do: 'truncate' | 'commit' | 'part' | 'cut' | 'describe' };

/** A column's new value; `kept`: as it is, and out of the row (TOAST), so that the log does not have it. */
export interface Wanted {
  readonly value: Value;
  readonly how: 'new' | 'same' | 'kept';
}

/** Values that COPY, keys or encodings could mistake for others. */
const ODD = ['', '\\N', '\\', '\t', '\n', '\r\n', 'a\tb', '\\.', 'ü😀', "';--", 'null', '\u0001'];
/** Keys that would be equal if they were joined carelessly. */
const KEYS: readonly (readonly string[])[] = [
  ['1', '1'],
  ['a', 'b\tc'],
  ['a\tb', 'c'],
  ['', '\\N'],
  ['\\N', ''],
  ['\\', 'n'],
];

export function formOf(keys: number, full: boolean): TableForm {
  const names = keys === 1 ? ['k0', 'v0', 'v1', 'v2'] : ['v0', 'k0', 'v1', 'k1', 'v2'];
  return {
    full,
    shape: {
      columns: names.map((name) => ({ name, type_oid: 25, type_modifier: -1 })),
      key: names.flatMap((name, i) => (name.startsWith('k') ? [i] : [])),
    },
  };
}

const value: fc.Arbitrary<Value> = fc.oneof(
  { arbitrary: fc.constantFrom<Value[]>(...ODD, null), weight: 3 },
  { arbitrary: fc.string({ unit: 'grapheme', maxLength: 6 }).map((text) => text.replaceAll('\0', '')), weight: 1 },
  // About the length from which values are copied otherwise.
  { arbitrary: fc.integer({ min: 46, max: 50 }).map((length) => '\\\t'.repeat(length).slice(0, length)), weight: 1 },
);
const wanted: fc.Arbitrary<Wanted> = fc.record({ value, how: fc.constantFrom('new', 'same', 'kept', 'kept') });
const change = fc.record({
  do: fc.constantFrom('insert', 'update', 'update', 'move', 'move', 'delete'),
  at: fc.nat(KEYS.length - 1),
  to: fc.nat(KEYS.length - 1),
  values: fc.array(wanted, { minLength: 5, maxLength: 5 }),
  giant: fc.nat(39).map((n) => n === 39),
});
const mark = fc.record({
  do: fc.constantFrom('commit', 'commit', 'commit', 'part', 'cut', 'cut', 'truncate', 'describe'),
});
export const commands: fc.Arbitrary<Command[]> = fc.array(
  fc.oneof({ arbitrary: change, weight: 4 }, { arbitrary: mark, weight: 1 }),
  // 'max': without it a list of forty is one of ten at most.
  { maxLength: 40, size: 'max' },
);
const EXCHANGED_KEYS = 3;
/** Few keys, which rows take from each other while the log leaves their values out; short, so that many such histories are tried. */
const exchange = fc.record({
  do: fc.constantFrom('insert', 'move', 'move', 'delete'),
  at: fc.nat(EXCHANGED_KEYS - 1),
  to: fc.nat(EXCHANGED_KEYS - 1),
  nearest: fc.constant(true),
  values: fc
    .constantFrom('a', 'b', 'c', 'd')
    .map((text) => Array.from({ length: 5 }, () => ({ value: text, how: 'kept' as const }))),
  giant: fc.constant(false),
});
export const exchanges: fc.Arbitrary<Command[]> = fc.array(
  fc.oneof(
    { arbitrary: exchange, weight: 3 },
    { arbitrary: fc.record({ do: fc.constantFrom('commit', 'part', 'cut') }), weight: 1 },
  ),
  { maxLength: 7, size: 'max' },
);
/** Rows that are there before the history begins. */
export const firstRows = fc.array(fc.tuple(fc.nat(KEYS.length - 1), fc.array(value, { minLength: 5, maxLength: 5 })), {
  maxLength: KEYS.length,
  size: 'max',
});

/** The table, and the rows that were deleted from it with their last values and the time. */
export class SourceTable {
  readonly form: TableForm;
  readonly live = new Map<string, Values>();
  readonly graves: TargetRows = new Map();
  #names: readonly string[];

  constructor(form: TableForm, first: readonly (readonly [number, readonly Value[]])[]) {
    this.form = form;
    this.#names = form.shape.columns.map(({ name }) => name);
    for (const [at, values] of first) {
      const row = this.#withKey(at, Object.fromEntries(this.#names.map((name, i) => [name, values[i] ?? null])));
      this.live.set(this.#key(row), row);
    }
  }

  /** A target that holds what the table holds. */
  snapshot(): TargetRows {
    return new Map([...this.live].map(([key, values]): [string, TargetRow] => [key, { values, deleted_at: null }]));
  }

  /** Carries the command out; returns the message that the log has of it, null where it is nothing. `at`: the transaction's commit time. */
  run(command: Command, at: string): Buffer | null {
    switch (command.do) {
      case 'truncate':
        for (const [key, values] of this.live) this.graves.set(key, { values, deleted_at: MARKED_BY_TRUNCATE });
        this.live.clear();
        return pg.truncate([TABLE_ID]);
      case 'describe':
        return this.describe();
      case 'commit':
      case 'part':
      case 'cut':
        return null;
      default:
        return this.#change(command.nearest ? this.#nearest(command) : command, at);
    }
  }

  #nearest(command: Extract<Command, { at: number }>): Extract<Command, { at: number }> {
    const next = (from: number, isLive: boolean): number => {
      const keys = Array.from({ length: EXCHANGED_KEYS }, (_, i) => (from + i) % EXCHANGED_KEYS);
      return keys.find((key) => this.live.has(this.#key(this.#withKey(key, {}))) === isLive) ?? from;
    };
    return { ...command, at: next(command.at, command.do !== 'insert'), to: next(command.to, false) };
  }

  describe(): Buffer {
    const { shape, full } = this.form;
    const columns = this.#names.map((name, i) => ({ name, key: shape.key.includes(i) }));
    return pg.relation({ id: TABLE_ID, identity: full ? 'f' : 'd', columns });
  }

  #change(command: Extract<Command, { at: number }>, at: string): Buffer | null {
    const key = this.#key(this.#withKey(command.at, {}));
    const old = this.live.get(key);
    if (!old) return command.do === 'delete' ? null : this.#insert(command);
    if (command.do === 'delete') {
      this.live.delete(key);
      this.graves.set(key, { values: old, deleted_at: at });
      return pg.del(TABLE_ID, this.#old(old));
    }
    const to = command.do === 'move' ? command.to : command.at;
    const row = this.#withKey(to, this.#wanted(old, command));
    const newKey = this.#key(row);
    // A key that is taken would be refused; the change is made where it is instead.
    if (newKey !== key && this.live.has(newKey)) return this.#change({ ...command, do: 'update' }, at);
    this.live.delete(key);
    this.live.set(newKey, row);
    if (newKey !== key) {
      this.graves.set(key, { values: old, deleted_at: at });
      this.graves.delete(newKey);
    }
    return this.#updated(command, old, row, newKey !== key);
  }

  #insert(command: Extract<Command, { at: number }>): Buffer {
    const row = this.#withKey(command.at, this.#wanted({}, command));
    const key = this.#key(row);
    this.live.set(key, row);
    this.graves.delete(key);
    return pg.insert(TABLE_ID, this.#fields(row));
  }

  /** As heap_update logs it: the old key where it changed or lies outside the row, the whole old row under FULL. */
  #updated(command: Extract<Command, { at: number }>, old: Values, row: Values, moved: boolean): Buffer {
    const isKept = this.#names.map(
      (name, i) => command.values[i]?.how === 'kept' && row[name] === old[name] && row[name] !== null,
    );
    const keptKey = this.form.shape.key.some((i) => isKept[i]);
    const fields = this.#fields(row).map((field, i) => (isKept[i] ? pg.UNCHANGED : field));
    return pg.update(TABLE_ID, fields, this.form.full || moved || keptKey ? this.#old(old) : undefined);
  }

  #old(row: Values): pg.Old {
    if (this.form.full) return { full: this.#fields(row) };
    return { key: this.#fields(row).map((field, i) => (this.form.shape.key.includes(i) ? field : null)) };
  }

  #fields(row: Values): pg.Field[] {
    return this.#names.map((name) => row[name] ?? null);
  }

  #wanted(old: Values, { values, giant }: Extract<Command, { at: number }>): Values {
    const entries = this.#names.map((name, i): [string, Value] => {
      const want = values[i] ?? { value: null, how: 'new' };
      if (want.how !== 'new' && name in old) return [name, old[name] ?? null];
      return [
        name,
        giant && name === 'v1' ? `${want.value ?? ''}${'giant\t'.repeat(GIANT_BYTES / 6 + 1)}` : want.value,
      ];
    });
    return Object.fromEntries(entries);
  }

  #withKey(at: number, row: Values): Values {
    const parts = this.form.shape.key.map((index, i): [string, string] => [
      this.#names[index] ?? '',
      KEYS[at]?.[i] ?? '',
    ]);
    return { ...row, ...Object.fromEntries(parts) };
  }

  #key(row: Values): string {
    return keyOf(this.form.shape, row);
  }
}

/**
 * Histories of a table's columns, and what the log and the catalog show of them: whoever numbers a segment's columns is right, or says that it cannot be
 * told; and it is told wherever the catalog was looked at before the next change.
 */
import * as fc from 'fast-check';
import { afterAll, describe, expect } from 'vitest';
import { numberColumns } from '../../lib/load/column-numbers.ts';
import type { Column, DescribedColumn, Shape, TableDescription } from '../../lib/shape.ts';
import { property } from '../support/property.ts';

type Step = {
  readonly kind: 'add' | 'drop' | 'rename' | 'retype';
  readonly at: number;
  readonly name: number;
  readonly type: number;
};

const step: fc.Arbitrary<Step> = fc.record({
  kind: fc.constantFrom('add', 'drop', 'rename', 'retype'),
  at: fc.nat(20),
  name: fc.nat(9),
  type: fc.nat(3),
});
/** What happens between two shares of the log, and between a share and the look at the catalog. */
const history = fc.record({
  first: fc.array(step, { maxLength: 8 }),
  rounds: fc.array(fc.record({ before: fc.array(step, { maxLength: 3 }) }), { minLength: 1, maxLength: 6 }),
});

const TYPES = [23, 25, 1043, 1700];

class Table {
  #columns: { number: number; name: string; type: number; dropped: boolean }[] = [
    { number: 1, name: 'id', type: 20, dropped: false },
  ];

  get live() {
    return this.#columns.filter(({ dropped }) => !dropped);
  }

  take({ kind, at, name, type }: Step): void {
    const others = this.live.filter(({ number }) => number > 1);
    const one = others[at % Math.max(1, others.length)];
    const called = `c${name}`;
    const isFree = this.live.every((column) => column.name !== called);
    if (kind === 'add' && isFree) {
      this.#columns.push({
        number: this.#columns.length + 1,
        name: called,
        type: TYPES[type] as number,
        dropped: false,
      });
    } else if (!one) return;
    else if (kind === 'drop') one.dropped = true;
    else if (kind === 'rename' && isFree) one.name = called;
    else if (kind === 'retype') one.type = TYPES[type] as number;
  }

  columns(numbered: boolean): Column[] {
    return this.live.map(({ number, name, type }) => ({
      name,
      type_oid: type,
      type_modifier: -1,
      ...(numbered ? { number } : {}),
    }));
  }

  shape(numbered: boolean): Shape {
    return { columns: this.columns(numbered), key: [0], ...(numbered ? { greatest: this.#columns.length } : {}) };
  }

  describe(): TableDescription {
    const columns = this.#columns.map(
      ({ number, name, type, dropped }): DescribedColumn => ({
        number,
        name: dropped ? `........pg.dropped.${number}........` : name,
        type_oid: dropped ? 0 : type,
        type_modifier: -1,
        dropped,
        generated: '',
        missing: null,
      }),
    );
    return { oid: 1, filenode: '1', columns };
  }
}

const numbersOf = (table: Table): number[] => table.live.map(({ number }) => number);

describe('numbers', () => {
  const single = fc.record({ first: fc.array(step, { maxLength: 8 }), steps: fc.array(step, { maxLength: 8 }) });
  property('one change between two shares, and a look before the next: right, and told', single, ({ first, steps }) => {
    const table = new Table();
    for (const one of first) table.take(one);
    for (const one of steps) {
      const previous = table.shape(true);
      table.take(one);
      const between = { previous, segment: table.shape(false), described: table.describe(), may_be_older: false };
      expect(numberColumns(between)).toEqual(numbersOf(table));
    }
  });

  let told = 0;
  let all = 0;
  property(
    'any changes between two shares, and a look before the next: right, or not told',
    history,
    ({ first, rounds }) => {
      const table = new Table();
      for (const one of first) table.take(one);
      for (const { before } of rounds) {
        const previous = table.shape(true);
        for (const one of before) table.take(one);
        const between = { previous, segment: table.shape(false), described: table.describe(), may_be_older: false };
        const numbers = numberColumns(between);
        all++;
        if (numbers === null) continue;
        told++;
        expect(numbers).toEqual(numbersOf(table));
      }
    },
  );
  // Not told are those that drop a column and add another, in one go, that looks the same.
  afterAll(() => {
    expect(told / all).toBeGreaterThan(0.8);
  });

  const two = fc.record({ first: fc.array(step, { maxLength: 8 }), one: step, other: step });
  property(
    'one change between two shares, and another before the look: right, or not told',
    two,
    ({ first, one, other }) => {
      const table = new Table();
      for (const of of first) table.take(of);
      const previous = table.shape(true);
      table.take(one);
      const segment = table.shape(false);
      const truth = numbersOf(table);
      table.take(other);
      const numbers = numberColumns({ previous, segment, described: table.describe(), may_be_older: false });
      if (numbers !== null) expect(numbers).toEqual(truth);
    },
  );
});

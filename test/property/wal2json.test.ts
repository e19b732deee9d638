/**
 * Theorem 1: whatever names and values a row has, the decoder tells of the message that wal2json prints of it exactly that row; in both formats, also where
 * the message is held in pieces.
 * Theorem 2: of bytes that are not as the plugin prints them come right calls or DECODE_FAILED, and never no end.
 */
import * as fc from 'fast-check';
import { expect } from 'vitest';
import { asSluiceError } from '../../lib/errors.ts';
import { expectedTuple, UNCHANGED } from '../support/pgoutput.ts';
import { property } from '../support/property.ts';
import { catalogOf, change1, change2, decoding, type PrintedColumn } from '../support/wal2json.ts';

const T = { schema: 'public', table: 't' };
/** Everything that a text of PostgreSQL may hold: no zero byte. */
const anyText = fc.oneof(
  fc.string({ unit: 'binary' }).map((value) => value.replaceAll('\0', '')),
  fc.constantFrom('', 'null', '"', '\\', '\\"', '","typeoid":', '"columnvalues":[', ']}', '\u0001', '\n'),
  fc.nat(70_000).map((length) => 'x"\\\n'.repeat(length / 4)),
);
const anyName = fc.string({ unit: 'binary', minLength: 1, maxLength: 20 }).map((name) => name.replaceAll('\0', '0'));

const TYPES: readonly { readonly type: string; readonly type_oid: number; readonly value: fc.Arbitrary<string> }[] = [
  { type: 'text', type_oid: 25, value: anyText },
  { type: '"Odd "" Type"', type_oid: 4_000_000_000, value: anyText },
  {
    type: 'bytea',
    type_oid: 17,
    value: fc.uint8Array({ maxLength: 50_000 }).map((bytes) => `\\x${Buffer.from(bytes).toString('hex')}`),
  },
  { type: 'boolean', type_oid: 16, value: fc.constantFrom('t', 'f') },
  { type: 'integer', type_oid: 23, value: fc.integer().map(String) },
  { type: 'double precision', type_oid: 701, value: fc.constantFrom('-0', '1e+300', '1.5e-10', '0.1') },
];

interface Printed {
  readonly columns: readonly PrintedColumn[];
  readonly kinds: readonly ('value' | 'null' | 'unchanged')[];
}

const anyRow: fc.Arbitrary<Printed> = fc
  .uniqueArray(anyName, { minLength: 1, maxLength: 6 })
  .chain((names) =>
    fc.tuple(
      ...names.map((name, i) =>
        fc.constantFrom(...TYPES).chain(({ type, type_oid, value }) =>
          fc
            .tuple(value, fc.constantFrom('value' as const, 'value' as const, 'null' as const, 'unchanged' as const))
            .map(([text, kind]) => ({
              column: { name, type, type_oid, number: i + 2, value: text },
              kind,
            })),
        ),
      ),
    ),
  )
  .map((fields) => ({ columns: fields.map(({ column }) => column), kinds: fields.map(({ kind }) => kind) }));

const KEY: PrintedColumn = { name: 'the key', type: 'integer', type_oid: 23, number: 1, value: '1' };

property(
  'what is printed is told',
  fc.tuple(anyRow, fc.constantFrom(1, 2), fc.nat(300)),
  async ([{ columns, kinds }, format, piece]) => {
    const catalog = catalogOf([KEY, ...columns], [KEY.name]);
    const insert = [KEY, ...columns.map((column, i) => (kinds[i] === 'null' ? { ...column, value: null } : column))];
    // Only what is of varying length lies outside its row.
    const left = columns.map(
      (_, i) => kinds[i] === 'unchanged' && [17, 25, 4_000_000_000].includes(columns[i]?.type_oid ?? 0),
    );
    const update = insert.map((column, i): PrintedColumn => {
      if (i === 0 || !left[i - 1]) return column;
      const { value: _, ...rest } = column;
      return rest;
    });
    const messages =
      format === 2
        ? [change2('I', T, { row: insert }), change2('U', T, { row: update, old: [KEY] })]
        : [change1('insert', T, { row: insert }), change1('update', T, { row: update, old: [KEY] }, false)];
    const rows = [
      expectedTuple(insert.map(({ value = null }) => value)),
      expectedTuple(update.map((column) => (column.value === undefined ? UNCHANGED : column.value))),
    ];
    const { feed, calls, decoder } = decoding(format === 2 ? 2 : 1, [catalog]);
    await feed(...messages);
    for (const message of messages) decoder.decodeGiant(piecesOf(message, piece + 1));
    expect(calls.flatMap((call) => ('row' in call ? [call.row] : []))).toEqual([...rows, ...rows]);
  },
);

property(
  'what is broken is refused',
  fc.tuple(anyRow, fc.constantFrom(1, 2), fc.nat(), fc.nat(255)),
  async ([{ columns }, format, at, byte]) => {
    const catalog = catalogOf([KEY, ...columns], [KEY.name]);
    const row = [KEY, ...columns];
    const message = format === 2 ? change2('I', T, { row }) : change1('insert', T, { row });
    message[at % message.length] = byte;
    for (const giant of [false, true]) {
      const { feed, decoder } = decoding(format === 2 ? 2 : 1, [catalog]);
      try {
        if (giant) decoder.decodeGiant(piecesOf(message, 100));
        else await feed(message);
      } catch (thrown) {
        expect(asSluiceError(thrown).code).toBe('DECODE_FAILED');
      }
    }
  },
);

function piecesOf(bytes: Buffer, size: number): Buffer[] {
  const pieces: Buffer[] = [];
  for (let at = 0; at < bytes.length; at += size) pieces.push(Buffer.from(bytes.subarray(at, at + size)));
  return pieces;
}

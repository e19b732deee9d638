/**
 * Goal: what the ledger writes of a noun it reads back as it was; and an item that something else has changed is told as damaged, field by
 * field, and never read as something that it is not.
 */
import * as fc from 'fast-check';
import { describe, expect } from 'vitest';
import { type Attributes, Damage, type FieldCodecs, readFields, writeFields } from '../../lib/ledger/attributes.ts';
import {
  BOOKMARK_FIELDS,
  CHUNK_FIELDS,
  CUT_FIELDS,
  EPOCH_FIELDS,
  REJECT_FIELDS,
  REPORT_FIELDS,
  UNFINISHED_FIELDS,
} from '../../lib/ledger/items.ts';
import { type Lsn, lsnOf } from '../../lib/lsn.ts';
import {
  type Bookmark,
  type Chunk,
  type Cut,
  EPOCH_KINDS,
  type Epoch,
  type Reject,
  type RunReport,
  STOP_REASONS,
  type Unfinished,
} from '../../lib/ports.ts';
import { property } from '../support/property.ts';

const whole = fc.nat({ max: Number.MAX_SAFE_INTEGER });
const lsn: fc.Arbitrary<Lsn> = fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }).map(lsnOf);
const text = fc.string({ unit: 'binary' });
const range = fc.tuple(whole, whole);
const orNull = <T>(value: fc.Arbitrary<T>) => fc.option(value, { nil: null });
const byStream = <T>(value: fc.Arbitrary<T>) => fc.dictionary(fc.oneof(text, fc.constant('__proto__')), value);
const table = fc.record({ schema: text, table: text });

const cut: fc.Arbitrary<Cut> = fc.record({
  number: whole,
  kind: fc.constantFrom('genesis', 'slot', 'changes', 'captures'),
  begin_lsn: lsn,
  end_lsn: lsn,
  committed_at_ms: orNull(whole),
  recorded_at_ms: whole,
  object: orNull(text),
  object_bytes: whole,
  index: orNull(range),
  streams: byStream(
    fc.record(
      { ranges: fc.array(range), changes: whole, text_bytes: whole },
      { requiredKeys: ['changes', 'text_bytes'] },
    ),
  ),
  captures: fc.array(text),
  incarnation: text,
  system_identifier: text,
  timeline: whole,
});

const parts = fc.array(fc.record({ object: text, object_bytes: whole }));
const unfinished: fc.Arbitrary<Unfinished> = fc.record({
  id: text,
  incarnation: text,
  after_cut: whole,
  begin_lsn: lsn,
  objects: parts,
  state: range,
  state_crc32: whole,
  xid: whole,
  commit_lsn: lsn,
  messages: whole,
  message_bytes: whole,
  changes: whole,
  text_bytes: whole,
  tables: fc.array(text),
  table_count: whole,
  windows: whole,
  began_at_ms: whole,
  at_ms: whole,
  stalled: fc.boolean(),
});
const longCut: fc.Arbitrary<Cut> = fc.tuple(cut, parts).map(([one, earlier]) => ({ ...one, earlier }));

const bookmarkFields = {
  stream: text,
  table,
  target: table,
  captured_cut: whole,
  epoch: whole,
  state: fc.constantFrom('captured' as const, 'syncing' as const, 'catching_up' as const, 'live' as const),
  halt: orNull(
    fc.record({ code: text, message: text, remedy: text, cut: orNull(whole), at_ms: whole, must_reset: fc.boolean() }),
  ),
  reset_requested: fc.boolean(),
  incarnation: text,
  applied_cut: whole,
  applied_lsn: lsn,
  applied_at_ms: whole,
  rows_copied: whole,
  changes_applied: whole,
};
const followed = orNull(fc.record({ table_oid: whole, published: text, partitions: orNull(text) }));
const schedule = orNull(
  fc.record({ served_ms: whole, next_ms: orNull(whole), paused: fc.boolean(), cut: orNull(whole) }),
);
/** With what it follows, and without, as older versions wrote it. */
const bookmark: fc.Arbitrary<Bookmark> = fc.oneof(
  fc.record<Bookmark>(bookmarkFields),
  fc.record<Bookmark>({ ...bookmarkFields, followed }),
  fc.record<Bookmark>({ ...bookmarkFields, schedule }),
);

const texts = fc.array(text);
const epoch: fc.Arbitrary<Epoch> = fc.record({
  stream: text,
  number: whole,
  kind: fc.constantFrom(...EPOCH_KINDS),
  where: orNull(text),
  state: fc.constantFrom('opened', 'planned', 'done', 'cancelled'),
  plan: orNull(text),
  chunks: orNull(whole),
  rows_estimate: fc.integer({ min: -1 }),
  held_cut: whole,
  opened_at_ms: whole,
  rung_at_ms: whole,
  done_at_ms: orNull(whole),
});

const chunk: fc.Arbitrary<Chunk> = fc.record({
  stream: text,
  epoch: whole,
  plan: text,
  number: whole,
  range: fc.oneof(
    fc.record({ by: fc.constant('whole' as const) }),
    fc.record({
      by: fc.constant('key' as const),
      columns: texts,
      from: orNull(texts),
      to: orNull(texts),
    }),
    fc.record({ by: fc.constant('keys' as const), columns: texts, keys: fc.array(texts) }),
    fc.record({
      by: fc.constant('page' as const),
      column: text,
      from: orNull(text),
      inclusive: fc.boolean(),
      to: orNull(text),
    }),
    fc.record({ by: fc.constant('nulls' as const), column: text }),
    fc.record({ by: fc.constant('ctid' as const), from: orNull(text), to: orNull(text) }),
  ),
  staged: orNull(fc.record({ object: text, object_bytes: whole, rows: whole, text_bytes: whole, lsn })),
  loaded: fc.boolean(),
});

const reject: fc.Arbitrary<Reject> = fc.record({
  stream: text,
  id: text,
  object: text,
  object_bytes: whole,
  rows: whole,
  cut: orNull(whole),
  epoch: orNull(whole),
  rejected_at_ms: whole,
});

const seconds = fc.double({ min: 0, max: 1e6, noNaN: true });
const report: fc.Arbitrary<RunReport> = fc.record({
  run: text,
  started_at_ms: whole,
  ended_at_ms: whole,
  stopped_by: fc.constantFrom(...STOP_REASONS),
  error: orNull(fc.record({ code: text, message: text, remedy: text })),
  begin_lsn: orNull(lsn),
  end_lsn: orNull(lsn),
  source_lsn: orNull(lsn),
  cuts: whole,
  transactions: whole,
  changes: whole,
  text_bytes: whole,
  object_bytes: whole,
  streams: byStream(fc.record({ changes: whole, text_bytes: whole })),
  seconds: fc.record({ ground: seconds, read: seconds, stage: seconds, record: seconds }),
});

/** A noun, with the way it is written and read. */
interface Written {
  readonly value: object;
  readonly item: () => Attributes;
  readonly read: (item: Attributes) => object;
}

const written = <T extends object>(codecs: FieldCodecs<T>, values: fc.Arbitrary<T>): fc.Arbitrary<Written> =>
  values.map((value) => ({
    value,
    item: () => writeFields<T>(codecs, value),
    read: (item) => readFields(codecs, item),
  }));

const nouns = fc.oneof(
  written(CUT_FIELDS, cut),
  written(CUT_FIELDS, longCut),
  written(UNFINISHED_FIELDS, unfinished),
  written(BOOKMARK_FIELDS, bookmark),
  written(EPOCH_FIELDS, epoch),
  written(CHUNK_FIELDS, chunk),
  written(REJECT_FIELDS, reject),
  written(REPORT_FIELDS, report),
);

describe("the ledger's nouns", () => {
  property('come back as they were, also through JSON', nouns, ({ value, item, read }) => {
    expect(read(item())).toEqual(value);
    expect(read(JSON.parse(JSON.stringify(item())))).toEqual(value);
  });

  property(
    'with an attribute that is gone or of another type are damaged there',
    fc.tuple(nouns, fc.nat(), fc.constantFrom(undefined, { B: new Uint8Array() })),
    ([{ value, item, read }, at, other]) => {
      const changed = item();
      const names = Object.keys(changed);
      const name = names[at % names.length] ?? '';
      if (other === undefined) delete changed[name];
      else changed[name] = other;
      let result: object;
      try {
        result = read(changed);
      } catch (error) {
        expect(error).toBeInstanceOf(Damage);
        expect((error as Damage).path[0]).toBe(name);
        return;
      }
      // Only what may be absent may go unnoticed.
      expect(['staged', 'followed', 'schedule', 'earlier']).toContain(name);
      expect(result).toEqual({ ...value, [name]: name === 'staged' ? null : undefined });
    },
  );
});

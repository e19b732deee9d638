/**
 * Theorem: whatever is done to a table, however its history is cut and taken in parts, the shares that come of it lead a target from the table as it
 * was to the table as it is: row for row, and with soft deletes the deleted rows with their last values and the time of their deletion.
 *
 * A history is random commands on a table in memory (test/support/source-table.ts), as pgoutput messages; a target is rows in memory that the
 * shares are applied to as lib/stage/segment.ts says (test/support/shares.ts).
 */
import * as fc from 'fast-check';
import { expect } from 'vitest';
import { OpenCut } from '../../lib/cut/open-cut.ts';
import { PgoutputDecoder } from '../../lib/decode/pgoutput.ts';
import * as pg from '../support/pgoutput.ts';
import { property } from '../support/property.ts';
import { applySegment, assertWellFormed, type SegmentText, segmentText, type TargetRows } from '../support/shares.ts';
import { type Command, commands, firstRows, formOf, MARKED_BY_TRUNCATE, SourceTable, type TableForm } from '../support/source-table.ts';

const FIRST_COMMIT_US = Date.UTC(2026, 0, 2, 3, 4, 5) * 1000;
/** Between two transactions: not a whole number of milliseconds. */
const COMMIT_STEP_US = 1_234_567;

/** A history as it was staged, and the table at the end of each of its transactions. */
interface History {
  readonly source: SourceTable;
  /** The segments of each cut, in order. */
  readonly cuts: SegmentText[][];
  /** After each commit: the table's rows, and the cut that the commit is in. */
  readonly snapshots: { readonly rows: TargetRows; readonly cut: number }[];
}

function record(
  form: TableForm,
  first: Parameters<typeof firstRows.filter>[0] extends (value: infer T) => unknown ? T : never,
  history: readonly Command[],
  hard_delete: boolean,
): History {
  const source = new SourceTable(form, first);
  const streams = [{ stream: 's', schema: 'public', table: 't', key: form.shape.key.map((i) => form.shape.columns[i]?.name ?? '') }];
  const cut = new OpenCut({ streams, hard_delete, isDue: () => false });
  const decoder = new PgoutputDecoder(cut);
  const cuts: SegmentText[][] = [[]];
  const snapshots = [{ rows: source.snapshot(), cut: 0 }];
  let commit_us = FIRST_COMMIT_US;
  let lsn = 1n;

  const decode = (message: Buffer): void => {
    if (message.length < 64 * 1024) decoder.decode(message, 0, message.length);
    else decoder.decodeGiant([message.subarray(0, 100), message.subarray(100, 30_000), message.subarray(30_000)]);
  };
  const takePart = (): void => {
    for (const share of cut.takePart()) {
      assertWellFormed(share, hard_delete);
      cuts.at(-1)?.push(segmentText(share));
    }
  };
  const commit = (): void => {
    decode(pg.commit(lsn++, BigInt(commit_us)));
    snapshots.push({ rows: source.snapshot(), cut: cuts.length - 1 });
    commit_us += COMMIT_STEP_US;
  };
  const begin = (): void => decode(pg.begin(1, BigInt(commit_us)));
  const endCut = (): void => {
    takePart();
    cut.restart();
    cuts.push([]);
  };

  begin();
  decode(source.describe());
  for (const command of history) {
    const message = source.run(command, postgresTime(commit_us));
    if (message) decode(message);
    if (command.do === 'part') takePart();
    if (command.do !== 'commit' && command.do !== 'cut') continue;
    commit();
    if (command.do === 'cut') endCut();
    begin();
  }
  commit();
  endCut();
  return { source, cuts, snapshots };
}

function postgresTime(at_us: number): string {
  const seconds = Math.floor(at_us / 1_000_000);
  const [date, time] = new Date(seconds * 1000).toISOString().slice(0, 19).split('T');
  return `${date} ${time}.${String(at_us - seconds * 1_000_000).padStart(6, '0')}+00`;
}

function apply(rows: TargetRows, segments: readonly SegmentText[], hard_delete: boolean): TargetRows {
  for (const segment of segments) applySegment(rows, segment, hard_delete, MARKED_BY_TRUNCATE);
  return rows;
}

const sorted = (rows: TargetRows) => [...rows].sort(([a], [b]) => (a < b ? -1 : 1));
const live = (rows: TargetRows): TargetRows => new Map([...rows].filter(([, { deleted_at }]) => deleted_at === null));

const histories = fc.record({
  form: fc.tuple(fc.constantFrom(1, 2), fc.boolean()).map(([keys, full]) => formOf(keys, full)),
  first: firstRows,
  history: commands,
  hard_delete: fc.boolean(),
});

property('a target that takes every share equals the source', histories, ({ form, first, history, hard_delete }) => {
  const { source, cuts, snapshots } = record(form, first, history, hard_delete);
  const rows = apply(snapshots[0]?.rows ?? new Map(), cuts.flat(), hard_delete);
  const expected = source.snapshot();
  if (!hard_delete) for (const [key, row] of source.graves) expected.set(key, row);
  expect(sorted(rows)).toEqual(sorted(expected));
});

property('where the log has whole rows, no share needs what the target has', histories, ({ form, first, history, hard_delete }) => {
  const { source, cuts } = record({ ...form, full: true }, first, history, hard_delete);
  expect(cuts.flat().flatMap(({ blocks }) => blocks.map(({ kind }) => kind)).filter((kind) => kind === 'rekey' || kind === 'update')).toEqual([]);
  // So that a target which begins with nothing has every row that was written since.
  const rows = live(apply(new Map(), cuts.flat(), hard_delete));
  for (const [key, row] of rows) expect(source.snapshot().get(key)).toEqual(row);
});

/**
 * An epoch: chunks that were read at different moments after the cut that the stream goes on from (design §3, Epochs 5). Each key is in one chunk,
 * and a chunk has the rows as they were when it was read. What was applied from there on leads to the source, if none of the cuts that the chunks may
 * have seen already moves a row whose values the log lacks (`rekey`): that row may be in no chunk, or have been deleted by the replay. Such cuts are
 * refused while a stream is catching up (lib/load/steps.ts).
 */
property(
  'chunks of any age, and then the chain from before them, equal the source',
  fc.record({ of: histories, held: fc.nat(1000), ages: fc.array(fc.nat(1000), { minLength: 1, maxLength: 3 }) }),
  ({ of, held, ages }) => {
    const { form, first, history, hard_delete } = of;
    const { source, cuts, snapshots } = record(form, first, history, hard_delete);
    const from = held % cuts.length;
    const readable = snapshots.filter(({ cut }, i) => cut >= from || (snapshots[i + 1]?.cut ?? from) >= from);
    const chunks = ages.map((age) => readable[age % readable.length] ?? { rows: new Map(), cut: from });
    const newest = Math.max(...chunks.map(({ cut }) => cut));
    const isRekeyed = cuts.slice(from, newest + 1).some((segments) => segments.some(({ blocks }) => blocks.some(({ kind }) => kind === 'rekey')));
    fc.pre(!isRekeyed);
    const chunkOf = (key: string): number => [...key].reduce((sum, letter) => sum + (letter.codePointAt(0) ?? 0), 0) % chunks.length;
    const rows: TargetRows = new Map(
      chunks.flatMap(({ rows: read }, i) => [...read].filter(([key]) => chunkOf(key) === i)),
    );
    apply(rows, cuts.slice(from).flat(), hard_delete);
    expect(sorted(live(rows))).toEqual(sorted(source.snapshot()));
    // What a replay brought back is marked again by the end of it.
    for (const [key, { deleted_at }] of rows) expect([key, deleted_at === null]).toEqual([key, source.live.has(key)]);
  },
);

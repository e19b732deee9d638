/**
 * A random history of a table as Sluice stages it: commands on a table in memory, as messages of pgoutput, decoded, folded, and cut into segments.
 */
import * as fc from 'fast-check';
import { OpenCut } from '../../lib/cut/open-cut.ts';
import { PgoutputDecoder } from '../../lib/decode/pgoutput.ts';
import * as pg from './pgoutput.ts';
import { assertWellFormed, type SegmentText, segmentText, type TargetRows } from './shares.ts';
import { type Command, commands, exchanges, firstRows, formOf, SourceTable, type TableForm } from './source-table.ts';

const FIRST_COMMIT_US = Date.UTC(2026, 0, 2, 3, 4, 5) * 1000;
/** Between two transactions: not a whole number of milliseconds. */
const COMMIT_STEP_US = 1_234_567;
/** Small, so that it is cheap to make; what is more than this grows the arena. */
const PART_BYTES = 1024;
/** A message of this length is decoded as one that arrived in pieces. */
const GIANT_MESSAGE_BYTES = 64 * 1024;

export interface HistoryPlan {
  readonly form: TableForm;
  readonly first: ConstructorParameters<typeof SourceTable>[1];
  readonly history: readonly Command[];
  readonly hard_delete: boolean;
}

export const histories: fc.Arbitrary<HistoryPlan> = fc.record({
  form: fc.tuple(fc.constantFrom(1, 2), fc.boolean()).map(([keys, full]) => formOf(keys, full)),
  first: firstRows,
  history: commands,
  hard_delete: fc.boolean(),
});

/** Histories in which rows without all of their values take each other's keys. */
export const exchangeHistories: fc.Arbitrary<HistoryPlan> = fc.record({
  form: fc.constant(formOf(1, false)),
  first: fc
    .constantFrom('xyz', 'xy', 'x')
    .map((texts) => texts.split('').map((text, i) => [i, Array(5).fill(text)] as const)),
  history: exchanges,
  hard_delete: fc.boolean(),
});

export interface History {
  /** As it is in the end. */
  readonly source: SourceTable;
  /** The segments of each cut, in order. */
  readonly cuts: readonly (readonly SegmentText[])[];
  /** The rows at the beginning and after each commit, and the cut that the commit is in. */
  readonly snapshots: readonly { readonly rows: TargetRows; readonly cut: number }[];
}

export function recordHistory({ form, first, history, hard_delete }: HistoryPlan): History {
  const source = new SourceTable(form, first);
  const key = form.shape.key.map((i) => form.shape.columns[i]?.name ?? '');
  const streams = [{ stream: 's', schema: 'public', table: 't', key }];
  const cut = new OpenCut({ streams, hard_delete, isDue: () => false, part_text_bytes_max: PART_BYTES });
  const decoder = new PgoutputDecoder(cut);
  const cuts: SegmentText[][] = [[]];
  const snapshots = [{ rows: source.snapshot(), cut: 0 }];
  let commit_us = FIRST_COMMIT_US;
  let lsn = 1n;

  const decode = (message: Buffer): void => {
    if (message.length < GIANT_MESSAGE_BYTES) decoder.decode(message, 0, message.length);
    else decoder.decodeGiant([message.subarray(0, 100), message.subarray(100, 30_000), message.subarray(30_000)]);
  };
  const takePart = (): void => {
    for (const share of cut.takePart()) {
      assertWellFormed(share, hard_delete);
      cuts.at(-1)?.push(segmentText(share));
    }
  };
  const begin = (): void => decode(pg.begin(1, BigInt(commit_us)));
  const commit = (): void => {
    decode(pg.commit(lsn++, BigInt(commit_us)));
    snapshots.push({ rows: source.snapshot(), cut: cuts.length - 1 });
    commit_us += COMMIT_STEP_US;
  };

  begin();
  decode(source.describe());
  for (const command of history) {
    const message = source.run(command, postgresTime(commit_us));
    if (message) decode(message);
    if (command.do === 'part' || cut.partIsFull) takePart();
    if (command.do !== 'commit' && command.do !== 'cut') continue;
    commit();
    if (command.do === 'cut') {
      takePart();
      cut.restart();
      cuts.push([]);
    }
    begin();
  }
  commit();
  takePart();
  return { source, cuts, snapshots };
}

function postgresTime(at_us: number): string {
  const seconds = Math.floor(at_us / 1_000_000);
  const [date, time] = new Date(seconds * 1000).toISOString().slice(0, 19).split('T');
  return `${date} ${time}.${String(at_us - seconds * 1_000_000).padStart(6, '0')}+00`;
}

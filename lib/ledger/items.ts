/**
 * The ledger's nouns as items: Cut, Unfinished, Bookmark, Epoch, EpochRequest, Chunk, RunReport, each a table of its fields. The only place that knows how each
 * field is written; the compiler asks for every field of lib/ports.ts.
 */
import type {
  Bookmark,
  BookmarkSchedule,
  Chunk,
  ChunkRange,
  Cut,
  CutPart,
  CutStream,
  Epoch,
  EpochRequest,
  Followed,
  Halt,
  Reject,
  RunReport,
  Unfinished,
} from '../ports.ts';
import { EPOCH_KINDS, REPLICATION_METHODS, STOP_REASONS, STREAM_STATES } from '../ports.ts';
import type { TableName } from '../shape.ts';
import type { ByteRange } from '../stage/segment.ts';
import {
  absentWhenNull,
  type Codec,
  Damage,
  dictionary,
  type FieldCodecs,
  list,
  lsn,
  map,
  measure,
  nullable,
  oneOf,
  optional,
  packedWhenLarge,
  text,
  truth,
  whole,
} from './attributes.ts';

const CUT_KINDS = ['genesis', 'slot', 'changes', 'captures'] as const satisfies readonly Cut['kind'][];
const EPOCH_STATES = ['opened', 'planned', 'done', 'cancelled'] as const satisfies readonly Epoch['state'][];
const SYNC_STATES = STREAM_STATES.filter((state) => state !== 'halted');

/** Ranges lie flat, offset and bytes in turn: a list of lists would be half as long again, and a cut must fit an item. */
const ranges: Codec<readonly ByteRange[]> = {
  write: (value) => list(whole).write(value.flat()),
  read: (value) => {
    const flat = list(whole).read(value);
    if (flat.length % 2 !== 0) throw new Damage('pairs of offset and bytes');
    return Array.from({ length: flat.length / 2 }, (_, i) => [flat[2 * i] ?? 0, flat[2 * i + 1] ?? 0] as const);
  },
};

const range: Codec<ByteRange> = {
  write: (value) => ranges.write([value]),
  read: (value) => {
    const [first, ...more] = ranges.read(value);
    if (first === undefined || more.length > 0) throw new Damage('one range');
    return first;
  },
};

const table = map<TableName>({ schema: text, table: text });

const parts = list(map<CutPart>({ object: text, object_bytes: whole }));

export const CUT_FIELDS: FieldCodecs<Cut> = {
  number: whole,
  kind: oneOf(CUT_KINDS),
  begin_lsn: lsn,
  end_lsn: lsn,
  committed_at_ms: nullable(whole),
  recorded_at_ms: whole,
  object: nullable(text),
  object_bytes: whole,
  earlier: optional(parts),
  index: nullable(range),
  streams: packedWhenLarge(dictionary(map<CutStream>({ ranges: optional(ranges), changes: whole, text_bytes: whole }))),
  captures: packedWhenLarge(list(text)),
  incarnation: text,
  system_identifier: text,
  timeline: whole,
};

export const BOOKMARK_FIELDS: FieldCodecs<Bookmark> = {
  stream: text,
  table,
  target: table,
  captured_cut: whole,
  epoch: whole,
  state: oneOf(SYNC_STATES),
  halt: nullable(
    map<Halt>({ code: text, message: text, remedy: text, cut: nullable(whole), at_ms: whole, must_reset: truth }),
  ),
  reset_requested: truth,
  incarnation: text,
  applied_cut: whole,
  applied_lsn: lsn,
  applied_at_ms: whole,
  rows_copied: whole,
  changes_applied: whole,
  followed: optional(
    nullable(
      map<Followed>({
        table_oid: whole,
        published: text,
        partitions: nullable(text),
        key: optional(nullable(text)),
        file: optional(nullable(text)),
        hidden: optional(list(whole)),
      }),
    ),
  ),
  definition: optional(nullable(text)),
  method: optional(oneOf(REPLICATION_METHODS)),
  selection: optional(nullable(text)),
  log_from: optional(nullable(lsn)),
  replication: optional(nullable(map<NonNullable<Bookmark['replication']>>({ key: text, value: nullable(text) }))),
  as_of_ms: optional(whole),
  given_up: optional(
    nullable(
      map<NonNullable<Bookmark['given_up']>>({ epoch: whole, kind: oneOf(EPOCH_KINDS), reason: text, at_ms: whole }),
    ),
  ),
  resync_requested: optional(truth),
  schedule: optional(
    nullable(
      map<BookmarkSchedule>({ served_ms: whole, next_ms: nullable(whole), paused: truth, cut: nullable(whole) }),
    ),
  ),
};

const bound = nullable(list(text));
const RANGES = {
  whole: map<RangeBy<'whole'>>({ by: oneOf(['whole']) }),
  key: map<RangeBy<'key'>>({ by: oneOf(['key']), columns: list(text), from: bound, to: bound }),
  ctid: map<RangeBy<'ctid'>>({ by: oneOf(['ctid']), from: nullable(text), to: nullable(text) }),
  keys: map<RangeBy<'keys'>>({ by: oneOf(['keys']), columns: list(text), keys: list(list(text)) }),
  page: map<RangeBy<'page'>>({
    by: oneOf(['page']),
    column: text,
    from: nullable(text),
    inclusive: truth,
    to: nullable(text),
  }),
  nulls: map<RangeBy<'nulls'>>({ by: oneOf(['nulls']), column: text }),
};
type RangeBy<By extends ChunkRange['by']> = Extract<ChunkRange, { by: By }>;

const chunkRange: Codec<ChunkRange> = {
  // The map of its kind takes a range of that kind, which the type of a lookup cannot say.
  write: (value) => (RANGES[value.by] as Codec<ChunkRange>).write(value),
  read: (value) => RANGES[oneOf(['whole', 'key', 'ctid', 'keys', 'page', 'nulls']).read(value?.M?.by)].read(value),
};

export const EPOCH_FIELDS: FieldCodecs<Epoch> = {
  stream: text,
  number: whole,
  kind: oneOf(EPOCH_KINDS),
  where: nullable(text),
  ranges: optional(nullable(list(chunkRange))),
  request: optional(nullable(text)),
  from_lsn: optional(nullable(lsn)),
  bytes_estimate: optional(measure),
  replication_value: optional(nullable(text)),
  state: oneOf(EPOCH_STATES),
  reason: optional(nullable(text)),
  plan: nullable(text),
  chunks: nullable(whole),
  rows_estimate: measure,
  held_cut: whole,
  opened_at_ms: whole,
  rung_at_ms: whole,
  done_at_ms: nullable(whole),
};

export const REQUEST_FIELDS: FieldCodecs<EpochRequest> = {
  stream: text,
  id: text,
  kind: oneOf(['backfill', 'repair']),
  where: nullable(text),
  ranges: nullable(list(chunkRange)),
  requested_at_ms: whole,
};

export const REJECT_FIELDS: FieldCodecs<Reject> = {
  stream: text,
  id: text,
  object: text,
  object_bytes: whole,
  rows: whole,
  cut: nullable(whole),
  epoch: nullable(whole),
  rejected_at_ms: whole,
  refused: optional(truth),
};

export const CHUNK_FIELDS: FieldCodecs<Chunk> = {
  stream: text,
  epoch: whole,
  plan: text,
  number: whole,
  range: chunkRange,
  staged: absentWhenNull(
    map<NonNullable<Chunk['staged']>>({
      object: nullable(text),
      object_bytes: whole,
      rows: whole,
      text_bytes: whole,
      lsn,
    }),
  ),
  loaded: truth,
};

export const UNFINISHED_FIELDS: FieldCodecs<Unfinished> = {
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
  tables: list(text),
  table_count: whole,
  windows: whole,
  began_at_ms: whole,
  at_ms: whole,
  stalled: truth,
};

export const REPORT_FIELDS: FieldCodecs<RunReport> = {
  run: text,
  started_at_ms: whole,
  ended_at_ms: whole,
  stopped_by: oneOf(STOP_REASONS),
  error: nullable(map<NonNullable<RunReport['error']>>({ code: text, message: text, remedy: text })),
  begin_lsn: nullable(lsn),
  end_lsn: nullable(lsn),
  source_lsn: nullable(lsn),
  cuts: whole,
  transactions: whole,
  changes: whole,
  text_bytes: whole,
  object_bytes: whole,
  rejected_rows: optional(whole),
  unfinished: optional(
    map<NonNullable<RunReport['unfinished']>>({
      xid: whole,
      changes: whole,
      text_bytes: whole,
      tables: list(text),
      windows: whole,
      stalled: truth,
    }),
  ),
  slot: optional(
    map<NonNullable<RunReport['slot']>>({
      kept_wal_bytes: nullable(whole),
      safe_wal_bytes: nullable(whole),
      at_risk: truth,
    }),
  ),
  streams: packedWhenLarge(dictionary(map<RunReport['streams'][string]>({ changes: whole, text_bytes: whole }))),
  seconds: map<RunReport['seconds']>({ ground: measure, read: measure, stage: measure, record: measure }),
};

/**
 * A transaction that one window cannot read to its end: what is staged of it stays, and the next window goes on behind it, so that each comes further (I3: it counts
 * when its commit is recorded, as any cut).
 *
 * A window that must end inside a transaction completes the object that it has, with its state at the end, and tells the ledger where: what of the cut is staged, and
 * how many messages of the slot that is. The next window that begins at the same cut, under the same file, opens the slot there as ever, passes over so many messages
 * (passing-over.ts), and stages the rest in an object of its own behind the first (Cut.earlier). Objects are never shared: a window that is overtaken leaves one
 * that nobody names. Whatever does not fit (another cut has been recorded, another file, an object that is gone) has the cut read from its beginning.
 */
import { createHash } from 'node:crypto';
import { buffer } from 'node:stream/consumers';
import { crc32 } from 'node:zlib';
import * as z from 'zod';
import type { Pipeline } from '../config/schema.ts';
import { streamOptions } from '../config/stream-options.ts';
import type { CapturedStream } from '../cut/captured.ts';
import { asSluiceError, SluiceError } from '../errors.ts';
import type { Bookmark, Clock, Cut, Ledger, Log, SlotDialect, Stage, Unfinished } from '../ports.ts';
import { displayName } from '../shape.ts';
import { placeIn } from '../stage/cut-ranges.ts';
import { SEGMENT_VERSION } from '../stage/segment.ts';
import type { StagedCut, StagedSoFar } from '../stage/staged-cut.ts';
import type { StagedRead } from './passing-over.ts';
import type { Reading } from './reading.ts';

/** Of the state, and of what is counted. */
const STATE_VERSION = 1;
/** Windows that add to one cut: each leaves an object, which the ledger's items name. By then passing over takes longer than reading on. */
const OBJECTS_MAX = 500;
/** Named in log, status and report. */
const TABLES_MAX = 10;

const natural = z.int().min(0);
const stateSchema = z.object({
  version: z.literal(STATE_VERSION),
  /** What the window read by: the whole, and each stream. */
  of: z.string(),
  streams: z.record(z.string(), z.string()),
  ranges: z.record(z.string(), z.array(z.tuple([natural, natural]))),
  counts: z.record(z.string(), z.object({ changes: natural, text_bytes: natural })),
  rejected: z.array(
    z.object({ object: z.string(), object_bytes: natural, rows: z.array(z.tuple([z.string(), natural])) }),
  ),
});
type State = z.output<typeof stateSchema>;

interface UnfinishedPorts {
  readonly clock: Clock;
  readonly log: Log;
  readonly stage: Pick<Stage, 'read'>;
  readonly ledger: Pick<Ledger, 'unfinished' | 'saveUnfinished' | 'removeUnfinished'>;
  readonly newId: () => string;
}

/** What the window reads, and by what. */
export interface ReadBy {
  readonly head: Cut;
  readonly dialect: SlotDialect | undefined;
  readonly appends: boolean;
  readonly streams: readonly CapturedStream[];
  readonly captured: readonly Bookmark[];
  /** Of one cut; OBJECTS_MAX where it is not said. */
  readonly objects_max?: number | undefined;
}

export class UnfinishedCut {
  readonly #ports: UnfinishedPorts;
  readonly #by: ReadBy;
  readonly #digests: Pick<State, 'of' | 'streams'>;
  /** What stands in the ledger, be it of any use or not. */
  readonly #known: Unfinished | null;
  /** What this window goes on with; null: it begins anew. */
  readonly #resumed: Unfinished | null;
  /** Of the resumed one. */
  readonly staged: StagedRead | null;
  #soFar: StagedSoFar | null;

  /** Looks whether there is something to go on with. Throws what ledger and stage throw, but for what is gone. */
  static async open(ports: UnfinishedPorts, pipeline: Pipeline, by: ReadBy): Promise<UnfinishedCut> {
    const known = await ports.ledger.unfinished();
    const { incarnation, number, end_lsn } = by.head;
    const digests = digestsOf(pipeline, by);
    const follows =
      known !== null && known.incarnation === incarnation && known.after_cut === number && known.begin_lsn === end_lsn;
    if (!follows) {
      // At the same place, but streams have been taken in since.
      const isLeft = known !== null && known.incarnation === incarnation && known.begin_lsn === end_lsn;
      if (isLeft)
        ports.log.warn('transaction_begun_anew', { ...factsOf(known), reason: `cut ${number} has been recorded` });
      return new UnfinishedCut(ports, by, digests, known, null);
    }
    try {
      const state = await readState(ports.stage, known);
      const reason = unlike(state, digests);
      if (reason === null) {
        ports.log.info('transaction_resumed', factsOf(known));
        return new UnfinishedCut(ports, by, digests, known, state);
      }
      ports.log.warn('transaction_begun_anew', { ...factsOf(known), reason });
    } catch (thrown) {
      const { code, message } = asSluiceError(thrown);
      if (code !== 'STAGE_MISSING' && code !== 'STAGE_CORRUPT') throw thrown;
      ports.log.warn('transaction_begun_anew', { ...factsOf(known), reason: message });
    }
    return new UnfinishedCut(ports, by, digests, known, null);
  }

  private constructor(
    ports: UnfinishedPorts,
    by: ReadBy,
    digests: Pick<State, 'of' | 'streams'>,
    known: Unfinished | null,
    state: State | null,
  ) {
    this.#ports = ports;
    this.#by = by;
    this.#digests = digests;
    this.#known = known;
    this.#resumed = state === null ? null : known;
    this.staged = known !== null && state !== null ? stagedRead(known, state) : null;
    this.#soFar = known !== null && state !== null ? soFar(known, state) : null;
  }

  /** What is staged of the first cut, once. */
  take(): StagedSoFar | null {
    const taken = this.#soFar;
    this.#soFar = null;
    return taken;
  }

  /** Nothing new was come to: what is staged stays as it is. */
  async stall(): Promise<Unfinished | null> {
    const known = this.#resumed;
    if (known === null) return null;
    return await this.#save({ ...known, windows: known.windows + 1, stalled: true });
  }

  /** Completes what is staged, and tells the ledger how to go on. All that was read must have been appended. Null: another window was faster. */
  async suspend(staged: StagedCut, { cut, read }: Reading, head: Cut): Promise<Unfinished | null> {
    const { counts, changes, text_bytes } = cut;
    let crc = 0;
    const { objects, state } = await staged.suspend(({ ranges, rejected }) => {
      const text = Buffer.from(
        JSON.stringify({
          version: STATE_VERSION,
          ...this.#digests,
          ranges: Object.fromEntries(
            [...ranges].map(([stream, own]) => [stream, own.map(([at, bytes]) => [at, bytes])]),
          ),
          counts: Object.fromEntries(counts),
          rejected: rejected.map((object) => ({ ...object, rows: [...object.rows] })),
        } satisfies State),
      );
      crc = crc32(text);
      return text;
    });
    const before = this.#before(head);
    const names = new Map(this.#by.streams.map((stream) => [stream.stream, displayName(stream)]));
    const byChanges = [...counts].sort(([, a], [, b]) => b.changes - a.changes);
    const at_ms = this.#ports.clock.now();
    return await this.#save({
      incarnation: head.incarnation,
      after_cut: head.number,
      begin_lsn: head.end_lsn,
      objects,
      state,
      state_crc32: crc,
      ...read,
      changes,
      text_bytes,
      tables: byChanges.slice(0, TABLES_MAX).map(([stream]) => names.get(stream) ?? stream),
      table_count: counts.size,
      windows: (before?.windows ?? 0) + 1,
      began_at_ms: before?.began_at_ms ?? at_ms,
      stalled: false,
    });
  }

  /** Whether another object may be added to the cut behind `head`. */
  hasRoom(head: Cut): boolean {
    return (this.#before(head)?.objects.length ?? 0) < (this.#by.objects_max ?? OBJECTS_MAX);
  }

  /** What former windows have staged of the cut behind `head`: the one that this window has gone on with may be over by now. */
  #before(head: Cut): Unfinished | null {
    return this.#resumed?.after_cut === head.number ? this.#resumed : null;
  }

  /** What the reading failed with. What cannot be gone on with is given up. */
  async failed(thrown: unknown): Promise<unknown> {
    if (!(thrown instanceof SluiceError) || thrown.code !== 'TRANSACTION_CHANGED') return thrown;
    await this.#ports.ledger.removeUnfinished();
    return thrown;
  }

  async #save(unfinished: Omit<Unfinished, 'id' | 'at_ms'>): Promise<Unfinished | null> {
    const { ledger, log, clock, newId } = this.#ports;
    const saved = { ...unfinished, id: newId(), at_ms: clock.now() };
    if (!(await ledger.saveUnfinished(saved, this.#known?.id ?? null))) return null;
    log.warn('transaction_unfinished', factsOf(saved));
    return saved;
  }
}

/** For people: which transaction it is, and how far it has been read. */
function factsOf({ xid, changes, text_bytes, tables, table_count, windows, stalled }: Unfinished) {
  return { xid, changes, text_bytes, tables, table_count, windows, stalled };
}

function stagedRead(known: Unfinished, { counts }: State): StagedRead {
  const { messages, message_bytes, xid, commit_lsn, changes, text_bytes } = known;
  const counted = { changes, text_bytes, counts: new Map(Object.entries(counts)) };
  return { messages, message_bytes, xid, commit_lsn, counted };
}

function soFar({ objects }: Unfinished, { ranges, rejected }: State): StagedSoFar {
  return {
    earlier: objects,
    ranges: new Map(Object.entries(ranges)),
    rejected: rejected.map((object) => ({ ...object, rows: new Map(object.rows) })),
  };
}

/** Throws STAGE_MISSING where one of the objects is gone, and STAGE_CORRUPT. */
async function readState(stage: Pick<Stage, 'read'>, { objects, state, state_crc32 }: Unfinished): Promise<State> {
  // A byte of each of the others: whether it is there.
  for (const { object, object_bytes } of objects.slice(0, -1)) {
    await buffer(await stage.read(object, [object_bytes - 1, 1]));
  }
  const place = placeIn(objects, state);
  const text = await buffer(await stage.read(...place));
  const corrupt = (reason: string): SluiceError => new SluiceError('STAGE_CORRUPT', { object: place[0], reason });
  if (crc32(text) !== state_crc32) throw corrupt('the checksum of its state is wrong');
  const read = stateSchema.safeParse(JSON.parse(text.toString('utf8')));
  if (!read.success) throw corrupt('its state is of another version');
  return read.data;
}

/** Why what is staged is not what would be staged now; null: it is. A stream that is not read any more does not matter. */
function unlike(then: Pick<State, 'of' | 'streams'>, now: Pick<State, 'of' | 'streams'>): string | null {
  if (then.of !== now.of) return 'the pipeline file, or the version of Sluice, is another one by now';
  const other = Object.entries(now.streams).find(([stream, digest]) => then.streams[stream] !== digest);
  return other === undefined
    ? null
    : `the pipeline file, or the table, says something else of stream ${other[0]} by now`;
}

/** Of all that decides which messages come, and what is staged of them. */
function digestsOf(pipeline: Pipeline, { dialect, appends, streams, captured }: ReadBy): Pick<State, 'of' | 'streams'> {
  const { source, target } = pipeline;
  const { hard_delete, validate_records, on_invalid } = target;
  // wal2json is asked for the tables by their names.
  const asked = source.plugin === 'wal2json' ? streams.map(({ stream }) => stream).sort() : null;
  const bookmarks = new Map(captured.map((bookmark) => [bookmark.stream, bookmark]));
  const of = [
    SEGMENT_VERSION,
    source.plugin,
    dialect ?? null,
    source.replication_slot,
    source.publication_name,
    appends,
  ];
  return {
    of: digest([...of, asked, hard_delete, validate_records, on_invalid]),
    streams: Object.fromEntries(
      streams.map(({ stream, schema, table, key, key_may_go, oid, keyless, filtered, lsn, log_from }) => {
        const { captured_cut, selection = null } = bookmarks.get(stream) ?? {};
        const json_schema = streamOptions(pipeline, { schema, table })?.json_schema ?? null;
        const read_by = [schema, table, key, key_may_go, oid, keyless?.rows, filtered, lsn, String(log_from)];
        return [stream, digest([...read_by, captured_cut, selection, json_schema])];
      }),
    ),
  };
}

function digest(said: readonly unknown[]): string {
  return createHash('sha256').update(JSON.stringify(said)).digest('base64url');
}

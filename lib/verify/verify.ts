/**
 * Compares every stream on both sides, under live writes, and finds exactly the rows that differ (`sluice verify`).
 *
 * Beside the path: it reads, and what it repairs goes the way of every copy (epochs of kind repair). It relies on the target's truth (I4) and on the
 * chain: rows that differ at first sight are looked at again when the chain has been applied past what the source had shown. Nothing is locked; memory is
 * bounded, whatever differs (I8). A stream that cannot be compared says why, and the others are compared.
 */
import type { Pipeline } from '../config/schema.ts';
import { streamOptions } from '../config/stream-options.ts';
import { type RequestPorts, repairOf, requestEpoch } from '../epoch/request.ts';
import type { SluiceError } from '../errors.ts';
import { isLogBased } from '../ledger/method.ts';
import { streamRowOf, streamRowSql } from '../load/control.ts';
import { targetFault } from '../load/faults.ts';
import type { Lsn } from '../lsn.ts';
import type { Bookmark, SourceTable } from '../ports.ts';
import { sourceFault } from '../postgres/faults.ts';
import type { Connect } from '../postgres/session.ts';
import { projectionOf } from '../projection/projection.ts';
import { displayName, type TableName } from '../shape.ts';
import { compared } from './compared.ts';
import type { Difference } from './differences.ts';
import { FINDING_KINDS, type Outcome, type StreamFindings, Tally } from './findings.ts';
import { type ChainPorts, Passage, type Stuck } from './passage.ts';
import { type Decided, decide, type Finding, type LookPorts, Pool, type Subject } from './pool.ts';
import { Reader, ReadFault } from './reader.ts';
import { RANGE_ROWS, scan } from './scan.ts';

export interface VerifyPorts extends RequestPorts, Pick<ChainPorts, 'advance' | 'idle_ms_max'> {
  readonly clock: ChainPorts['clock'];
  readonly connectSource: Connect;
  readonly connectTarget: Connect;
  /** The table as the source's catalog has it, with what the log brings of it; null: it is not there. */
  readonly table: (name: TableName) => Promise<SourceTable | null>;
}

export interface VerifyOptions {
  readonly pipeline: Pipeline;
  readonly streams: readonly Bookmark[];
  /** They were asked for one by one: those that no log is read for are compared as well. */
  readonly named: boolean;
  readonly repair: boolean;
  /** Rows of the source compared so far, of one stream. `rows_estimate`: -1 where it is not known. */
  readonly onProgress: (at: { readonly table: string; readonly rows: number; readonly rows_estimate: number }) => void;
  /** What is being waited for, as a sentence. */
  readonly onWait?: (what: string) => void;
  /** Rows of a range; RANGE_ROWS where it is left out. */
  readonly range_rows?: number;
}

/** In the order of `streams`. Throws what keeps all of them from being compared: a database that cannot be reached, an engine that has failed. */
export async function verify(ports: VerifyPorts, options: VerifyOptions): Promise<StreamFindings[]> {
  await using source = await Reader.open(ports.connectSource, (error) =>
    sourceFault(error, 'read rows to be compared'),
  );
  await using target = await Reader.open(ports.connectTarget, (error) => targetFault(error, TARGET_CONTEXT));
  const look = { source, target, passage: new Passage(ports) };
  return await new Verifying(ports, options, look).run();
}

const TARGET_CONTEXT = { stream: 'verify', table: '_sluice.streams', action: 'read rows to be compared', server: null };

const STUCK: Readonly<Record<Stuck, string>> = {
  gone: 'Its stream is gone.',
  halted: 'It was halted.',
  paused:
    'It is paused (schedule), and what is staged of it is not loaded: take that back, or end sluice run and verify again.',
  late: 'The chain has not been applied past what the source had, in time.',
};

/** A stream while it is compared. */
interface Work extends Subject {
  readonly bookmark: Bookmark;
  readonly not_compared: StreamFindings['not_compared'];
  readonly rows_estimate: number;
  /** The target has hashes of its key. */
  readonly is_hashed: boolean;
}

class Course {
  readonly differing = new Tally();
  readonly missing = new Tally();
  readonly extra = new Tally();
  readonly undecided = new Tally();
  readonly remarks = new Set<string>();
  work: Work | null = null;
  error: SluiceError | null = null;
  skipped = false;
  rows = 0;
  kept = 0;
  repaired = 0;
  /** Findings that are there still. */
  left = 0;
  is_stuck = false;
}

class Verifying {
  readonly #ports: VerifyPorts;
  readonly #options: VerifyOptions;
  readonly #look: LookPorts;
  readonly #courses: ReadonlyMap<string, Course>;
  readonly #pool = new Pool<Work>();

  constructor(ports: VerifyPorts, options: VerifyOptions, look: LookPorts) {
    this.#ports = ports;
    this.#options = options;
    this.#look = look;
    this.#courses = new Map(options.streams.map(({ stream }) => [stream, new Course()]));
  }

  async run(): Promise<StreamFindings[]> {
    const { streams } = this.#options;
    // Where no log is read for any of them, the source may be a standby, which has no such position.
    const lsn = streams.some(isLogBased) ? await this.#look.source.insertLsn() : null;
    for (const bookmark of streams) {
      const course = this.#courseOf(bookmark.stream);
      try {
        course.work = await this.#prepare(bookmark, course, lsn);
        if (course.work !== null) await this.#scan(course.work, course);
      } catch (error) {
        course.error = ofStream(error);
      }
    }
    await this.#decide();
    return streams.map((bookmark) => findingsOf(bookmark, this.#courseOf(bookmark.stream)));
  }

  /** Null: it is not compared, and the course says why. */
  async #prepare(bookmark: Bookmark, course: Course, lsn: Lsn | null): Promise<Work | null> {
    const { pipeline, named, onWait } = this.#options;
    const { stream, table: name, method = 'LOG_BASED' } = bookmark;
    const skip = (why: string): null => {
      course.skipped = true;
      course.remarks.add(why);
      return null;
    };
    const is_queried = !isLogBased(bookmark);
    if (is_queried) {
      const as_of = bookmark.applied_at_ms === 0 ? '' : ` of ${new Date(bookmark.applied_at_ms).toISOString()}`;
      const since = `It is read by query (${method}) and is as of its last run${as_of}: rows that were changed since differ`;
      if (!named) return skip(`${since}. Name it to have it compared.`);
      course.remarks.add(`${since}, and that is as it should be.`);
    }
    const said = streamOptions(pipeline, name);
    if (said === null) return skip('The pipeline file does not mean it any longer.');
    if (!is_queried && lsn !== null) {
      if (bookmark.halt === null && bookmark.state !== 'live') onWait?.(`${displayName(name)} to have been copied`);
      const stuck = await this.#look.passage.passed(stream, lsn);
      if (stuck !== null) {
        await this.#stick(stream, stuck);
        return null;
      }
    }
    const table = await this.#ports.table(name);
    if (table === null) return skip('The source does not have it any longer.');
    const row = streamRowOf(
      await this.#look.target.read((client) =>
        client.query(streamRowSql({ pipeline: pipeline.pipeline, stream: { stream, target: bookmark.target } }, '')),
      ),
    );
    if (row === null || !row.made || row.incarnation !== bookmark.incarnation) {
      return skip('The target has no copy of it yet.');
    }
    // The salt is of no use here: what is hashed is not compared.
    const asked = { table, projection: projectionOf(said, ''), where: said.where, ...row };
    const sides = compared(asked, {
      source: await this.#look.source.table(table),
      target: await this.#look.target.table(row.target),
    });
    const is_hidden = sides.key.length === 0 && table.key.length > 0;
    const { not_compared } = sides;
    const is_hashed = not_compared.some(({ column, why }) => why === 'hashed' && table.key.includes(column));
    if (is_hidden) {
      const reason = is_hashed ? 'is hashed' : 'cannot be compared';
      course.remarks.add(`Its key ${reason}: rows are compared by what else they hold.`);
    }
    const is_appended = table.key.length === 0 && !is_queried && table.replica_identity !== 'f';
    if (is_appended) course.remarks.add('It has no key: only its inserts are followed.');
    const { hard_delete, on_truncate } = pipeline.target;
    return {
      stream,
      bookmark,
      compared: sides,
      not_compared,
      is_hashed,
      is_queried,
      keeps_deleted: on_truncate === 'ignore' || !(hard_delete || row.metadata) || is_appended,
      rows_estimate: table.rows_estimate,
    };
  }

  async #scan(work: Work, course: Course): Promise<void> {
    const { onProgress, range_rows = RANGE_ROWS } = this.#options;
    const { source, target } = this.#look;
    const table = displayName(work.bookmark.table);
    await scan({ source, target, range_rows }, work.compared, work.rows_estimate, {
      onRows: (rows) => {
        course.rows += rows;
        onProgress({ table, rows: course.rows, rows_estimate: work.rows_estimate });
      },
      onDifference: (difference) => {
        this.#pool.add(work, difference);
        return !this.#pool.isFull;
      },
      onFull: () => this.#decide(),
    });
  }

  /** Decides what is in the pool, and has repaired what is found. */
  async #decide(): Promise<void> {
    const taken = this.#pool.take();
    if (taken.size === 0) return;
    this.#options.onWait?.('the chain to come past what the source has');
    const found = await decide(this.#look, taken, this.#onFault);
    const again = new Map<Work, Difference[]>();
    for (const [work, decided] of found) {
      const course = this.#courseOf(work.stream);
      this.#count(course, decided);
      if (decided.stuck !== null) await this.#stick(work.stream, decided.stuck);
      const differences = decided.findings.map(({ difference }) => difference);
      course.left += rowsOf(decided.findings);
      if (this.#options.repair && (await this.#repair(work, course, differences))) again.set(work, differences);
    }
    if (again.size === 0) return;
    for (const [work, { findings, undecided, stuck }] of await decide(this.#look, again, this.#onFault)) {
      const course = this.#courseOf(work.stream);
      if (stuck !== null) await this.#stick(work.stream, stuck);
      const decidable = again.get(work)?.length ?? 0;
      course.repaired += decidable - findings.length - undecided.length;
      course.left -= decidable - findings.length;
      for (const { key } of undecided) course.undecided.add(key);
    }
  }

  #count(course: Course, { findings, undecided, kept }: Decided): void {
    for (const { kind, rows, difference } of findings) course[kind].add(difference.key, rows);
    for (const { key } of undecided) course.undecided.add(key);
    course.kept += kept;
  }

  /** True: their rows have been brought again. */
  async #repair(
    { stream, bookmark, compared: { key }, is_queried, is_hashed }: Work,
    course: Course,
    differences: Difference[],
  ): Promise<boolean> {
    if (differences.length === 0) return false;
    if (key.length === 0 || is_queried) {
      const why = is_queried
        ? 'It is read by query'
        : is_hashed
          ? 'The target has only hashes of its key, by which the source knows no row'
          : 'It has no key that both sides have';
      course.remarks.add(
        `${why}: single rows cannot be brought again. Copy it anew: sluice backfill ${stream} --reset`,
      );
      return false;
    }
    this.#options.onWait?.(`${differences.length} rows of ${displayName(bookmark.table)} to be brought again`);
    for (const wanted of repairOf(
      key,
      differences.flatMap((one) => (one.key === null ? [] : [one.key])),
    )) {
      await requestEpoch(this.#ports, stream, wanted);
      const stuck = await this.#look.passage.quiet(stream);
      if (stuck === null) continue;
      await this.#stick(stream, stuck);
      return false;
    }
    return true;
  }

  /** Says why the stream cannot be compared to the end. */
  async #stick(stream: string, stuck: Stuck): Promise<void> {
    const course = this.#courseOf(stream);
    course.is_stuck = true;
    const halt = stuck === 'halted' ? (await this.#ports.ledger.bookmark(stream))?.halt : null;
    course.remarks.add(halt ? `It is halted: ${halt.code}: ${halt.message} ${halt.remedy}` : STUCK[stuck]);
  }

  readonly #onFault = (work: Work, error: unknown): void => {
    this.#courseOf(work.stream).error = ofStream(error);
  };

  #courseOf(stream: string): Course {
    const course = this.#courses.get(stream);
    if (course === undefined) throw new RangeError(`stream ${stream} is not compared`);
    return course;
  }
}

/** A read that failed is the stream's own fault, and told with it. Throws anything else: no other stream would fare better. */
function ofStream(error: unknown): SluiceError {
  if (!(error instanceof ReadFault)) throw error;
  if (error.is_lost) throw error.error;
  return error.error;
}

function rowsOf(findings: readonly Finding[]): number {
  return findings.reduce((sum, { rows }) => sum + rows, 0);
}

function findingsOf({ stream, table, target }: Bookmark, course: Course): StreamFindings {
  const { work, rows, kept, repaired, error, remarks } = course;
  return {
    stream,
    table: displayName(table),
    target: displayName(target),
    outcome: outcomeOf(course),
    remarks: [...remarks],
    error: error && { code: error.code, message: error.message, remedy: error.remedy },
    rows,
    key: work?.compared.key ?? [],
    differing: course.differing.found,
    missing: course.missing.found,
    extra: course.extra.found,
    undecided: course.undecided.found,
    kept,
    repaired,
    not_compared: work?.not_compared ?? [],
  };
}

function outcomeOf(course: Course): Outcome {
  if (course.skipped) return 'skipped';
  if (course.error !== null) return 'failed';
  if (course.left > 0) return 'different';
  if (course.is_stuck) return 'failed';
  if (course.undecided.found.rows > 0) return 'undecided';
  return FINDING_KINDS.some((kind) => course[kind].found.rows > 0) ? 'repaired' : 'equal';
}

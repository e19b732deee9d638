/**
 * Keys that differ at first sight, of all streams, until they are looked at again: all of them at once, so that one wait for the chain serves all. Bounded:
 * when it is full, what it holds is decided before more is read.
 *
 * Each round reads the source, waits until the chain has been applied past that, reads the target, and the source again (verdict.ts). Nothing is locked;
 * a key that changes in every round stays undecided.
 */

import type { Compared } from './compared.ts';
import type { Difference } from './differences.ts';
import type { FindingKind } from './findings.ts';
import type { Passage, Stuck } from './passage.ts';
import type { Reader, Wanted } from './reader.ts';
import { type Look, verdictOf } from './verdict.ts';

/** Keys in the pool, and bytes of their text. */
const KEYS_MAX = 10_000;
const KEY_BYTES_MAX = 8 * 1024 * 1024;
/** Looks at a key that changes. A finding that must be seen twice takes two. */
const ROUNDS_MAX = 6;

/** A stream whose keys are in the pool. */
export interface Subject {
  readonly stream: string;
  readonly compared: Compared;
  /** No log is read for it: the chain has nothing to bring. */
  readonly is_queried: boolean;
  /** The target keeps rows after they were deleted: extra rows are no findings. */
  readonly keeps_deleted: boolean;
}

export interface Finding {
  readonly kind: FindingKind;
  /** Rows; more than one only of rows without a key. */
  readonly rows: number;
  readonly difference: Difference;
}

/** What became of a stream's keys. */
export interface Decided {
  readonly findings: readonly Finding[];
  readonly undecided: readonly Difference[];
  readonly kept: number;
  /** Why the rest could not be decided. */
  readonly stuck: Stuck | null;
}

interface Doubt {
  readonly difference: Difference;
  last: Look | null;
}

export class Pool<S extends Subject> {
  #differences = new Map<S, Difference[]>();
  #keys = 0;
  #bytes = 0;

  add(subject: S, difference: Difference): void {
    const differences = this.#differences.get(subject) ?? [];
    differences.push(difference);
    this.#differences.set(subject, differences);
    this.#keys += 1;
    for (const text of difference.key ?? []) this.#bytes += Buffer.byteLength(text);
  }

  get isFull(): boolean {
    return this.#keys >= KEYS_MAX || this.#bytes >= KEY_BYTES_MAX;
  }

  /** Empties the pool. */
  take(): ReadonlyMap<S, readonly Difference[]> {
    const taken = this.#differences;
    this.#differences = new Map();
    this.#keys = 0;
    this.#bytes = 0;
    return taken;
  }
}

export interface LookPorts {
  readonly source: Reader;
  readonly target: Reader;
  readonly passage: Passage;
}

/** Looks at these keys until nothing more can be said of them. A stream that fails is told to `onFault`, and is not in the answer. */
export async function decide<S extends Subject>(
  ports: LookPorts,
  differing: ReadonlyMap<S, readonly Difference[]>,
  onFault: (subject: S, error: unknown) => void,
): Promise<Map<S, Decided>> {
  const decided = new Map<S, { findings: Finding[]; undecided: Difference[]; kept: number; stuck: Stuck | null }>();
  const doubts = new Map<S, readonly Doubt[]>();
  for (const [subject, differences] of differing) {
    decided.set(subject, { findings: [], undecided: [], kept: 0, stuck: null });
    doubts.set(
      subject,
      differences.map((difference) => ({ difference, last: null })),
    );
  }
  const guarded = async (subject: S, work: () => Promise<void>): Promise<void> => {
    try {
      await work();
    } catch (error) {
      doubts.delete(subject);
      decided.delete(subject);
      onFault(subject, error);
    }
  };
  for (let round = 0; round < ROUNDS_MAX && doubts.size > 0; round++) {
    const before = new Map<S, Awaited<ReturnType<Reader['seen']>>>();
    for (const [subject, left] of doubts) {
      await guarded(subject, async () => void before.set(subject, await look(ports.source, subject, 'source', left)));
    }
    const isFollowed = [...doubts.keys()].some(({ is_queried }) => !is_queried);
    const lsn = isFollowed ? await ports.source.insertLsn() : null;
    for (const [subject, left] of doubts) {
      await guarded(subject, async () => {
        const answer = decided.get(subject);
        if (answer === undefined) return;
        if (!subject.is_queried && lsn !== null) answer.stuck = await ports.passage.passed(subject.stream, lsn);
        if (answer.stuck !== null) {
          answer.undecided.push(...left.map(({ difference }) => difference));
          doubts.delete(subject);
          return;
        }
        const epoch = await ports.passage.liveEpoch(subject.stream);
        const target = await look(ports.target, subject, 'target', left);
        // An epoch in between: its rows are newer than what is applied, or older for a while.
        const isOne = epoch !== null && epoch === (await ports.passage.liveEpoch(subject.stream));
        if (!isOne && !subject.is_queried) return;
        const after = await look(ports.source, subject, 'source', left);
        const again = left.filter((doubt) => {
          const { place } = doubt.difference;
          const now: Look = {
            before: before.get(subject)?.get(place) ?? null,
            target: target.get(place) ?? null,
            after: after.get(place) ?? null,
          };
          const verdict = verdictOf(now, doubt.last);
          doubt.last = now;
          if (verdict === 'different') {
            const finding = findingOf(doubt.difference, now);
            if (finding.kind === 'extra' && subject.keeps_deleted) answer.kept += finding.rows;
            else answer.findings.push(finding);
          }
          return verdict === 'again';
        });
        if (again.length === 0) doubts.delete(subject);
        else doubts.set(subject, again);
      });
    }
  }
  for (const [subject, left] of doubts)
    decided.get(subject)?.undecided.push(...left.map(({ difference }) => difference));
  return decided;
}

async function look(reader: Reader, { compared }: Subject, side: 'source' | 'target', doubts: readonly Doubt[]) {
  const { key: columns } = compared;
  const wanted: Wanted =
    columns.length === 0
      ? { places: doubts.map(({ difference }) => difference.place) }
      : { columns, keys: doubts.flatMap(({ difference }) => (difference.key === null ? [] : [difference.key])) };
  return await reader.seen(compared[side], wanted);
}

function findingOf(difference: Difference, { before, target }: Look): Finding {
  if (difference.key !== null) {
    const kind = before === null ? 'extra' : target === null ? 'missing' : 'differing';
    return { kind, rows: 1, difference };
  }
  const copies = Number(before?.digest ?? 0) - Number(target?.digest ?? 0);
  return { kind: copies > 0 ? 'missing' : 'extra', rows: Math.abs(copies), difference };
}

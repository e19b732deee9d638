/**
 * Which numbers (pg_attribute.attnum) the columns of a segment have. Pure.
 *
 * The log gives names and types only. Known are the numbers before the segment (the target's table) and some time after it (the catalog, when the
 * segment was staged). Columns stand in the order of their numbers, a dropped number never comes back, and a new one is greater than all before; so
 * what happened in between is taken to be the history with the fewest steps (add, drop, rename, change of type) that leads from the one through the
 * segment to the other. Where two such histories give different numbers, the log does not tell, and the caller has the table read again.
 *
 * While a stream catches up, a segment may be older than the table's copy, and the search has no beginning: it must look as the catalog did when it was
 * staged, or as the table does.
 *
 * One case hangs on it alone: a column that was dropped, and another added with the same name and type in the same place, by somebody who wrote
 * nothing between that and the look at the catalog. The segment's rows may be of either.
 */
import { type Column, looksAlike, type Shape, sameType, type TableDescription } from '../shape.ts';

/** More than any history of possible steps costs. */
const IMPOSSIBLE = 1_000_000;
/** A column that is there before and after is not in the log: a column list of the publication. */
const LEFT_OUT = 3;

export interface Between {
  /** The target's table; columns without a number are no longer the source's. */
  readonly previous: Shape;
  readonly segment: Shape;
  readonly described: TableDescription | undefined;
  /** The segment may be older than `previous`. */
  readonly may_be_older: boolean;
}

/** Numbers in the order of the segment's columns; null: the log does not tell. */
export function numberColumns(between: Between): number[] | null {
  const { segment, described } = between;
  const own = segment.columns.map(({ number }) => number);
  if (own.every((number) => number !== undefined)) return own;
  const same = unchanged(between);
  if (same !== null) return same;
  if (between.may_be_older) return asDescribed(between) ?? byName(between);
  return described ? fewestSteps(between, described) : byName(between);
}

/** The usual case, without a search: nothing has happened before, between and after. */
function unchanged({ previous, segment, described }: Between): number[] | null {
  const before = previous.columns.filter(({ number }) => number !== undefined);
  if (!sameColumns(before, segment.columns)) return null;
  const numbers = before.flatMap(({ number }) => number ?? []);
  if (!described) return numbers;
  const known = new Map(described.columns.map((column) => [column.number, column]));
  const same = before.every((column) => {
    const now = column.number === undefined ? undefined : known.get(column.number);
    return now !== undefined && !now.dropped && looksAlike(now, column);
  });
  const greatest = greatestOf(previous);
  return same && !described.columns.some(({ number, generated }) => number > greatest && generated === '')
    ? numbers
    : null;
}

function sameColumns(a: readonly Column[], b: readonly Column[]): boolean {
  return a.length === b.length && a.every((column, i) => looksAlike(column, b[i] as Column));
}

/** It looks as the catalog did when it was staged. */
function asDescribed({ segment, described }: Between): number[] | null {
  const live = (described?.columns ?? []).filter(({ dropped }) => !dropped);
  const find = (columns: typeof live): number[] | null =>
    sameColumns(columns, segment.columns) ? columns.map(({ number }) => number) : null;
  return (
    find(live.filter(({ generated }) => generated === '')) ?? find(live.filter(({ generated }) => generated !== 'v'))
  );
}

/** Only what is called and typed as in the table is the same: it is not known on which side of it the segment and the catalog stand, if there is one. */
function byName({ previous, segment }: Between): number[] | null {
  const numbers: number[] = [];
  for (const column of segment.columns) {
    const same = previous.columns.find((before) => before.number !== undefined && looksAlike(before, column));
    if (same?.number === undefined) return null;
    numbers.push(same.number);
  }
  return numbers;
}

/** Numbers above it are those of columns that came later. */
export function greatestOf({ greatest = 0, columns }: Shape): number {
  return Math.max(greatest, ...columns.map(({ number }) => number ?? 0));
}

/** A number, and what is known of its column before and after. */
interface Place {
  readonly number: number;
  readonly before: Column | undefined;
  readonly after: TableDescription['columns'][number] | undefined;
  /** It was given after `previous`. */
  readonly isNew: boolean;
}

function placesOf({ previous }: Between, described: TableDescription): Place[] {
  const before = new Map(
    previous.columns.flatMap((column) => (column.number === undefined ? [] : [[column.number, column]])),
  );
  const after = new Map(described.columns.map((column) => [column.number, column]));
  const greatest = greatestOf(previous);
  return [...new Set([...before.keys(), ...after.keys()])]
    .sort((a, b) => a - b)
    .map((number) => ({ number, before: before.get(number), after: after.get(number), isNew: number > greatest }));
}

/** Steps between two sights of one column. */
function stepsBetween(a: Column, b: Column): number {
  return (sameType(a, b) ? 0 : 1) + (a.name === b.name ? 0 : 1);
}

/** Steps in the life of a number that the segment does not have. */
function stepsWithout({ before, after, isNew }: Place): number {
  const isThere = after !== undefined && !after.dropped;
  if (before !== undefined) {
    if (!isThere) return 1;
    return stepsBetween(before, after) + LEFT_OUT;
  }
  if (!isNew || (isThere && after.generated !== '')) return 0;
  return isThere ? 1 : 2;
}

/** Steps in the life of a number that the segment has as `column`. */
function stepsWith({ before, after, isNew }: Place, column: Column): number {
  const isThere = after !== undefined && !after.dropped;
  const since = isThere ? stepsBetween(column, after) : 1;
  if (before !== undefined) return stepsBetween(before, column) + since;
  // It was dropped before `previous`, or was generated and no longer is.
  if (!isNew) return isThere ? 1 + since : IMPOSSIBLE;
  return 1 + since;
}

/** The cheapest alignment, in order, of the segment's columns with numbers. */
function fewestSteps(between: Between, described: TableDescription): number[] | null {
  const { segment } = between;
  const { columns } = segment;
  const places = placesOf(between, described);
  const width = columns.length + 1;
  /** Steps of the first `i` numbers, `j` columns being among them: at `i * width + j`. */
  const steps = new Float64Array((places.length + 1) * width).fill(IMPOSSIBLE);
  const at = (i: number, j: number): number => steps[i * width + j] ?? IMPOSSIBLE;
  const skip = (i: number, j: number): number => at(i - 1, j) + stepsWithout(places[i - 1] as Place);
  const take = (i: number, j: number): number =>
    j === 0 ? IMPOSSIBLE : at(i - 1, j - 1) + stepsWith(places[i - 1] as Place, columns[j - 1] as Column);
  steps[0] = 0;
  for (let i = 1; i <= places.length; i++) {
    for (let j = 0; j <= Math.min(i, columns.length); j++) {
      steps[i * width + j] = Math.min(skip(i, j), take(i, j), IMPOSSIBLE);
    }
  }
  if (at(places.length, columns.length) >= IMPOSSIBLE) return null;

  const walk = (prefersTake: boolean): number[] => {
    const numbers: number[] = [];
    for (let i = places.length, j = columns.length; i > 0; i--) {
      const isTaken = prefersTake ? take(i, j) === at(i, j) : skip(i, j) !== at(i, j);
      if (!isTaken) continue;
      numbers.unshift((places[i - 1] as Place).number);
      j--;
    }
    return numbers;
  };
  const [one, other] = [walk(true), walk(false)];
  return one.every((number, i) => number === other[i]) ? one : null;
}

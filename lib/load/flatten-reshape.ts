/**
 * What a change of the table's shape means for the columns beside its json columns: they go, stay and are renamed with the json column, and make way for a column of the
 * source that needs their name. Pure: more steps, before those of `reshape`.
 */
import type { Column, FlattenedColumn, Shape } from '../shape.ts';
import { METADATA_COLUMNS } from './columns.ts';
import { asKept, flattenedNames, jsonColumnsOf, nameOf } from './flatten.ts';
import { freeName, renameSteps } from './names.ts';
import type { Step } from './reshape.ts';

export interface FlattenedSteps {
  /** To be taken before the others. */
  readonly steps: readonly Step[];
  /** What the table is by then. */
  readonly shape: Shape;
}

/** `steps` lead from `before` to `after`, whose `flattened` is that of before. `now_ms` names what is kept of a column that made way. */
export function reshapeFlattened(before: Shape, after: Shape, steps: readonly Step[], now_ms: number): FlattenedSteps {
  const { flattened } = after;
  if (
    flattened === undefined ||
    flattened.columns.length === 0 ||
    (steps.length === 0 && before.columns === after.columns)
  )
    return { steps: [], shape: after };
  const there = new Set(before.columns.map(({ name }) => name));
  const needed = new Set(after.columns.map(({ name }) => name).filter((name) => !there.has(name)));
  const fates = new Map(before.columns.map((column) => [column.name, fateOf(column, after, steps)]));
  const leaves = (column: FlattenedColumn): boolean =>
    needed.has(column.name) || isRenamed(column, fates.get(column.of));
  const taken = new Set<string>([
    ...there,
    ...needed,
    ...METADATA_COLUMNS,
    ...flattened.columns.filter((column) => !leaves(column)).map(({ name }) => name),
  ]);
  const columns: FlattenedColumn[] = [];
  const kept: Column[] = [];
  const dropped: Step[] = [];
  const renames: { from: string; to: string }[] = [];
  const named = (from: string, to: string): string => {
    taken.add(to);
    if (from !== to) renames.push({ from, to });
    return to;
  };
  for (const column of flattened.columns) {
    const fate = fates.get(column.of) ?? 'goes';
    if (fate === 'goes') {
      dropped.push({ kind: 'drop', name: column.name });
    } else if (fate.kept) {
      const to = leaves(column) ? freeName(column.name, now_ms, taken) : column.name;
      kept.push({ ...asKept(column), name: named(column.name, to) });
    } else {
      const to = leaves(column) ? nameOf(fate.name, column.path, taken) : column.name;
      columns.push({ ...column, of: fate.name, name: named(column.name, to) });
    }
  }
  const all = new Set([...taken, ...flattenedNames(after)]);
  return {
    steps: [...dropped, ...renameSteps(renames, all).map((rename) => ({ kind: 'rename' as const, ...rename }))],
    shape: { ...after, columns: [...after.columns, ...kept], flattened: { ...flattened, columns } },
  };
}

/** What becomes of what stands beside a column. */
type Fate = 'goes' | { readonly name: string; readonly kept: boolean };

function fateOf(column: Column, after: Shape, steps: readonly Step[]): Fate {
  const now = after.columns.find(({ number, name }) =>
    column.number === undefined ? name === column.name : number === column.number,
  );
  if (now !== undefined) {
    return jsonColumnsOf(after).some(({ name }) => name === now.name) ? { name: now.name, kept: false } : 'goes';
  }
  if (steps.some((step) => step.kind === 'drop' && step.name === column.name)) return 'goes';
  const away = steps.find((step) => step.kind === 'rename' && step.from === column.name);
  return { name: away?.kind === 'rename' ? away.to : column.name, kept: true };
}

function isRenamed({ of }: FlattenedColumn, fate: Fate | undefined): boolean {
  return fate !== undefined && fate !== 'goes' && fate.name !== of;
}

/**
 * Names that columns give way to each other by. Pure.
 */

import { fittingName } from '../sql-text.ts';

/** `<name>_YYYYMMDD_HHMM` (UTC), shortened where it is too long, and numbered where it is taken. */
export function freeName(name: string, now_ms: number, taken: ReadonlySet<string>): string {
  const [date = '', time = ''] = new Date(now_ms).toISOString().split('T');
  const stamp = `_${date.replaceAll('-', '')}_${time.slice(0, 5).replace(':', '')}`;
  for (let n = 1; ; n++) {
    const found = fittingName(name, n === 1 ? stamp : `${stamp}_${n}`);
    if (!taken.has(found)) return found;
  }
}

interface Rename {
  readonly from: string;
  readonly to: string;
}

/** Renames one after another with the effect of all at once: names that columns exchange pass through names that nothing has. */
export function renameSteps(renames: readonly Rename[], taken: ReadonlySet<string>): Rename[] {
  const needed = new Set(renames.map(({ to }) => to));
  const passing = new Map<string, string>();
  let n = 0;
  for (const { from } of renames) {
    if (!needed.has(from)) continue;
    let through = `_sluice_rename_${++n}`;
    while (taken.has(through)) through = `_sluice_rename_${++n}`;
    passing.set(from, through);
  }
  return [
    ...[...passing].map(([from, to]) => ({ from, to })),
    ...renames.map(({ from, to }) => ({ from: passing.get(from) ?? from, to })),
  ];
}

/**
 * What a second look at a key says: whether its rows really differ, or one side was only read earlier than the other. Pure.
 *
 * A look reads the source, then the target when the chain has been applied to it up to past what the source had shown, then the source again. If the
 * source's row is the same version before and after, the target must have had it: a difference is a finding. Of a row that is absent on the source, or has
 * no version (of a view, of a table without a key), it may have come and gone in between: such a finding must be seen twice, with
 * the same row on the target.
 */
export interface Seen {
  /** Of the row, or how many copies there are. */
  readonly digest: string;
  /** Empty: it has none. */
  readonly version: string;
}

/** Null: no such row. */
export interface Look {
  readonly before: Seen | null;
  readonly target: Seen | null;
  readonly after: Seen | null;
}

export type Verdict = 'equal' | 'different' | 'again';

/** `previous`: the look before this one; null: this is the first. */
export function verdictOf(look: Look, previous: Look | null): Verdict {
  const { before, target, after } = look;
  if (!isSame(before, after)) return 'again';
  if ((before?.digest ?? null) === (target?.digest ?? null)) return 'equal';
  if (before !== null && before.version !== '') return 'different';
  const wasSame =
    previous !== null &&
    isSame(previous.before, before) &&
    isSame(previous.after, before) &&
    isSame(previous.target, target);
  return wasSame ? 'different' : 'again';
}

function isSame(a: Seen | null, b: Seen | null): boolean {
  return a?.digest === b?.digest && a?.version === b?.version;
}

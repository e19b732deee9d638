/**
 * What differs between the rows of two servers, each in the order of their places: one pass, with one row of either side in memory. Pure.
 */

/** A row of `digestsSql` (checksum.ts). */
export interface DigestRow {
  readonly place: string;
  readonly key: string | null;
  readonly digest: string;
}

/** A key whose rows differ at first sight, and perhaps only because one side was read a moment later. */
export interface Difference {
  readonly place: string;
  /** The key as one of the sides prints it; null: the table has none. */
  readonly key: readonly string[] | null;
  /** Digests, or numbers of copies; null: it is not there. */
  readonly source: string | null;
  readonly target: string | null;
}

/** Neither iterable is read on after it is no longer asked for. */
export async function* differences(
  source: AsyncIterable<DigestRow>,
  target: AsyncIterable<DigestRow>,
): AsyncGenerator<Difference> {
  const [here, there] = [source[Symbol.asyncIterator](), target[Symbol.asyncIterator]()];
  try {
    let [a, b] = await Promise.all([here.next(), there.next()]);
    while (!(a.done && b.done)) {
      const order = a.done ? 1 : b.done ? -1 : compare(a.value.place, b.value.place);
      if (order < 0) {
        yield difference(a.value as DigestRow, null);
        a = await here.next();
      } else if (order > 0) {
        yield difference(null, b.value as DigestRow);
        b = await there.next();
      } else {
        const [mine, theirs] = [a.value as DigestRow, b.value as DigestRow];
        if (mine.digest !== theirs.digest) yield difference(mine, theirs);
        [a, b] = await Promise.all([here.next(), there.next()]);
      }
    }
  } finally {
    await Promise.all([here.return?.(), there.return?.()]);
  }
}

/** Places are hexadecimal digits of one case: as the servers compare them under "C". */
function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

function difference(source: DigestRow | null, target: DigestRow | null): Difference {
  const { place, key } = (source ?? target) as DigestRow;
  return {
    place,
    key: key === null ? null : (JSON.parse(key) as string[]),
    source: source?.digest ?? null,
    target: target?.digest ?? null,
  };
}

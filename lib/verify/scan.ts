/**
 * Reads one stream's rows on both sides, range by range: checksums of buckets, and of the buckets that differ the digests of their rows. Bounded: a range
 * has so many rows, however many the table has; where ranges do not mean the same on both servers there are more buckets instead.
 */
import type { ChunkRange } from '../ports.ts';
import { BUCKETS_MAX, bucketsSql, type Digests, digestsSql, rangeEndSql } from './checksum.ts';
import type { Compared } from './compared.ts';
import { type Difference, differences } from './differences.ts';
import type { Bucket, Reader } from './reader.ts';

/** Rows of a range, and of a bucket: what is read again where one row differs. */
export const RANGE_ROWS = 100_000;
const BUCKET_ROWS = 100;
const WHOLE_BUCKETS = { min: 256, max: 65_536 } as const;

export interface ScanPorts {
  readonly source: Reader;
  readonly target: Reader;
  readonly range_rows: number;
}

export interface Scan {
  /** Rows of the source. */
  readonly onRows: (rows: number) => void;
  /** True: there is room for more. */
  readonly onDifference: (difference: Difference) => boolean;
  /** Makes room, where there is none; nothing is being read then. */
  readonly onFull: () => Promise<void>;
}

export async function scan(ports: ScanPorts, compared: Compared, rows_estimate: number, told: Scan): Promise<void> {
  if (!compared.ranges) {
    const wished = Math.ceil(rows_estimate / BUCKET_ROWS);
    const buckets = Math.min(BUCKETS_MAX, WHOLE_BUCKETS.max, Math.max(WHOLE_BUCKETS.min, wished));
    return await scanRange(ports, compared, { by: 'whole' }, buckets, told);
  }
  const buckets = Math.max(1, Math.ceil(ports.range_rows / BUCKET_ROWS));
  const { key: columns } = compared;
  for (let from: readonly string[] | null = null; ; ) {
    const to: readonly string[] | null = await ports.source.rangeEnd(
      rangeEndSql(compared.source, columns, from, ports.range_rows),
    );
    await scanRange(ports, compared, { by: 'key', columns, from, to }, buckets, told);
    if (to === null) return;
    from = to;
  }
}

async function scanRange(
  { source, target }: ScanPorts,
  compared: Compared,
  range: ChunkRange,
  buckets: number,
  { onRows, onDifference, onFull }: Scan,
): Promise<void> {
  const asked = [
    source.buckets(bucketsSql(compared.source, range, buckets)),
    target.buckets(bucketsSql(compared.target, range, buckets)),
  ] as const;
  // Where one of them fails, the other is waited for: its connection is used for the next stream.
  await Promise.allSettled(asked);
  const [here, there] = await Promise.all(asked);
  onRows([...here.values()].reduce((sum, { rows }) => sum + Number(rows), 0));
  const wanted = differingBuckets(here, there);
  if (wanted.length === 0) return;
  let after: string | null = null;
  for (;;) {
    const request: Digests = { buckets, wanted, after };
    let last: string | null = null;
    for await (const difference of differences(
      source.digests(digestsSql(compared.source, range, request)),
      target.digests(digestsSql(compared.target, range, request)),
    )) {
      if (onDifference(difference)) continue;
      last = difference.place;
      break;
    }
    if (last === null) return;
    await onFull();
    after = last;
  }
}

/** Pure. */
export function differingBuckets(here: ReadonlyMap<number, Bucket>, there: ReadonlyMap<number, Bucket>): number[] {
  const all = new Set([...here.keys(), ...there.keys()]);
  return [...all].filter((bucket) => {
    const [mine, theirs] = [here.get(bucket), there.get(bucket)];
    return mine?.rows !== theirs?.rows || mine?.sum !== theirs?.sum;
  });
}

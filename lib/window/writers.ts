/**
 * Between the publication and the capture (I11): the transactions that may have written before a table was published are waited for, as CREATE INDEX CONCURRENTLY
 * does. Whose table somebody goes on writing to, or has left a prepared transaction on, is captured by a later window; the others are captured now (I10).
 */
import type { StreamDefinition } from '../config/selection.ts';
import type { Lsn } from '../lsn.ts';
import type { Clock, Log, Source, Writer } from '../ports.ts';
import { displayName } from '../shape.ts';

/** Writers are waited for this long; the next window tries again. */
const WRITERS_WAIT_MS_MAX = 30_000;
const WRITERS_POLL_MS = 200;

interface WriterPorts {
  readonly clock: Clock;
  readonly log: Log;
  readonly source: Source;
}

export interface Capturable {
  /** Those that nobody writes to who began before. */
  readonly free: readonly StreamDefinition[];
  readonly log_from: Lsn | null;
}

/**
 * Waits for the writers. `log_from`, of the streams that were `seen` by the log before: all that was written as the source was then is of
 * transactions that have their commit before it, and are seen by every later snapshot. So they are copied, and followed from there: what the log has of them
 * from before may have gaps, which nothing that comes after closes (the table was out of the publication for a while, or a partition was detached), or show what is
 * to be hidden.
 */
export async function capturable(
  ports: WriterPorts,
  wanted: readonly StreamDefinition[],
  seen: readonly StreamDefinition[],
  asked: () => boolean,
): Promise<Capturable> {
  const free = await withoutWriters(ports, wanted, asked);
  const again = free.filter((stream) => seen.includes(stream));
  if (again.length === 0) return { free, log_from: null };
  const log_from = await ports.source.insertLsn();
  // One whose commit lies before it may not be seen yet, and holds its locks until it is.
  const unwritten = new Set(await withoutWriters(ports, again, asked));
  return { free: free.filter((stream) => !seen.includes(stream) || unwritten.has(stream)), log_from };
}

/** Waits until every transaction that may have written unpublished has ended; those of the streams where all have, within the limit, or when the window shall end. */
async function withoutWriters(
  { source, clock, log }: WriterPorts,
  wanted: readonly StreamDefinition[],
  asked: () => boolean,
): Promise<readonly StreamDefinition[]> {
  const tables = wanted.map(({ table }) => table);
  const before = await source.writers(tables);
  const names = new Set(before.map(({ transaction }) => transaction));
  const until_ms = clock.now() + WRITERS_WAIT_MS_MAX;
  for (let now: readonly Writer[] = before; ; now = await source.writers(tables)) {
    const open = now.filter(({ transaction }) => names.has(transaction));
    if (open.length === 0) return wanted;
    const isLate = clock.now() >= until_ms;
    if (isLate || asked()) {
      const written = new Set(open.flatMap((writer) => writer.tables));
      const held = wanted.filter((stream) => isAmong(written, stream));
      if (isLate) {
        log.warn('capture_waits_for_writers', {
          tables: held.map((stream) => displayName(stream.source)),
          processes: open.map(({ pid, transaction }) => pid ?? `prepared transaction ${transaction}`),
          remedy: 'End or commit these transactions; the next window tries again.',
        });
      }
      return wanted.filter((stream) => !held.includes(stream));
    }
    await clock.sleep(WRITERS_POLL_MS);
  }
}

/** Who writes to a partition by its own name locks that one only. */
function isAmong(oids: ReadonlySet<number>, { table }: StreamDefinition): boolean {
  return oids.has(table.oid) || (table.partitions ?? []).some(({ oid }) => oids.has(oid));
}

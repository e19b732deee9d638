/**
 * TRUNCATE where the log does not have it: pgoutput before PostgreSQL 11, and format 1 of wal2json. It gives the table another file, and so do VACUUM FULL
 * and CLUSTER: a stream remembers the file of its table there, and is captured anew when that is another one.
 *
 * On the path at a window's beginning, when it is known what the plugin speaks. Where the log has TRUNCATE, nothing is compared, and a table that is
 * only written anew costs nothing.
 */
import type { StreamDefinition } from '../config/selection.ts';
import { SluiceError } from '../errors.ts';
import type { Bookmark, Clock, Ledger, Log, SlotDialect } from '../ports.ts';
import { TRUNCATE_LOGGED_SINCE } from '../postgres/versions.ts';
import { displayName } from '../shape.ts';
import { captureAnew, haltStream } from './halt.ts';

/** Of a server of `version` (server_version_num) whose plugin speaks `dialect`. */
export function logsTruncate(version: number, dialect: SlotDialect = { plugin: 'pgoutput' }): boolean {
  return version >= TRUNCATE_LOGGED_SINCE && !(dialect.plugin === 'wal2json' && dialect.format === 1);
}

interface Seen {
  /** As the window has read them, before it captured any. */
  readonly streams: readonly StreamDefinition[];
  /** After it captured. */
  readonly captured: readonly Bookmark[];
}

/**
 * Holds the tables' files against those that their streams remember. `on_truncate` decides what becomes of a stream whose table has another one: copied
 * anew by the next window, halted, or nothing.
 */
export async function noteTruncated(
  ports: { readonly ledger: Ledger; readonly clock: Clock; readonly log: Log },
  { streams, captured }: Seen,
  on_truncate: 'apply' | 'ignore' | 'halt',
): Promise<void> {
  const { ledger } = ports;
  const known = new Map(captured.map((bookmark) => [bookmark.stream, bookmark]));
  for (const { id, table } of streams) {
    const { followed, reset_requested = true } = known.get(id) ?? {};
    const { filenode: file } = table;
    if (!followed || reset_requested || file === undefined || followed.file === file) continue;
    const now = { ...followed, file };
    // What an older version has captured is looked at from here on.
    if (typeof followed.file !== 'string' || on_truncate === 'ignore') {
      await ledger.updateBookmark(id, { followed: now });
    } else if (on_truncate === 'halt') {
      const fault = new SluiceError('TRUNCATE_HALTED', { stream: displayName(table), unlogged: true });
      await haltStream(ports, id, fault, { cut: null, must_reset: false }, { followed: now });
    } else {
      const reason = 'it was truncated or written anew, which the log does not tell apart';
      await captureAnew(ports, id, { table: displayName(table), reason });
    }
  }
}

/**
 * The streams that the chain has captured, and whose a table in the log is. On the path between a decoded Relation message and the open cut.
 *
 * A table is its OID, not its name (https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html: Relation gives both). The catalog
 * that the streams were read from is of one moment; the log goes from before it to after it.
 */
import type { Relation } from '../change.ts';
import { SluiceError } from '../errors.ts';
import type { Lsn } from '../lsn.ts';
import type { Projection } from '../projection/projection.ts';
import { displayName, tableKey } from '../shape.ts';
import type { StreamChecks } from '../validation/stream-checks.ts';
import type { Keyless } from './multiset.ts';

/** A stream that the chain has captured. `key` names the columns where the log does not tell them (REPLICA IDENTITY FULL). */
export interface CapturedStream {
  readonly stream: string;
  readonly schema: string;
  readonly table: string;
  readonly key: readonly string[];
  /** The table, by OID: what goes by its name and is another table is not followed. */
  readonly oid?: number;
  /** It may lose its key, and is then copied anew as a table without one; left out: it halts. */
  readonly key_may_go?: boolean;
  /** Where the table has no key. */
  readonly keyless?: Keyless;
  /** What of its columns is hidden. */
  readonly projection?: Projection | null;
  /** Names of all its columns, and names and numbers of those that are hidden, in the catalog that the window has read. */
  readonly known?: {
    readonly columns: ReadonlySet<string>;
    readonly hidden: readonly string[];
    readonly numbers: ReadonlySet<number>;
  };
  /** Its rows are checked before they are taken (target.validate_records). */
  readonly checks?: StreamChecks;
  /** The source leaves rows out (row filter): what it tells as an insert may be an update. */
  readonly filtered?: boolean;
  /** SourceTable.lsn. */
  readonly lsn?: boolean;
  /** Bookmark.log_from. */
  readonly log_from?: Lsn;
}

export class CapturedStreams {
  #byName: ReadonlyMap<string, CapturedStream>;
  #byOid: ReadonlyMap<number, CapturedStream>;
  #catalog_lsn: Lsn;

  /** Every commit before `catalog_lsn` is older than the catalog that `streams` were read from. */
  constructor(streams: readonly CapturedStream[], catalog_lsn: Lsn) {
    this.#byName = new Map(streams.map((stream) => [tableKey(stream), stream]));
    this.#byOid = new Map(streams.flatMap((stream) => (stream.oid === undefined ? [] : [[stream.oid, stream]])));
    this.#catalog_lsn = catalog_lsn;
  }

  /**
   * Whose changes come under this description, in a transaction that ends at `commit_lsn`; null: nobody's. Before the catalog the log may have names and tables
   * of the past: what a stream follows is its own under whatever name, and another table under its name is one that is gone. Later, either is
   * news: `fault` says why the stream cannot go on (TABLE_RENAMED, TABLE_REWRITTEN).
   */
  of(
    relation: Relation,
    commit_lsn: Lsn,
  ): { readonly stream: CapturedStream; readonly fault: SluiceError | null } | null {
    const byName = this.#byName.get(tableKey(relation));
    const byOid = this.#byOid.get(relation.id);
    const isPast = commit_lsn < this.#catalog_lsn;
    if (byOid) {
      if (byOid === byName || isPast) return { stream: byOid, fault: null };
      const facts = { table: displayName(byOid), now: displayName(relation) };
      return { stream: byOid, fault: new SluiceError('TABLE_RENAMED', facts) };
    }
    if (!byName) return null;
    if (byName.oid === undefined) return { stream: byName, fault: null };
    if (isPast) return null;
    const what = 'it was dropped, and another table was made under its name';
    return { stream: byName, fault: new SluiceError('TABLE_REWRITTEN', { stream: displayName(byName), what }) };
  }
}

/**
 * Whether the ground is firm: what the source says of itself and of our slot, held against the chain's end (design §3, Window 2).
 *
 * Pure. A recreated slot, an advanced one or another cluster would be a hole (I1) that nobody sees: each is a fault here, before anything is read.
 */
import { type ErrorCode, type Facts, SluiceError } from '../errors.ts';
import { formatLsn } from '../lsn.ts';
import type { Cut, Ground, SlotRow } from '../ports.ts';
import { versionText } from '../postgres/session.ts';
import { quoteIdentifier } from '../sql-text.ts';
import { failoverFault } from './failover.ts';

/** Logical replication with pgoutput came with PostgreSQL 10. */
const SOURCE_VERSION_MIN = 100_000;
/**
 * Releases of a major version before which logical decoding loses data (release notes of 10.7 and 11.2: changes of transactions that ended while a
 * slot was made, and of subtransactions with catalog changes). From 12.0 on every release has the fixes.
 */
const MINOR_MIN: Readonly<Record<number, number>> = { 10: 7, 11: 2 };

/** Encodings that PostgreSQL has no conversion from. To a database in MULE_INTERNAL no client in UTF8 can connect at all (connection.ts). */
const UNCONVERTED: Readonly<Record<string, string>> = {
  SQL_ASCII: 'PostgreSQL does not know what its bytes above 127 mean',
};

export interface GroundExpectations {
  readonly host: string;
  readonly port: number;
  readonly database: string;
  readonly slot: string;
  readonly plugin: string;
  /** The slot is to be kept on standbys. */
  readonly failover?: boolean | null;
  /** False: the slot must be there already, and is taken over as it stands. */
  readonly create_slot: boolean;
  /** The ledger says that we were about to make the slot: one that is there without a chain is ours, from a window that died in between. */
  readonly slot_intended: boolean;
  /** The chain's end; null: there is no chain yet. */
  readonly head: Pick<Cut, 'end_lsn' | 'system_identifier' | 'timeline'> | null;
}

export type SlotExpectations = Pick<
  GroundExpectations,
  'database' | 'slot' | 'plugin' | 'create_slot' | 'slot_intended' | 'head'
>;

/** The first fault that keeps a window from reading; null: none. Whether the slot is in use by another is not looked at here. */
export function groundFault(ground: Ground, expected: GroundExpectations): SluiceError | null {
  return serverFault(ground, expected) ?? clusterFault(ground, expected) ?? slotFault(ground.slot, expected);
}

/** What the server must be where it is only asked for rows: also a standby, whatever its wal_level, with any role that may SELECT. */
export function readingFault({ version, encoding }: Pick<Ground, 'version' | 'encoding'>): SluiceError | null {
  if (version >= SOURCE_VERSION_MIN) return encodingFault(encoding, 'pgoutput');
  const facts = { side: 'source', version: versionText(version), minimum: versionText(SOURCE_VERSION_MIN) };
  return new SluiceError('VERSION_UNSUPPORTED', facts);
}

/** What the server and the role must be, whatever the slot. */
export function serverFault(
  ground: Ground,
  { host, port, plugin, failover }: Pick<GroundExpectations, 'host' | 'port' | 'plugin' | 'failover'>,
): SluiceError | null {
  const outdated = versionFault(ground.version) ?? failoverFault(ground.version, failover);
  if (outdated) return outdated;
  if (ground.in_recovery) return new SluiceError('SOURCE_IS_STANDBY', { host, port });
  if (ground.wal_level !== 'logical') return new SluiceError('WAL_LEVEL', { wal_level: ground.wal_level });
  if (!ground.may_replicate) {
    return new SluiceError('REPLICATION_NOT_ALLOWED', { user: ground.user, user_sql: quoteIdentifier(ground.user) });
  }
  return encodingFault(ground.encoding, plugin);
}

function versionFault(version: number): SluiceError | null {
  const major = Math.floor(version / 10_000);
  const minor = MINOR_MIN[major];
  const facts = { side: 'source', version: versionText(version) };
  if (version < SOURCE_VERSION_MIN) {
    return new SluiceError('VERSION_UNSUPPORTED', { ...facts, minimum: versionText(SOURCE_VERSION_MIN) });
  }
  if (minor === undefined || version % 10_000 >= minor) return null;
  const reason = 'logical decoding loses data in this minor release';
  return new SluiceError('VERSION_UNSUPPORTED', { ...facts, minimum: `${major}.${minor}`, reason });
}

/** A walsender converts what pgoutput writes to the client's encoding, as every other server process does; it passes on what wal2json writes as it is. */
function encodingFault(encoding: string, plugin: string): SluiceError | null {
  if (encoding === 'UTF8') return null;
  const reason =
    UNCONVERTED[encoding] ??
    (plugin === 'pgoutput' ? null : `the server does not convert what ${plugin} writes, as it does with pgoutput`);
  return reason === null ? null : new SluiceError('ENCODING_UNSUPPORTED', { side: 'source', encoding, reason });
}

/**
 * Whether the chain's positions mean anything on this server. A later timeline alone is no fault: a failover slot (17+) survives a promotion, and
 * where none survived, the slot is missing. An earlier one is a server that was left behind; and a server whose log ends before the chain
 * was restored, or promoted without what we have read: it will write other changes at positions that we hold for done.
 */
export function clusterFault(ground: Ground, { head }: Pick<GroundExpectations, 'head'>): SluiceError | null {
  if (!head) return null;
  const changed = (what: string, found: string | number, expected: string | number): SluiceError =>
    new SluiceError('CLUSTER_CHANGED', { what, found, expected });
  if (ground.system_identifier !== head.system_identifier) {
    return changed('system_identifier', ground.system_identifier, head.system_identifier);
  }
  if (ground.timeline < head.timeline) return changed('timeline', ground.timeline, head.timeline);
  if (ground.flush_lsn < head.end_lsn) return new SluiceError('CLUSTER_BEHIND', { expected: formatLsn(head.end_lsn) });
  return null;
}

/**
 * Faults that tell that the chain's place in the log is gone for good, for every stream; nothing but a new slot and a copy of what differs brings them on
 * (`resume --resync`). A slot that is missing before there has been one (`known: false`) is not among them.
 */
const POSITION_LOST: ReadonlySet<string> = new Set<ErrorCode>([
  'SLOT_LOST',
  'SLOT_MISSING',
  'SLOT_ADVANCED',
  'CLUSTER_CHANGED',
  'CLUSTER_BEHIND',
]);

export function isPositionLost({ code, facts = {} }: { readonly code: string; readonly facts?: Facts }): boolean {
  return POSITION_LOST.has(code) && facts.known !== false;
}

export function slotFault(row: SlotRow | null, expected: SlotExpectations): SluiceError | null {
  const { slot, head } = expected;
  if (!row) {
    if (head) return new SluiceError('SLOT_MISSING', { slot, lsn: formatLsn(head.end_lsn), known: true });
    return expected.create_slot
      ? null
      : new SluiceError('SLOT_MISSING', { slot, plugin: expected.plugin, known: false });
  }
  if (row.plugin !== expected.plugin) {
    const found = row.plugin === 'physical' ? 'nothing (it is a physical slot)' : row.plugin;
    return new SluiceError('SLOT_PLUGIN', { slot, found, expected: expected.plugin });
  }
  if (row.database !== expected.database) {
    return new SluiceError('SLOT_DATABASE', { slot, found: row.database, expected: expected.database });
  }
  if (row.wal_status === 'lost' || row.invalidation_reason !== null) {
    return new SluiceError('SLOT_LOST', { slot, reason: row.invalidation_reason ?? 'wal_removed' });
  }
  if (head) {
    return row.confirmed_lsn > head.end_lsn
      ? new SluiceError('SLOT_ADVANCED', {
          slot,
          confirmed: formatLsn(row.confirmed_lsn),
          ledger: formatLsn(head.end_lsn),
        })
      : null;
  }
  return expected.create_slot && !expected.slot_intended ? new SluiceError('SLOT_FOREIGN', { slot }) : null;
}

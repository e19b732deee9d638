/**
 * What stops a run before its first window: the doctor's findings, of which some matter here and some do not. Pure.
 *
 * A stream that cannot go on halts alone (I10), and a target that is away costs no WAL: once streams are captured, only what stops every window stops the
 * run. Before that, nothing has begun, and a fault in the file is better told than half of it replicated.
 */
import type { Finding } from '../../lib/doctor/finding.ts';
import { isPositionLost } from '../../lib/slot/ground.ts';

/** Names of checks (lib/doctor) whose errors no window can get past. */
const STOPS_EVERY_WINDOW: ReadonlySet<string> = new Set([
  'source_connection',
  'source_server',
  'source_replication',
  'source_plugin',
  'source_cluster',
  'slot',
  'slot_room',
]);
/** No loader can get past these. */
const STOPS_EVERY_LOAD: ReadonlySet<string> = new Set(['target_connection', 'target_server', 'target_writable']);
/** Of some tables, or of what is made at the beginning. */
const STOPS_THE_FIRST: ReadonlySet<string> = new Set([
  'publication',
  'tables_selected',
  'target_rights',
  'target_tables',
]);

export interface Begun {
  /** Streams have been captured before: the ledger has bookmarks. Null: the ledger has not been looked at, and tables are not judged yet. */
  readonly captured: boolean | null;
  /** Windows run on and on: what may pass by itself is waited for. */
  readonly lasting: boolean;
}

/** The errors among `findings` that stop the run now; what only remains to be said stays with the caller. */
export function whatStops(findings: readonly Finding[], { captured, lasting }: Begun): Finding[] {
  return findings.filter(({ severity, check, code }) => {
    if (severity !== 'error') return false;
    // The window has the streams halt for it, or, where that was asked for, makes a new slot.
    if (captured !== false && code !== undefined && isPositionLost({ code })) return false;
    if (STOPS_EVERY_WINDOW.has(check)) return true;
    if (STOPS_EVERY_LOAD.has(check)) return !(lasting && captured !== false && code === 'CONNECTION_FAILED');
    return captured === false && STOPS_THE_FIRST.has(check);
  });
}

/** An error of some tables: the others go on, and the run has not done all that the file asks for. */
export function isOfTables({ severity, check }: Finding): boolean {
  return severity === 'error' && STOPS_THE_FIRST.has(check);
}

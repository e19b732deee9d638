/**
 * The transaction in which rows, keys and checksums are read: read only, with everything pinned by which values are written (I6), and with an end to waiting.
 */
import { pinSettingsSql } from './connection.ts';

/** Whoever has locked a table is waited for so long; then the work is tried again. */
const LOCK_WAIT_MS_MAX = 60_000;

/**
 * The settings are pinned once more for the transaction: a pooler may give each another session. With `row_security` off, rows that a policy would hide are an
 * error, and not a smaller table; `on` is for a view, which shows what it is for.
 */
export function beginReadOnlySql(
  isolation: 'READ COMMITTED' | 'REPEATABLE READ',
  row_security: 'on' | 'off' = 'off',
): string {
  return `BEGIN ISOLATION LEVEL ${isolation} READ ONLY; ${pinSettingsSql('LOCAL')}; SET LOCAL row_security = ${row_security}; SET LOCAL lock_timeout = ${LOCK_WAIT_MS_MAX}`;
}

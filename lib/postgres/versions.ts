/**
 * When PostgreSQL came to have what more than one place asks for, as server_version_num gives versions.
 */

/** pg_replication_slot_advance. */
export const SLOT_ADVANCE_SINCE = 110_000;
/** TRUNCATE in logical decoding and in publications. */
export const TRUNCATE_LOGGED_SINCE = 110_000;
/** Stored generated columns, and pg_attribute.attgenerated. */
export const GENERATED_COLUMNS_SINCE = 120_000;
/** `Infinity` as a value of numeric, and as one of interval. */
export const NUMERIC_INFINITY_SINCE = 140_000;
export const INTERVAL_INFINITY_SINCE = 170_000;
export const VIRTUAL_COLUMNS_SINCE = 180_000;
/** Stored generated columns may be in publications: pg_publication.pubgencols. */
export const GENERATED_PUBLISHED_SINCE = 180_000;

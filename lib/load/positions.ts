/**
 * `_sluice.positions`: what a reader of the target may want to know of it, one row a stream. Read in the same transaction as the tables, it is true of them.
 *
 * - state:      live, catching_up (rows may be older than others of the table), syncing (it is copied: anew, beside the table, which is as it was, and the
 *               first time not there; or chunk after chunk into it), halted (it waits for a person, `halt` says with which error; noted by the loader
 *               that meets it)
 * - as_of_lsn:  all that the source had committed up to here is in the table; and nothing that it committed later, but for chunks of a copy while it catches
 *               up or is copied into. NULL while there is no copy, and of a stream that is read by query
 * - as_of:      when the source committed the last of it; of a stream that is read by query, when its rows were asked for
 * - together:   it moves in one transaction with all others of the pipeline that say so, and they are of the same commit (consistency: transaction)
 */
export const POSITIONS_SQL = `CREATE VIEW _sluice.positions AS
  SELECT pipeline, stream, target_schema, target_table,
    CASE WHEN halt IS NOT NULL THEN 'halted' WHEN hold IS NOT NULL OR NOT made THEN 'syncing'
         WHEN catching_up_to IS NOT NULL THEN 'catching_up' ELSE 'live' END AS state,
    halt,
    CASE WHEN made AND NOT by_query THEN applied_lsn END AS as_of_lsn,
    CASE WHEN made THEN as_of END AS as_of,
    applied_at,
    together AND hold IS NULL AND catching_up_to IS NULL
      AND applied_cut = max(applied_cut) FILTER (WHERE together) OVER (PARTITION BY pipeline, incarnation) AS together
  FROM _sluice.streams`;

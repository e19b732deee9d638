/**
 * What the catalog says of partitioned tables, as parts of larger queries: which tables are below one, and what their rows went through without a word
 * in the log of the root.
 *
 * Under publish_via_partition_root the log has changes of partitions as changes of the root. It has nothing of a partition that is attached with
 * its rows, detached, dropped, or truncated by itself: these show in the catalog only.
 * https://www.postgresql.org/docs/current/sql-createpublication.html, catalog-pg-inherits.html
 */

/** publish_via_partition_root came with PostgreSQL 13. */
export const FOLD_SINCE = 130_000;

/** CTE `tree` (oid): the table of the OID expression `root`, and all that is below it. */
export function treeSql(root: string): string {
  return `tree AS (
      SELECT ${root} AS oid UNION ALL SELECT i.inhrelid FROM pg_inherits i JOIN tree ON i.inhparent = tree.oid
    )`;
}

/**
 * CTEs `above` (oid, ancestors: nearest first) and `below` (root, partitions, rows, pages, toasted) for the tables of a CTE `wanted`.
 * `rows` and `pages` are expressions over a pg_class row `c`. A partition's mark is its file node (another one after TRUNCATE, VACUUM FULL,
 * and an ALTER TABLE that writes rows anew) and the transaction that made it a partition.
 */
export function partitionsSql(version: number, one: boolean, { rows, pages }: { rows: string; pages: string }): string {
  if (version < FOLD_SINCE) {
    return `above AS (SELECT 0::oid AS oid, NULL::json AS ancestors WHERE false),
      below AS (SELECT 0::oid AS root, NULL::json AS partitions, 0 AS rows, 0 AS pages, false AS toasted WHERE false)`;
  }
  const toasted = `c.reltoastrelid <> 0 ${one ? 'AND pg_relation_size(c.reltoastrelid) > 0' : ''}`;
  return `tree AS (
      SELECT w.oid AS root, i.inhrelid AS oid, i.xmin::text AS since, 1 AS depth
        FROM wanted w JOIN pg_inherits i ON i.inhparent = w.oid
       WHERE w.relkind = 'p'
       UNION ALL
      SELECT tree.root, i.inhrelid, i.xmin::text, tree.depth + 1
        FROM tree JOIN pg_inherits i ON i.inhparent = tree.oid
    ), above AS (
      SELECT tree.oid, json_agg(tree.root::int8 ORDER BY tree.depth) AS ancestors FROM tree GROUP BY tree.oid
    ), sized AS (
      -- A partition without a page has no rows, analysed or not.
      SELECT tree.root, tree.oid, tree.since, c.relfilenode, ${toasted} AS toasted,
             CASE WHEN c.relkind <> 'r' THEN 0 ELSE ${pages} END AS pages,
             CASE WHEN c.relkind <> 'r' OR ${pages} = 0 THEN 0 ELSE ${rows} END AS rows
        FROM tree JOIN pg_class c ON c.oid = tree.oid
    ), below AS (
      SELECT root,
             json_agg(json_build_array(oid::int8, relfilenode || '.' || since) ORDER BY oid) AS partitions,
             CASE WHEN bool_and(rows >= 0) THEN sum(rows) ELSE -1 END AS rows,
             sum(pages) AS pages,
             bool_or(toasted) AS toasted
        FROM sized
       GROUP BY root
    )`;
}

/**
 * Which of the partitions $1 (OIDs) may have had rows before they became partitions. One that is empty had none that matter: what it had and lost is
 * not on the target. One that CREATE TABLE … PARTITION OF made had none: the entry of pg_inherits is of the transaction that made the
 * table, and some column stands as it was when the table was made, by the very command, while ATTACH PARTITION writes every column's
 * entry anew, also in one transaction with the CREATE TABLE. Who cannot be told is named.
 */
export const FILLED_BEFORE_SQL = `
  WITH partitions AS (
    SELECT c.oid, c.relkind, c.relkind = 'r' AND pg_relation_size(c.oid) > 0 AS filled
      FROM pg_class c
     WHERE c.oid = ANY ($1::oid[])
  )
  SELECT p.oid::int8::text AS oid
    FROM partitions p
   WHERE CASE p.relkind WHEN 'r' THEN p.filled ELSE EXISTS (SELECT FROM partitions WHERE filled) END
     AND NOT EXISTS (
       SELECT FROM pg_attribute made
         JOIN pg_attribute a ON a.attrelid = made.attrelid AND a.attnum > 0 AND a.xmin = made.xmin AND a.cmin = made.cmin
         JOIN pg_inherits i ON i.inhrelid = made.attrelid AND i.xmin = made.xmin
        WHERE made.attrelid = p.oid
          -- ctid: an entry that nothing ever changes.
          AND made.attnum = -1)`;

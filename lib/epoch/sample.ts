/**
 * A look at some of a table's pages, before it is cut into chunks: how many rows and bytes it has, and by which keys it falls into parts of the same
 * weight (design §3, Epochs 3). Nothing is scanned but a bounded number of pages, and nothing depends on ANALYZE or on how the keys are spread.
 *
 * TABLESAMPLE SYSTEM takes whole pages by chance; their rows are sorted by key on the source, by the very order in which ranges are compared there. A
 * row weighs 1/chunk_rows + bytes/chunk_bytes, so that a chunk has neither more rows nor more bytes than it should, also where large rows lie
 * together.
 * https://www.postgresql.org/docs/current/sql-select.html (TABLESAMPLE), functions-admin.html (pg_table_size, pg_column_size)
 */
import type { Client } from 'pg';
import type { SampleRequest, SourceTable, TableSample } from '../ports.ts';
import { beginReadOnlySql } from '../postgres/read-only.ts';
import { one, serverVersion } from '../postgres/session.ts';
import { treeSql } from '../slot/partitions.ts';
import { quoteIdentifier, quoteTable } from '../sql-text.ts';

/** Pages for each chunk: its size then comes out within some ten percent, also where keys lie in order and a page is as good as one key. */
const PAGES_PER_CHUNK = 40;
const PAGES_MIN = 200;
const PAGES_MAX = 20_000;
/** Rows that are sorted by key: of pages with many, some of each. */
const ROWS_MAX = 200_000;
/** A page of 8 kB has no more rows (MaxHeapTuplesPerPage, access/htup_details.h); of other block sizes the first look is a guess. */
const ROWS_PER_PAGE_MAX = 291;

interface Size {
  readonly bytes: number;
  readonly pages: number;
}

interface SampleRow {
  readonly rows: number;
  readonly chunks: number;
  readonly correlation: number | null;
  readonly edges: readonly (readonly string[])[] | null;
}

/** One table's sample, over a connection with the pinned settings. Throws what the server says. */
export async function sampleTable(client: Client, table: SourceTable, request: SampleRequest): Promise<TableSample> {
  // As for a chunk: keys are compared and read again as they are printed here.
  await client.query(beginReadOnlySql('READ COMMITTED'));
  const size = await readSize(client, table);
  const { chunk_rows, chunk_bytes, chunks_max } = request;
  const known = { version: await serverVersion(client), bytes: size.bytes, pages: size.pages };
  const heaviest = (size.pages * ROWS_PER_PAGE_MAX) / chunk_rows + size.bytes / chunk_bytes;
  if (heaviest <= 1) {
    await client.query('COMMIT');
    return { ...known, rows: size.pages === 0 ? 0 : table.rows_estimate, chunks: 1, edges: [], correlation: null };
  }
  const pages = Math.min(PAGES_MAX, Math.max(PAGES_MIN, PAGES_PER_CHUNK * Math.ceil(Math.min(heaviest, chunks_max))));
  // As the server keeps it, in single precision.
  const percent = Math.fround(Math.min(100, (100 * pages) / size.pages));
  const kept = Math.min(1, ROWS_MAX / (Math.min(pages, size.pages) * ROWS_PER_PAGE_MAX));
  const scale = 100 / percent / kept;
  const { rows } = await client.query<SampleRow>(sampleSql(table, request, { percent, kept, scale }));
  await client.query('COMMIT');
  const sample = one(rows);
  return {
    ...known,
    rows: Math.round(sample.rows * scale),
    chunks: Math.max(1, sample.chunks),
    edges: sample.edges ?? [],
    correlation: sample.correlation,
  };
}

/** Of the table alone; of a partitioned one, with all that is below it. */
async function readSize(client: Client, table: SourceTable): Promise<Size> {
  const tree = table.kind === 'p' ? treeSql('$1::oid') : 'tree AS (SELECT $1::oid AS oid)';
  const { rows } = await client.query<Size>(
    `WITH RECURSIVE ${tree}
     SELECT COALESCE(sum(pg_table_size(c.oid)), 0)::float8 AS bytes,
            COALESCE(sum(pg_relation_size(c.oid)), 0)::float8 / current_setting('block_size')::int4 AS pages
       FROM tree JOIN pg_class c ON c.oid = tree.oid
      WHERE c.relkind IN ('r', 'm')`,
    [table.oid],
  );
  return one(rows);
}

interface Share {
  /** Of the pages that are looked at. */
  readonly percent: number;
  /** Of their rows that are kept, 0 to 1. */
  readonly kept: number;
  /** Rows of the table for each row that is kept. */
  readonly scale: number;
}

/**
 * The sample in one row. `before`: what the rows of lesser keys weigh; where the part that this falls into changes, there is an edge. Keys are
 * written by their output function (`format`), which no cast of a user's can stand in for.
 */
function sampleSql(table: SourceTable, request: SampleRequest, { percent, kept, scale }: Share): string {
  const keys = request.columns.map((_, i) => `k${i}`);
  const key = keys.length === 0 ? 'NULL' : keys.join(', ');
  const named = request.columns.map((name, i) => `${quoteIdentifier(name)} AS k${i}, `).join('');
  const bytes = table.columns.map(({ name }) => `COALESCE(pg_column_size(${quoteIdentifier(name)}), 0)`).join(' + ');
  // A line of its own, so that a comment at its end does not swallow the rest. Rows that it leaves out count for the number of chunks, since each
  // must be looked at; but no edge is the key of one, for edges lie in the ledger.
  const shown = request.filter == null ? 'true' : `(${request.filter}\n) IS TRUE`;
  const thinned = kept < 1 ? `WHERE random() < ${kept}` : '';
  const distinct = keys.length === 0 ? 'SELECT NULL::json AS edge, 0 AS nr WHERE false' : edgesSql(keys);
  return `
    WITH sample AS (
      SELECT ${named}(ctid::text::point)[0] AS page,
             1::float8 / ${request.chunk_rows} + (${bytes || '0'})::float8 / ${request.chunk_bytes} AS weight,
             ${shown} AS shown
        FROM ${fromSql(table)} TABLESAMPLE SYSTEM (${percent})
       ${thinned}
    ), weighed AS (
      SELECT (count(*) FILTER (WHERE shown))::float8 AS rows, sum(weight) FILTER (WHERE shown) AS weight,
             LEAST(${request.chunks_max}, ceil(COALESCE(sum(weight), 0) * ${scale}))::float8 AS chunks
        FROM sample
    ), placed AS (
      SELECT sample.*, row_number() OVER by_key AS place,
             floor((sum(sample.weight) OVER by_key - sample.weight) / weighed.weight * weighed.chunks) AS part
        FROM sample CROSS JOIN weighed
       WHERE shown
      WINDOW by_key AS (ORDER BY ${key} ROWS UNBOUNDED PRECEDING)
    ), edges AS (
      ${distinct}
    )
    SELECT weighed.rows, weighed.chunks,
           (SELECT corr(page, place) FROM placed) AS correlation,
           (SELECT json_agg(edge ORDER BY nr) FROM edges) AS edges
      FROM weighed`;
}

/** The first key of each part but the first; each once, as the type compares, where only some columns of the key are asked for. */
function edgesSql(keys: readonly string[]): string {
  const list = keys.join(', ');
  const texts = keys.map((key) => `format('%s', ${key})`).join(', ');
  return `SELECT edge, row_number() OVER (ORDER BY ${list}) AS nr FROM (
        SELECT DISTINCT ON (${list}) ${list}, json_build_array(${texts}) AS edge
          FROM (SELECT placed.*, lag(part) OVER (ORDER BY place) AS part_before FROM placed) AS p
         WHERE part > part_before
         ORDER BY ${list}
      ) AS distinct_edges`;
}

/** ONLY: tables that inherit from it are streams of their own. The rows of a partitioned table are its partitions'. */
export function fromSql(table: SourceTable): string {
  return table.kind === 'p' ? quoteTable(table) : `ONLY ${quoteTable(table)}`;
}

/**
 * A stream whose first sync is over, in a table of its own: what tests of the loader begin with.
 */
import type pg from 'pg';
import type { Shape, TableName } from '../../lib/shape.ts';
import { applyCut, rowsOf, streamOf, synchronise, type TargetFor, targetOn } from './loading.ts';
import type { TestPostgres } from './postgres.ts';
import { type Line, type SegmentOf, segmentOf, shapeOf } from './segments.ts';

/** What becomes of deletions: done, marked, or left out. */
export const HARD = { hard_delete: true } as const;
export const SOFT = { hard_delete: false, add_metadata_columns: true } as const;
export const PLAIN = { hard_delete: false, add_metadata_columns: false } as const;

export const TWO_COLUMNS = shapeOf({ id: 'int4', a: 'text' }, ['id']);
export const THREE_COLUMNS = shapeOf({ id: 'int4', a: 'text', b: 'text' }, ['id']);
/** Of THREE_COLUMNS. */
export const THREE_ROWS: readonly Line[] = [
  ['1', 'a1', 'b1'],
  ['2', 'a2', 'b2'],
  ['3', 'a3', 'b3'],
];
/** A time for deletions, as PostgreSQL prints it. */
export const DELETED_AT = '2026-01-01 00:00:00.000001+00';

let tables = 0;

/** Table, stream and target, synchronised with `rows`. */
export async function loadedStream(
  server: TestPostgres,
  rows: readonly Line[],
  options: TargetFor = {},
  shape: Shape = TWO_COLUMNS,
) {
  const table: TableName = { schema: 'loaded', table: `t${++tables}` };
  const stream = streamOf(table);
  const target = targetOn(server, options);
  await synchronise(target, stream, shape, [rows]);
  return { table, stream, target };
}

/** The same with three rows, and with what a test needs to apply segments one after the other and to look at the rows. */
export async function threeRows(
  server: TestPostgres,
  client: pg.Client,
  options: TargetFor,
  shape: Shape = THREE_COLUMNS,
  lines: readonly Line[] = THREE_ROWS,
) {
  const { table, stream, target } = await loadedStream(server, lines, options, shape);
  return {
    table,
    apply: (...segments: Omit<SegmentOf, 'shape'>[]) =>
      applyCut(
        target,
        stream,
        segments.map((segment) => segmentOf({ shape, ...segment })),
      ),
    rows: (columns?: string) => rowsOf(client, table, columns),
    /** Key and time of each row that is marked as deleted. */
    deleted: async () =>
      rowsOf(client, table, `id, "_sdc_deleted_at" AT TIME ZONE 'UTC'`).then((all) =>
        all.filter(([, at]) => at !== null),
      ),
  };
}

/** One block of rows of TWO_COLUMNS, written whole. */
export const upsertOf = (...lines: Line[]) => segmentOf({ shape: TWO_COLUMNS, blocks: [{ kind: 'upsert', lines }] });

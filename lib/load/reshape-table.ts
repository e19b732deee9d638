/**
 * What a segment asks of the target's table, Sluice's own column included: the source's columns as reshape.ts has them, and `_sdc_lsn` beside them, which comes with
 * the first segment that has it and goes with the first that has not. Pure.
 *
 * Copies never have it, and while a stream catches up a segment may be older than the option: then it stays as it is.
 */
import { assertLsnNameFree, hasLsnColumn, LSN_COLUMN, withLsnColumn, withoutLsnColumn } from '../lsn-column.ts';
import { type Reshaped, type Reshaping, reshape } from './reshape.ts';

/** `is_copy`: the segment is a chunk. Throws METADATA_COLUMN_TAKEN, and what `reshape` throws. */
export function reshapeTable(asked: Reshaping & { readonly is_copy: boolean }): Reshaped {
  const { stream, table, segment, catching_up, is_copy } = asked;
  const [had, comes] = [hasLsnColumn(table), hasLsnColumn(segment)];
  if (!had && !comes) return reshape(asked);
  const found = reshape({ ...asked, table: withoutLsnColumn(table), segment: withoutLsnColumn(segment) });
  const names = comes ? [...found.names, LSN_COLUMN.name] : found.names;
  if (!comes && !catching_up && !is_copy) {
    return { ...found, steps: [{ kind: 'drop', name: LSN_COLUMN.name }, ...found.steps], is_changed: true, names };
  }
  const shape = withLsnColumn(found.shape);
  assertLsnNameFree(stream, shape);
  if (had) return { ...found, shape, names };
  return {
    shape,
    names,
    steps: [...found.steps, { kind: 'add', column: LSN_COLUMN, missing: null }],
    is_changed: true,
  };
}

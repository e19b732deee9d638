/**
 * Makes the shadow table of a plan: with the generated columns that this server can compute, and without those that it cannot.
 *
 * On the path: the last step of prepare.ts, in its transaction. The shape that comes back is the table's: its `generated` are computed by it.
 */
import type { Log } from '../ports.ts';
import type { Shape, TableName } from '../shape.ts';
import { quoteTable } from '../sql-text.ts';
import { addColumnsSql, createShadowSql, typedColumns } from './ddl.ts';
import { addGenerated, attempt, generatedDefinitions, notGeneratedFacts, withGenerated } from './generated.ts';
import type { Purpose, Session } from './session.ts';
import type { CustomTypes } from './types.ts';

export interface ShadowOptions {
  readonly metadata: boolean;
  readonly custom_types: CustomTypes;
  /** The table that the shadow is for, as the log is to name it. */
  readonly target: TableName;
  readonly log: Log;
  readonly purpose: Purpose;
}

export async function createShadow(
  session: Session,
  shadow: TableName,
  shape: Shape,
  { metadata, custom_types, target, log, purpose }: ShadowOptions,
): Promise<Shape> {
  const generated = shape.generated ?? [];
  const computed = new Set(generated.map(({ name }) => name));
  const plain = shape.columns.filter(({ name }) => !computed.has(name));
  const typed = await typedColumns(session, plain, custom_types);
  // One that no plan knows is left from rows of `_sluice` that somebody removed.
  await session.run(`DROP TABLE IF EXISTS ${quoteTable(shadow)}`, purpose);
  if (generated.length > 0) {
    const { sql } = await generatedDefinitions(session, generated, custom_types);
    const definitions = new Map(generated.map((column, i) => [column, sql[i] ?? '']));
    const whole = createShadowSql(shadow, shape, typed, metadata, definitions);
    if ((await attempt(session, whole, purpose)) === null) return shape;
  }
  await session.run(createShadowSql(shadow, shape, typed, metadata), purpose);
  const { made, not } = await addGenerated(session, shadow, generated, custom_types);
  const missing = new Set(not.map(({ column }) => column));
  const carried = shape.columns.filter(({ name }) => missing.has(name));
  if (carried.length > 0)
    await session.run(addColumnsSql(shadow, await typedColumns(session, carried, custom_types)), purpose);
  for (const each of not) {
    const { event, facts } = notGeneratedFacts(target, shape, each);
    log.warn(event, facts);
  }
  return withGenerated(shape, made);
}

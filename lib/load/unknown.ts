/**
 * Rows that catching up after an epoch could not make, so that a hole is seen and never skipped (I4, I7). Pure text; applied beside each block.
 *
 * After an epoch the chain is applied from the held position to rows that are newer. That repairs itself wherever the log has whole rows. A change
 * of key leaves values out (I7) and takes them from the old key's row, and there it may find neither row: the old one, because it was copied
 * after it had moved, nor the new one, because it was copied before, or because an older deletion of that key has just removed it. Such a key is
 * noted here, and forgotten when the log deletes it or brings it whole. What is noted when the stream has caught up is on the source and not here.
 */
import { quoteLiteral, quoteTable } from '../sql-text.ts';
import { isOwner, type Owner } from './control.ts';
import { columnIn, keyOf, type Landed, sameKey, type TableForm } from './sql.ts';

/** The key of a landed line as one text: a JSON array of the columns' texts, in the order of the table's key. */
function keyText(table: TableForm, landed: Landed): string {
  const at = columnIn(landed);
  const texts = keyOf(table).map((name) => `s.${at(name)}::text`);
  return `jsonb_build_array(${texts.join(', ')})::text`;
}

/** After a `rekey` was applied: keys that have no row. */
export function noteUnknownSql(owner: Owner, table: TableForm, landed: Landed): string {
  const ours = [owner.pipeline, owner.stream.stream].map(quoteLiteral).join(', ');
  return `INSERT INTO _sluice.unknown (pipeline, stream, key) SELECT ${ours}, ${keyText(table, landed)} FROM ${landed.temp} s
    WHERE NOT EXISTS (SELECT FROM ${quoteTable(table.name)} t WHERE ${sameKey(table, 't', columnIn(landed))}) ON CONFLICT DO NOTHING`;
}

/** Beside a `delete` or an `upsert`: their keys are known again. */
export function forgetUnknownSql(owner: Owner, table: TableForm, landed: Landed): string {
  return `DELETE FROM _sluice.unknown WHERE ${isOwner(owner)} AND key IN (SELECT ${keyText(table, landed)} FROM ${landed.temp} s)`;
}

/** After a TRUNCATE, and when an epoch begins. */
export function forgetAllUnknownSql(owner: Owner): string {
  return `DELETE FROM _sluice.unknown WHERE ${isOwner(owner)}`;
}

export function countUnknownSql(owner: Owner): string {
  return `SELECT count(*)::int4 AS rows FROM _sluice.unknown WHERE ${isOwner(owner)}`;
}

/**
 * What catching up after an epoch cannot be sure of, so that a wrong value is seen and never left (I4, I7). Pure text, applied beside each block.
 *
 * After an epoch the chain is applied from the held position to rows that a later snapshot has read. That repairs itself wherever the log has
 * whole rows. A change of key leaves values out (I7): they are kept from the row that is at the new key, or come from the row that is at the old one;
 * and while the stream catches up either may be another row, or gone. Kinds of notes, by key (a JSON array of its columns' texts):
 *
 * - vacated: the log has removed a row there; if the snapshot's row was the one that comes to this key later, it is lost.
 * - moved:   the row of `other` was made from the row that was found at `key`; if the log fills `key` anew, what was found may have been that.
 * - unknown: the row there is missing, or its values may be another row's. Forgotten when the log removes it or brings it whole.
 *
 * A key that is unknown when the stream has caught up is ROWS_UNKNOWN. Keys that are not used again while a table is copied are never in doubt.
 */
import { quoteLiteral, quoteTable } from '../sql-text.ts';
import { isOwner, type Owner } from './control.ts';
import { columnIn, keyOf, type Landed, oldKeyIn, sameKey, type TableForm } from './sql.ts';

const DOUBTS = '_sluice.doubts';

type Kind = 'vacated' | 'moved' | 'unknown';

function keyText(table: TableForm, at: (name: string) => string): string {
  const texts = keyOf(table).map((name) => `s.${at(name)}::text`);
  return `jsonb_build_array(${texts.join(', ')})::text`;
}

function note(
  owner: Owner,
  kind: Kind,
  what: { readonly key: string; readonly other?: string; readonly from: string },
): string {
  const ours = [owner.pipeline, owner.stream.stream, kind].map(quoteLiteral).join(', ');
  return `INSERT INTO ${DOUBTS} (pipeline, stream, kind, key, other) SELECT ${ours}, ${what.key}, ${what.other ?? 'NULL'} FROM ${what.from}`;
}

/** Condition on notes of one kind. */
function notes(owner: Owner, kind: Kind): string {
  return `d.${isOwner(owner).replace(' AND ', ' AND d.')} AND d.kind = ${quoteLiteral(kind)}`;
}

function forget(owner: Owner, kind: Kind, column: 'key' | 'other', keys: string): string {
  return `DELETE FROM ${DOUBTS} d WHERE ${notes(owner, kind)} AND d.${column} IN (${keys})`;
}

/** Before a `rekey` is applied. */
export function beforeRekeySql(owner: Owner, table: TableForm, landed: Landed): string[] {
  const to = keyText(table, columnIn(landed));
  const from = keyText(table, oldKeyIn(landed));
  const lines = `${landed.temp} s`;
  const nowhere = `NOT EXISTS (SELECT FROM ${quoteTable(table.name)} t WHERE ${sameKey(table, 't', columnIn(landed))})`;
  return [
    // What the old row was made from, the new one is made from.
    note(owner, 'moved', {
      key: 'd.key',
      other: to,
      from: `${lines} JOIN ${DOUBTS} d ON ${notes(owner, 'moved')} AND d.other = ${from}`,
    }),
    note(owner, 'moved', { key: from, other: to, from: `${lines} WHERE ${nowhere}` }),
    note(owner, 'unknown', {
      key: to,
      from: `${lines} JOIN ${DOUBTS} d ON ${notes(owner, 'vacated')} AND d.key = ${to}`,
    }),
    note(owner, 'unknown', {
      key: to,
      from: `${lines} JOIN ${DOUBTS} d ON ${notes(owner, 'unknown')} AND d.key = ${from}`,
    }),
    refilled(owner, `SELECT ${to} FROM ${lines}`),
  ];
}

/** After it was applied: where there is no row, none could be made. */
export function afterRekeySql(owner: Owner, table: TableForm, landed: Landed): string {
  const at = columnIn(landed);
  const nowhere = `NOT EXISTS (SELECT FROM ${quoteTable(table.name)} t WHERE ${sameKey(table, 't', at)})`;
  return note(owner, 'unknown', { key: keyText(table, at), from: `${landed.temp} s WHERE ${nowhere}` });
}

/** Beside a `delete`, applied or not. */
export function besideDeleteSql(owner: Owner, table: TableForm, landed: Landed): string[] {
  const key = keyText(table, columnIn(landed));
  const vacated = `${landed.temp} s JOIN ${DOUBTS} d ON ${notes(owner, 'vacated')} AND d.key = ${key}`;
  return [
    // A key that is left a second time was filled in between, though folding may show nothing of it.
    refilled(owner, `SELECT d.key FROM ${vacated}`),
    ...known(owner, `SELECT ${key} FROM ${landed.temp} s`),
    note(owner, 'vacated', { key, from: `${landed.temp} s` }),
  ];
}

/** Beside an `upsert`. */
export function besideUpsertSql(owner: Owner, table: TableForm, landed: Landed): string[] {
  const keys = `SELECT ${keyText(table, columnIn(landed))} FROM ${landed.temp} s`;
  return [refilled(owner, keys), ...known(owner, keys)];
}

/** Rows that were made from what was found at these keys. */
function refilled(owner: Owner, keys: string): string {
  return note(owner, 'unknown', {
    key: 'd.other',
    from: `${DOUBTS} d WHERE ${notes(owner, 'moved')} AND d.key IN (${keys})`,
  });
}

function known(owner: Owner, keys: string): string[] {
  return [forget(owner, 'unknown', 'key', keys), forget(owner, 'moved', 'other', keys)];
}

/** After a TRUNCATE (all that follows is in the log), when an epoch begins, and when the stream has caught up. */
export function forgetDoubtsSql(owner: Owner): string {
  return `DELETE FROM ${DOUBTS} WHERE ${isOwner(owner)}`;
}

export function countUnknownSql(owner: Owner): string {
  return `SELECT count(DISTINCT d.key)::int4 AS rows FROM ${DOUBTS} d WHERE ${notes(owner, 'unknown')}`;
}

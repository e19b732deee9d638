/**
 * What catching up after an epoch cannot be sure of, so that a wrong value is seen and never left (I4, I7). Pure text, applied beside each block.
 *
 * After an epoch the chain is applied from the held position to rows that later snapshots have read. That repairs itself wherever the log has whole
 * rows. A change of key leaves values out (I7). They stay as they are where the new key has its row; else they come from the row of the old key, and
 * that may be another one by now, or gone. Notes, by key (a JSON array of its columns' texts):
 *
 * - moved:   the row of `other` was made from what was found at `key`. When the log fills `key` later, that may be what was found.
 * - unknown: the row there is missing, or its values may be another row's. Forgotten when the log removes it or brings it whole, or it is read again.
 *
 * The rows of keys that are unknown when the stream would have caught up are read again, by an epoch of their own (lib/epoch/request.ts), beside which it goes
 * on catching up. Only a row that changed its key while the table was copied can be unknown: one that came to a key that another row had left, or left
 * one that another row came to, or moved from a chunk to another. That these notes are enough is shown by test/pg/load-doubts.test.ts.
 */
import { quoteIdentifier, quoteLiteral, quoteTable } from '../sql-text.ts';
import { DELETED_AT, keyNames } from './columns.ts';
import { isOwner, type Owner } from './control.ts';
import { columnIn, type Landed, oldKeyIn, sameKey, type TableForm } from './sql.ts';

type Kind = 'moved' | 'unknown';

interface Note {
  readonly key: string;
  readonly other?: string;
  readonly from: string;
}

const DOUBTS = '_sluice.doubts';

function keyText(table: TableForm, at: (name: string) => string): string {
  const texts = keyNames(table.shape).map((name) => `s.${at(name)}::text`);
  return `jsonb_build_array(${texts.join(', ')})::text`;
}

function note(owner: Owner, kind: Kind, { key, other = 'NULL', from }: Note): string {
  const ours = [owner.pipeline, owner.stream.stream, kind].map(quoteLiteral).join(', ');
  return `INSERT INTO ${DOUBTS} (pipeline, stream, kind, key, other) SELECT ${ours}, ${key}, ${other} FROM ${from}`;
}

/** Condition on a landed line: the table has no row of that key, but one that is only kept since its deletion. */
function noRowSql(table: TableForm, at: (name: string) => string): string {
  const alive = table.metadata ? ` AND t.${quoteIdentifier(DELETED_AT)} IS NULL` : '';
  return `NOT EXISTS (SELECT FROM ${quoteTable(table.name)} t WHERE ${sameKey(table, 't', at)}${alive})`;
}

/** Condition on notes of one kind. */
function noted(owner: Owner, kind: Kind): string {
  return `${isOwner(owner)} AND kind = ${quoteLiteral(kind)}`;
}

/** Before a `rekey` is applied. */
export function beforeRekeySql(owner: Owner, table: TableForm, landed: Landed): string[] {
  const to = keyText(table, columnIn(landed));
  const from = keyText(table, oldKeyIn(landed));
  const lines = `${landed.temp} s`;
  const [newRow, oldRow] = [noRowSql(table, columnIn(landed)), noRowSql(table, oldKeyIn(landed))];
  const made = `${lines} WHERE ${newRow}`;
  return [
    // What the old row was made from, the new one is made from; what is not known of the one is not known of the other.
    note(owner, 'moved', {
      key: 'd.key',
      other: to,
      from: `${lines} JOIN ${DOUBTS} d ON ${noted(owner, 'moved')} AND d.other = ${from} WHERE ${newRow}`,
    }),
    note(owner, 'unknown', {
      key: to,
      from: `${made} AND ${from} IN (SELECT key FROM ${DOUBTS} WHERE ${noted(owner, 'unknown')})`,
    }),
    note(owner, 'moved', { key: from, other: to, from: made }),
    note(owner, 'unknown', { key: to, from: `${made} AND ${oldRow}` }),
    filled(owner, `SELECT ${to} FROM ${lines}`),
  ];
}

/** Before an `update`: a row that the log takes to be there, and the table does not have. */
export function beforeUpdateSql(owner: Owner, table: TableForm, landed: Landed): string[] {
  const at = columnIn(landed);
  return [note(owner, 'unknown', { key: keyText(table, at), from: `${landed.temp} s WHERE ${noRowSql(table, at)}` })];
}

/** Beside an `upsert`. */
export function besideUpsertSql(owner: Owner, table: TableForm, landed: Landed): string[] {
  const keys = `SELECT ${keyText(table, columnIn(landed))} FROM ${landed.temp} s`;
  return [filled(owner, keys), ...known(owner, keys)];
}

/** Beside a `delete`, applied or not. */
export function besideDeleteSql(owner: Owner, table: TableForm, landed: Landed): string[] {
  return known(owner, `SELECT ${keyText(table, columnIn(landed))} FROM ${landed.temp} s`);
}

/**
 * Beside rows that were read again: what was not sure of them is known. `asked`: their keys as the notes have them, for those that the source no longer has.
 * Nothing was filled by the log: rows that were made from what was found there before are in doubt as they were.
 */
export function readAgainSql(owner: Owner, table: TableForm, landed: Landed, asked: readonly string[][]): string[] {
  const keys = `SELECT ${keyText(table, columnIn(landed))} FROM ${landed.temp} s`;
  const named = asked.map(
    (key) => `jsonb_build_array(${key.map((text) => `${quoteLiteral(text)}::text`).join(', ')})::text`,
  );
  return [...known(owner, keys), ...(named.length === 0 ? [] : known(owner, named.join(', ')))];
}

/** The log has filled these keys: what was found there before may have been the rows that have come now. */
function filled(owner: Owner, keys: string): string {
  return note(owner, 'unknown', {
    key: 'other',
    from: `${DOUBTS} WHERE ${noted(owner, 'moved')} AND key IN (${keys})`,
  });
}

function known(owner: Owner, keys: string): string[] {
  return [
    `DELETE FROM ${DOUBTS} WHERE ${noted(owner, 'unknown')} AND key IN (${keys})`,
    `DELETE FROM ${DOUBTS} WHERE ${noted(owner, 'moved')} AND other IN (${keys})`,
  ];
}

/** After a TRUNCATE (all that follows is in the log), when an epoch begins, and when the stream has caught up. */
export function forgetDoubtsSql(owner: Owner): string {
  return `DELETE FROM ${DOUBTS} WHERE ${isOwner(owner)}`;
}

/** Each unknown key once, as a JSON array of its columns' texts; at most `keys_max` of them. */
export function unknownKeysSql(owner: Owner, keys_max: number): string {
  return `SELECT DISTINCT key FROM ${DOUBTS} WHERE ${noted(owner, 'unknown')} ORDER BY key LIMIT ${keys_max}`;
}

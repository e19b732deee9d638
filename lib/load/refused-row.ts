/**
 * A line that the target refuses, as it is put aside and as a halt names it: its key, its reason, and (only where it is put aside) what it was. Pure.
 */
import { SluiceError } from '../errors.ts';
import type { Shape } from '../shape.ts';
import type { Block } from '../stage/segment.ts';
import type { RowFault } from '../validation/compiler.ts';
import { type RejectedOperation, type RejectedRow, type RowKey, shownRow } from '../validation/rejected.ts';
import { shownKey } from '../validation/stream-checks.ts';
import { columnAt } from './columns.ts';
import { conditionName } from './conditions.ts';
import type { Lines } from './copy-lines.ts';

/** Fields before those of the block's columns: the old key. */
function offsetOf(shape: Shape, { kind }: Block): number {
  return kind === 'rekey' ? shape.key.length : 0;
}

/** As the source calls its columns. Of a change of key: the new one. */
export function rowKey(shape: Shape, block: Block, fields: readonly (string | null)[]): RowKey {
  const offset = offsetOf(shape, block);
  return {
    columns: shape.key.map((index) => columnAt(shape, index).name),
    values: shape.key.map((index) => fields[offset + block.columns.indexOf(index)] ?? ''),
  };
}

/** The key of the only line, as a line of its own. */
export function keyLine(shape: Shape, block: Block, lines: Lines): Buffer {
  const fields = lines.raw(0);
  const offset = offsetOf(shape, block);
  const key = shape.key.map((index) => fields[offset + block.columns.indexOf(index)] ?? Buffer.alloc(0));
  return Buffer.concat([
    ...key.flatMap((field, i) => (i === 0 ? [field] : [Buffer.from('\t'), field])),
    Buffer.from('\n'),
  ]);
}

export function rejectedRow(
  shape: Shape,
  block: Block,
  fields: readonly (string | null)[],
  operation: RejectedOperation,
): Pick<RejectedRow, 'operation' | 'row'> {
  const names = block.columns.map((index) => columnAt(shape, index).name);
  const offset = offsetOf(shape, block);
  return { operation, row: shownRow(names, fields.slice(offset, offset + names.length)) };
}

export function operationOf({ kind }: Block, isCopy: boolean): RejectedOperation {
  if (isCopy) return 'copy';
  if (kind === 'delete') return 'delete';
  return kind === 'insert' || kind === 'upsert' ? 'write' : 'update';
}

/** The reason, without the number of a line: of one that is refused by itself it says nothing. */
export function withoutLine({ facts }: SluiceError): string {
  return String(facts.reason).replace(/(?:,| at) line [0-9]+$/, '');
}

export function faultOf(refusal: SluiceError): RowFault {
  const { cause, facts } = refusal;
  const column = typeof cause === 'object' && cause !== null && 'column' in cause ? cause.column : null;
  return {
    column: typeof column === 'string' ? column : null,
    keyword: conditionName(String(facts.sqlstate)),
    wants: `is refused by the target: ${withoutLine(refusal)} (SQLSTATE ${facts.sqlstate})`,
  };
}

/** What a stream halts with: of the row its key, and nothing else. */
export function withKey(refusal: SluiceError, key: RowKey): SluiceError {
  const named = shownKey(key);
  if (named === '') return refusal;
  const facts = { ...refusal.facts, reason: withoutLine(refusal), key: named };
  return new SluiceError('TARGET_REJECTS', facts, { cause: refusal.cause });
}

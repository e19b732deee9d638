/**
 * Whether a column's new type holds every value of its old one, as the target would print it (`target.on_type_change: widen`). Pure.
 *
 * https://www.postgresql.org/docs/current/datatype.html; modifiers as pg_attribute.atttypmod has them.
 */
import type { TypeUse } from '../shape.ts';

/** OIDs of pg_type.dat. */
const INT2 = 21;
const INT4 = 23;
const INT8 = 20;
const FLOAT4 = 700;
const FLOAT8 = 701;
const NUMERIC = 1700;
const TEXT = 25;
const VARCHAR = 1043;

const INTEGERS = [INT2, INT4, INT8];
/** VARHDRSZ: in the modifiers of varchar and numeric. */
const HEADER = 4;

export function isWidening(before: TypeUse, now: TypeUse): boolean {
  if (before.type_oid === now.type_oid && before.type_modifier === now.type_modifier) return true;
  const { type_oid: to, type_modifier: limit } = now;
  // Every value has a text, and that is what the target keeps.
  if (to === TEXT || (to === VARCHAR && limit === -1)) return true;
  const from = before.type_oid;
  const [rank, rankNow] = [INTEGERS.indexOf(from), INTEGERS.indexOf(to)];
  if (rank >= 0) return rankNow >= rank || (to === NUMERIC && limit === -1);
  if (from === FLOAT4) return to === FLOAT8;
  if (from !== to) return false;
  if (limit === -1) return true;
  if (before.type_modifier === -1) return false;
  if (from === VARCHAR) return limit >= before.type_modifier;
  if (from !== NUMERIC) return false;
  const [old, wider] = [digitsOf(before.type_modifier), digitsOf(limit)];
  return wider.scale >= old.scale && wider.whole >= old.whole;
}

/** Scale has eleven bits with a sign since 15; before it was never negative. */
function digitsOf(modifier: number): { readonly whole: number; readonly scale: number } {
  const bits = modifier - HEADER;
  const scale = ((bits & 0x7ff) ^ 1024) - 1024;
  return { whole: ((bits >> 16) & 0xffff) - scale, scale };
}

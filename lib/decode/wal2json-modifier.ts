/**
 * Type modifiers from the text of format_type, which is all that wal2json says of them: `numeric(10,2)` → pg_attribute.atttypmod. Only PostgreSQL's
 * own types can be read back; for others the catalog is asked.
 *
 * The numbers are those of the types' own typmodin functions (utils/adt: numeric.c, varchar.c, varbit.c, timestamp.c).
 */

/** FirstNormalObjectId (access/transam.h): below are PostgreSQL's own. */
const FIRST_NORMAL_OID = 16_384;
const VARHDRSZ = 4;
const LENGTHS = [1042, 1043, 1014, 1015]; // bpchar, varchar, and their arrays
const BITS = [1560, 1562, 1561, 1563];
const NUMERICS = [1700, 1231];
const TIMES = [1083, 1114, 1184, 1266, 1183, 1115, 1185, 1270];
const INTERVALS = [1186, 1187];

/** Bits of an interval's fields: INTERVAL_MASK(field), utils/timestamp.h and utils/datetime.h. */
const FIELD: Readonly<Record<string, number>> = {
  year: 1 << 2,
  month: 1 << 1,
  day: 1 << 3,
  hour: 1 << 10,
  minute: 1 << 11,
  second: 1 << 12,
};
/** From the coarsest to the finest. */
const FIELDS = ['year', 'month', 'day', 'hour', 'minute', 'second'];
const FULL_RANGE = 0x7fff;
const FULL_PRECISION = 0xffff;

/** Null: the text does not say it of this type. */
export function modifierOf(type_oid: number, text: string): number | null {
  const [first, second] = /\((-?\d+)(?:,(-?\d+))?\)/.exec(text)?.slice(1).map(Number) ?? [];
  if (LENGTHS.includes(type_oid)) return first === undefined ? -1 : first + VARHDRSZ;
  if (BITS.includes(type_oid) || TIMES.includes(type_oid)) return first ?? -1;
  if (NUMERICS.includes(type_oid)) {
    return first === undefined ? -1 : ((first << 16) | ((second || 0) & 0x7ff)) + VARHDRSZ;
  }
  if (INTERVALS.includes(type_oid)) return intervalModifier(text, first);
  return type_oid < FIRST_NORMAL_OID ? -1 : null;
}

function intervalModifier(text: string, precision: number | undefined): number {
  const [from, to] = FIELDS.filter((field) => text.includes(` ${field}`));
  if (from === undefined) return precision === undefined ? -1 : (FULL_RANGE << 16) | precision;
  let range = 0;
  for (const field of FIELDS.slice(FIELDS.indexOf(from), FIELDS.indexOf(to ?? from) + 1)) range |= FIELD[field] ?? 0;
  return (range << 16) | (precision ?? FULL_PRECISION);
}

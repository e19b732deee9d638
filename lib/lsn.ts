/**
 * Log sequence numbers: positions in a PostgreSQL server's write-ahead log, in bytes.
 *
 * PostgreSQL prints an LSN as two hexadecimal halves, `16/B374D848`, without leading zeros
 * (https://www.postgresql.org/docs/current/datatype-pg-lsn.html). The halves are not padded, so their text neither sorts nor
 * compares as the position does: here an LSN is a bigint, and text only at the edges.
 */
declare const lsnBrand: unique symbol;
export type Lsn = bigint & { readonly [lsnBrand]: true };

const LSN_TEXT = /^([0-9A-Fa-f]{1,8})\/([0-9A-Fa-f]{1,8})$/;

export const LSN_ZERO = 0n as Lsn;
/** The last there can be: past every record. */
export const LSN_MAX = (2n ** 64n - 1n) as Lsn;

/** A position from its number. Throws RangeError outside 64 unsigned bits. */
export function lsnOf(position: bigint): Lsn {
  if (position < 0n || position > LSN_MAX) throw new RangeError(`not an LSN: ${position}`);
  return position as Lsn;
}

/** `16/B374D848` → position. Throws RangeError on any other spelling. */
export function parseLsn(text: string): Lsn {
  const halves = LSN_TEXT.exec(text);
  if (!halves) throw new RangeError(`not an LSN: ${JSON.stringify(text)}`);
  return ((BigInt(`0x${halves[1]}`) << 32n) | BigInt(`0x${halves[2]}`)) as Lsn;
}

/** The position as PostgreSQL prints it. */
export function formatLsn(lsn: Lsn): string {
  return `${(lsn >> 32n).toString(16)}/${(lsn & 0xffffffffn).toString(16)}`.toUpperCase();
}

export function lsnMax(a: Lsn, b: Lsn): Lsn {
  return a > b ? a : b;
}

/** Bytes of WAL from `from` to `to`; never negative. */
export function lsnBytesBetween(from: Lsn, to: Lsn): number {
  return to > from ? Number(to - from) : 0;
}

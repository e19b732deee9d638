/**
 * `multipleOf` of JSON Schema in decimals, as both numbers are written: doubles have no 0.01, and what was a price would be none. Pure.
 */

interface Decimal {
  readonly digits: bigint;
  readonly exponent: number;
}

/** Both are finite, and `divisor` is positive. */
export function isMultipleOf(divisor: number, value: number): boolean {
  if (Number.isInteger(divisor) && Number.isInteger(value)) return value % divisor === 0;
  const [whole, part] = [decimal(value), decimal(divisor)];
  const exponent = Math.min(whole.exponent, part.exponent);
  return scaled(whole, exponent) % scaled(part, exponent) === 0n;
}

const NUMBER = /^(-?\d+)(?:\.(\d+))?(?:e([+-]\d+))?$/u;

/** The shortest that reads back as the same double: what was written, for up to 15 digits. */
function decimal(value: number): Decimal {
  const [, whole = '0', fraction = '', exponent = '0'] = NUMBER.exec(String(value)) ?? [];
  return { digits: BigInt(whole + fraction), exponent: Number(exponent) - fraction.length };
}

function scaled({ digits, exponent }: Decimal, to: number): bigint {
  return digits * 10n ** BigInt(exponent - to);
}

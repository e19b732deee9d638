/**
 * Options that are planned and that this version does not have. They are told apart from unknown keys, so that nobody hunts for a typing error,
 * and refused, so that nobody believes that they work.
 */
import type { Path } from './document.ts';

export interface Unavailable {
  /** What it would be; stands in brackets behind the name. */
  readonly what: string;
  /** What to do instead. */
  readonly remedy: string;
}

/** Section → key. A section is the path without its indexes. */
const KEYS: Readonly<Record<string, Readonly<Record<string, Unavailable>>>> = {
  source: {},
  target: {},
};

/** Section and key → value. */
const VALUES: Readonly<Record<string, Readonly<Record<string, Unavailable>>>> = {};

/** The path without indexes: every entry of `tables` is of one section. */
export function sectionOf(path: Path): string {
  return path.filter((step) => typeof step === 'string').join('.');
}

export function unavailableKey(section: string, key: string): Unavailable | null {
  return own(own(KEYS, section), key);
}

export function unavailableValue(path: Path, value: unknown): Unavailable | null {
  return typeof value === 'string' ? own(own(VALUES, sectionOf(path)), value) : null;
}

export function unavailableKeys(section: string): readonly [string, Unavailable][] {
  return Object.entries(own(KEYS, section) ?? {});
}

/** Place, value, and what it would be. */
export function unavailableValues(): readonly (readonly [string, string, Unavailable])[] {
  return Object.entries(VALUES).flatMap(([place, values]) =>
    Object.entries(values).map(([value, about]) => [place, value, about] as const),
  );
}

function own<T>(from: Readonly<Record<string, T>> | null, key: string): T | null {
  return from !== null && Object.hasOwn(from, key) ? (from[key] ?? null) : null;
}

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

const REMOVE = 'Remove it.';

const connection: Readonly<Record<string, Unavailable>> = {
  ssh: { what: 'an SSH tunnel', remedy: 'Remove it; open the tunnel yourself and point host and port at it.' },
  iam: { what: 'RDS IAM tokens', remedy: 'Remove it, and name a password.' },
};

/** Section → key. A section is the path without its indexes. */
const KEYS: Readonly<Record<string, Readonly<Record<string, Unavailable>>>> = {
  source: {
    ...connection,
    failover: { what: 'slots that follow a failover', remedy: REMOVE },
    debug_lsn: { what: '`_sdc_lsn` in the target', remedy: REMOVE },
  },
  'source.password': { iam: connection.iam as Unavailable },
  tables: {
    schedule: { what: 'a schedule of its own for a table', remedy: "Remove it, and set the pipeline's schedule." },
  },
  target: {
    ...connection,
    default_target_schema_select_permissions: {
      what: 'grants on what is made',
      remedy: 'Remove it; use ALTER DEFAULT PRIVILEGES on the target.',
    },
    data_flattening_max_level: { what: 'json objects as columns', remedy: 'Remove it: json stays json.' },
    validate_records: { what: 'rows checked against a JSON Schema', remedy: REMOVE },
    on_invalid: { what: 'rows checked against a JSON Schema', remedy: REMOVE },
    consistency: {
      what: 'all streams in one target transaction',
      remedy: 'Remove it: each stream is consistent in itself.',
    },
  },
  'target.password': { iam: connection.iam as Unavailable },
};

/** Section and key → value. */
const VALUES: Readonly<Record<string, Readonly<Record<string, Unavailable>>>> = {
  'source.ssl.ca': {
    rds: { what: 'the included RDS bundle', remedy: 'Download the bundle from AWS and write the path of its file.' },
  },
  'target.ssl.ca': {
    rds: { what: 'the included RDS bundle', remedy: 'Download the bundle from AWS and write the path of its file.' },
  },
};

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

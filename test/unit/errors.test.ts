/** The catalogue of errors: each code says what happened and what to do, and the table alone decides what is tried again and what waits. */
import { describe, expect, test } from 'vitest';
import { asSluiceError, ERROR_CODES, type ErrorCode, type Facts, SluiceError } from '../../lib/errors.ts';

const place = { host: 'db.internal', port: 5432 };
const server = { side: 'source', ...place };
const stream = 'public.orders';
const slot = 'sluice_shop';

/** Facts as they are given; where an entry says different things, one of each. A new code without any does not compile. */
const SAMPLES: Readonly<Record<ErrorCode, readonly Facts[]>> = {
  USAGE: [{ problem: 'unknown option --foo' }, { problem: 'unknown option --foo', remedy: 'Did you mean --for?' }],
  CONFIG_INVALID: [
    { problem: 'p.yaml:3:1 unknown key' },
    { problem: 'p.yaml:3:1 unknown key', remedy: 'Did you mean tables?', faults: 1 },
  ],
  ROW_FILTER: [
    { table: 'public.t', reason: 'the source is PostgreSQL 14, and publishes row filters from 15 on.' },
    {
      table: 'public.t',
      reason: 'it looks at x, which the replica identity does not have.',
      sql: 'ALTER TABLE t REPLICA IDENTITY FULL',
    },
  ],
  COLUMN_EXPOSED: [{ table: 'public.t', column: 'open' }],
  BACKFILL_WHERE: [{ table: 'public.orders', table_sql: 'public.orders', reason: 'column "x" does not exist' }],
  STATE_IN_USE: [{ pid: 4711, directory: '.sluice' }],
  LOCAL_POSTGRES_MISSING: [{ platform: 'sunos-sparc', reason: 'no package is made for it' }],
  LOCAL_POSTGRES_FAILED: [{ directory: '.sluice/source', action: 'start', reason: 'exit code 1' }],
  LOCAL_ENGINE_FAILED: [
    { action: 'start S3', reason: 'port taken' },
    { action: 'start S3', reason: 'port taken', remedy: 'Free the port.' },
  ],
  NOT_CAUGHT_UP: [{ streams: stream, lsn: '0/1', windows: 3 }],
  CONNECTION_FAILED: [
    { ...server, reason: 'connection refused' },
    { ...server, reason: 'too many clients', remedy: 'Raise max_connections.' },
  ],
  AUTHENTICATION_FAILED: [
    { ...server, user: 'sluice', reason: 'password authentication failed' },
    { ...server, user: 'sluice', reason: 'no entry in pg_hba.conf', remedy: 'Set source.ssl.' },
  ],
  DATABASE_MISSING: [{ side: 'target', database: 'shop' }],
  TLS_FAILED: [
    { ...server, reason: 'self-signed certificate' },
    { ...server, reason: 'the certificate has expired', remedy: 'Renew it on the server.' },
  ],
  SSH_UNREACHABLE: [{ ...server, reason: 'it refuses connections' }],
  SSH_HOST_KEY: [{ ...server, expected: 'SHA256:a', found: 'SHA256:b (ssh-ed25519)' }],
  SSH_KEY_UNREADABLE: [{ side: 'source', reason: 'the passphrase does not open it' }],
  SSH_KEY_REFUSED: [{ ...server, user: 'tunnel', reason: 'all methods failed' }],
  SSH_FORWARDING_REFUSED: [{ ...server, user: 'tunnel', to: 'db.internal:5432', reason: 'prohibited' }],
  SECRET_UNREADABLE: [{ path: 'source.password', reason: 'SOURCE_PASSWORD is not set' }],
  SOURCE_IS_STANDBY: [place],
  SOURCE_READ_ONLY: [{ action: 'change publication p', reason: 'cannot execute ALTER PUBLICATION' }],
  WAL_LEVEL: [{ wal_level: 'replica' }],
  REPLICATION_NOT_ALLOWED: [
    { user: 'sluice', user_sql: '"sluice"' },
    { user: 'sluice', remedy: 'Set source.slot_reader: peek.' },
  ],
  SLOT_MISSING: [
    { slot, known: false },
    { slot, known: true, lsn: '16/B374D848' },
  ],
  SLOT_FOREIGN: [{ slot }],
  PLUGIN_MISSING: [{ plugin: 'wal2json', major: 15, reason: 'could not access file "wal2json"' }],
  NUMBER_UNKNOWN: [
    { stream: 'public.t', column: 'n', has_key: true },
    { stream: 'public.t', column: 'n', has_key: false },
  ],
  SLOT_PLUGIN: [{ slot, found: 'wal2json', expected: 'pgoutput' }],
  SLOT_DATABASE: [{ slot, found: 'other', expected: 'shop' }],
  SLOT_LOST: [
    { slot, reason: 'wal_removed' },
    { slot, reason: 'wal_removed', sql: "SELECT pg_drop_replication_slot('s');" },
  ],
  SLOT_ADVANCED: [{ slot, confirmed: '0/2', ledger: '0/1' }],
  SLOT_ACTIVE: [
    { slot, pid: 77, application_name: 'psql', client: '10.0.0.1' },
    { slot, pid: 77, application_name: '', client: null },
    { slot, pid: 77 },
  ],
  SLOTS_EXHAUSTED: [{}],
  SLOT_BLOCKED: [{ slot, wait_seconds: 60, blockers: 'process 77' }],
  CLUSTER_CHANGED: [
    { what: 'timeline', found: 1, expected: 2 },
    { what: 'timeline', found: 2, expected: 1, reason: 'timeline 2 does not come from it' },
  ],
  CLUSTER_BEHIND: [{ expected: '0/2' }],
  REPLICA_BEHIND: [
    { replayed: '0/1000', needed: '0/2000', wait_seconds: 60 },
    { replayed: '0/3000', needed: '0/2000', wait_seconds: 60, timeline: 1, timeline_needed: 2 },
  ],
  REPLICA_UNFIT: [{ reason: 'it is no standby: it is the primary itself, or was promoted' }],
  PUBLICATION_NOT_ALLOWED: [
    { user: 'sluice', publication: 'p', reason: 'must be owner', sql: 'CREATE PUBLICATION "p"' },
  ],
  PUBLICATION_INCOMPLETE: [{ publication: 'p', what: 'every delete', sql: 'ALTER PUBLICATION "p" SET (publish = …)' }],
  PUBLICATION_LATE: [{ slot, publication: 'p' }],
  LOG_ROW_TOO_LARGE: [{ slot }],
  NOTHING_SELECTED: [{ pattern: 'public.*' }, { pattern: 'public.*', skipped: 'public.v is a view' }],
  TABLE_MISSING: [{ table: stream }, { table: stream, nearest: 'public.Orders' }],
  TABLE_RENAMED: [{ table: stream, now: 'archive.orders' }],
  TABLE_DROPPED: [{ table: stream }],
  TABLE_UNREADABLE: [{ table: stream, user: 'sluice', sql: 'GRANT SELECT …' }],
  TABLE_KIND: [{ table: stream, kind: 'a view' }],
  TABLE_NAME_LONG: [{ table: stream, name: 'x', bytes: 120, bytes_max: 63 }],
  TABLE_WITHOUT_KEY: [
    { table: stream, table_sql: '"public"."orders"' },
    { table: stream, by_query: true },
  ],
  TABLE_COLUMN_MISSING: [
    { table: stream, column: 'updated', option: 'replication_key', nearest: 'updated_at', columns: 'id' },
    { table: stream, column: 'x', option: 'key_properties', columns: 'id, updated_at' },
  ],
  REPLICATION_KEY: [{ table: stream, column: 'doc', reason: 'its type has no order.', remedy: 'Name a number.' }],
  VIEW_NOT_POPULATED: [{ table: stream, table_sql: '"public"."orders"' }],
  TABLE_IDENTITY: [{ table: stream, reason: 'it has REPLICA IDENTITY NOTHING', sql: 'ALTER TABLE …' }],
  TABLE_ROW_SECURITY: [{ table: stream, user: 'sluice', user_sql: '"sluice"' }],
  ENCODING_UNSUPPORTED: [{ side: 'source', encoding: 'SQL_ASCII', reason: 'r' }],
  VERSION_UNSUPPORTED: [{ side: 'source', version: '9.6', minimum: '10' }],
  DECODE_FAILED: [{ offset: 3, message: 'insert', reason: 'the end' }],
  SLOT_STREAM_FAILED: [{ reason: 'the server closed it' }],
  TRANSACTION_CHANGED: [{ xid: 7, messages: 3, bytes: 90, reason: 'they have 91 bytes' }],
  WINDOW_LOST: [{ cut: 7 }],
  RECORD_INVALID: [
    { table: 'public.t', stream, key: 'id = 7', column: 'n', wants: 'must be >= 0', keyword: 'minimum' },
    { table: 'public.t', stream, key: null, column: null, wants: 'must be an object', keyword: 'type' },
  ],
  REJECTED_TOO_MANY: [{ table: 'public.t', stream, rows_max: 100_000 }],
  LEDGER_GAP: [{ stream, applied: 7, expected: 8 }],
  LEDGER_INCARNATION: [{ stream, found: 'a', expected: 'b' }],
  LEDGER_BEHIND: [{ stream, applied: 7, lsn: '0/2', found: 'its newest cut is 5' }],
  STAGE_MISSING: [{ object: 'shop/cuts/1' }, { object: 'shop/cuts/1', stream }],
  STAGE_CORRUPT: [
    { object: 'shop/cuts/1', reason: 'a wrong checksum' },
    { object: 'shop/cuts/1', reason: 'a wrong checksum', stream },
  ],
  AWS_TRANSIENT: [{ service: 'S3', operation: 'PutObject', reason: 'SlowDown' }],
  AWS_DENIED: [{ service: 'S3', operation: 'PutObject', reason: 'AccessDenied' }],
  AWS_MISSING: [{ service: 'SQS', operation: 'SendMessage', resource: 'queue load.fifo' }],
  LEDGER_DAMAGED: [{ item: 'cut 7', reason: 'it has no end_lsn' }],
  LEDGER_ITEM_TOO_LARGE: [{ item: 'cut 7', bytes: 500_000, bytes_max: 409_600 }],
  STAGE_FULL: [{ object: 'shop/cuts/1', bytes_max: 1 }],
  BELL_INVALID: [{ queue: 'load', pipeline: 'shop', reason: 'it is no JSON' }],
  TARGET_READ_ONLY: [{ ...place, reason: 'a standby' }],
  TARGET_NOT_ALLOWED: [
    { user: 'loader', reason: 'permission denied' },
    { user: 'loader', reason: 'permission denied', sql: 'GRANT CREATE …' },
  ],
  TARGET_TABLE_TAKEN: [{ table: stream, reason: 'it is there, and Sluice did not make it' }],
  TYPE_TAKEN: [{ stream, type: 'shop.mood', reason: 'there is a domain of this name' }],
  TYPE_UNFOLLOWED: [
    {
      stream,
      type: 'shop.mood',
      change: 'label x stands where the target has y',
      sql: 'ALTER TYPE a; or: ALTER TYPE b',
    },
  ],
  TARGET_REJECTS: [
    { stream, reason: 'check_violation', sqlstate: '23514' },
    { stream, reason: 'check_violation', sqlstate: '23514', cut: 7 },
    { stream, reason: 'check_violation', sqlstate: '23514', cut: 7, key: 'id = 5' },
  ],
  QUARANTINE_FULL: [{ stream, rows_max: 1000, reason: 'check_violation' }],
  TARGET_TABLE_MOVED: [{ stream, found: 'a.t', expected: 'b.t' }],
  TARGET_ROW_MISSING: [{ stream }],
  TARGET_WENT_BACK: [{ stream, what: 'they stand at cut 3, and its last copy began at cut 5' }],
  TARGET_DEPENDENTS: [{ stream, table: stream, sqlstate: '2BP01' }],
  METADATA_COLUMN_TAKEN: [{ stream, column: '_sdc_deleted_at' }],
  TRUNCATE_HALTED: [{ stream }, { stream, unlogged: true }],
  ROWS_UNKNOWN: [
    { stream, rows: 3 },
    { stream, rows: 2, what: 'are not there' },
  ],
  EPOCH_INCOMPLETE: [{ stream, epoch: 1, loaded: 3, chunks: 4 }],
  TARGET_TRANSIENT: [
    { stream, reason: 'deadlock_detected', sqlstate: '40P01' },
    { stream, reason: 'out_of_memory', sqlstate: '53200', setting: 'max_locks_per_transaction' },
    ...['53100', '53200', '53400', '55P03', '57014', '58030'].map((sqlstate) => ({ stream, reason: 'x y', sqlstate })),
  ],
  SOURCE_TRANSIENT: [
    { reason: 'admin_shutdown', sqlstate: '57P01' },
    { reason: 'disk_full', sqlstate: '53100' },
  ],
  SOURCE_REFUSES: [{ action: 'list its tables', reason: 'syntax_error', sqlstate: '42601' }],
  TABLE_REWRITTEN: [{ stream, what: 'column total was added, and what older rows have in it is not known' }],
  SHAPE_CHANGED: [{ stream, change: 'it no longer has a key' }],
  UNEXPECTED: [{ reason: 'TypeError: x is not a function' }],
};

const cases = ERROR_CODES.flatMap((code) =>
  SAMPLES[code].map((facts, i) => [`${code} ${i + 1}`, code, facts] as const),
);

describe('every code', () => {
  test.each(cases)('%s says what happened and what to do', (_name, code, facts) => {
    const error = new SluiceError(code, facts);
    for (const text of [error.message, error.remedy]) {
      expect(text.length).toBeGreaterThan(10);
      expect(text).not.toMatch(/undefined|null|NaN|\[object/);
    }
    expect([error.name, error.code, error.facts]).toEqual(['SluiceError', code, facts]);
  });

  test.each(cases)('%s uses its facts', (_name, code, facts) => {
    const said = (given: Facts): string => {
      const error = new SluiceError(code, given);
      return `${error.message} ${error.remedy}`;
    };
    // Facts that only accompany the error: the count of faults, the publication and stream of entries that name another thing.
    const silent = new Set(['CONFIG_INVALID.faults', 'PUBLICATION_LATE.publication', 'TARGET_DEPENDENTS.table']);
    for (const [fact, value] of Object.entries(facts)) {
      if (value === null || value === '' || typeof value === 'boolean' || silent.has(`${code}.${fact}`)) continue;
      expect([fact, said(facts).includes(String(value))]).toEqual([fact, true]);
    }
  });

  test('what a fact changes is said', () => {
    expect(new SluiceError('TARGET_REJECTS', SAMPLES.TARGET_REJECTS[1]).message).toContain('in cut 7');
    expect(new SluiceError('SLOT_MISSING', { slot, known: true, lsn: '0/1' }).remedy).not.toContain('pg_create');
    expect(new SluiceError('SLOT_MISSING', { slot, known: false }).remedy).toContain(
      `pg_create_logical_replication_slot('${slot}'`,
    );
    expect(new SluiceError('SLOT_ACTIVE', { slot, pid: 1, application_name: '', client: null }).message).toMatch(
      /an unnamed client.*local/,
    );
  });
});

describe('what is done about it', () => {
  const GROUND: readonly ErrorCode[] = [
    'CONNECTION_FAILED',
    'AUTHENTICATION_FAILED',
    'DATABASE_MISSING',
    'TLS_FAILED',
    'SECRET_UNREADABLE',
    'SSH_UNREACHABLE',
    'SSH_HOST_KEY',
    'SSH_KEY_UNREADABLE',
    'SSH_KEY_REFUSED',
    'SSH_FORWARDING_REFUSED',
    'SLOTS_EXHAUSTED',
    'REPLICATION_NOT_ALLOWED',
    'WAL_LEVEL',
    'SOURCE_IS_STANDBY',
    'SOURCE_READ_ONLY',
    'REPLICA_UNFIT',
    'TARGET_READ_ONLY',
    'ENCODING_UNSUPPORTED',
    'VERSION_UNSUPPORTED',
    'AWS_TRANSIENT',
    'AWS_DENIED',
    'AWS_MISSING',
  ];

  test.each(ERROR_CODES)('%s', (code) => {
    const error = new SluiceError(code, SAMPLES[code][0]);
    expect(['retry', 'halt', 'recopy', 'usage']).toContain(error.disposition);
    expect(error.haltsStream).toBe(error.disposition === 'halt' && !GROUND.includes(code));
  });

  test('what is transient halts nobody; what nobody thought of halts', () => {
    const retried = ERROR_CODES.filter((code) => new SluiceError(code, SAMPLES[code][0]).disposition === 'retry');
    expect(retried.sort()).toEqual([
      'AWS_TRANSIENT',
      'CONNECTION_FAILED',
      'EPOCH_INCOMPLETE',
      'NOT_CAUGHT_UP',
      'REPLICA_BEHIND',
      'SLOT_ACTIVE',
      'SLOT_BLOCKED',
      'SLOT_STREAM_FAILED',
      'SOURCE_TRANSIENT',
      'SSH_UNREACHABLE',
      'TARGET_TRANSIENT',
      'TRANSACTION_CHANGED',
      'VIEW_NOT_POPULATED',
      'WINDOW_LOST',
    ]);
    expect(new SluiceError('UNEXPECTED', { reason: 'x' }).haltsStream).toBe(true);
    expect(ERROR_CODES.filter((code) => new SluiceError(code).copiesAnew)).toEqual(['TABLE_REWRITTEN']);
    expect(ERROR_CODES.filter((code) => new SluiceError(code).disposition === 'usage').sort()).toEqual([
      'BACKFILL_WHERE',
      'CONFIG_INVALID',
      'USAGE',
    ]);
  });
});

describe('asSluiceError', () => {
  test('one of ours stays itself', () => {
    const error = new SluiceError('WINDOW_LOST', { cut: 1 }, { cause: 'x' });
    expect(asSluiceError(error)).toBe(error);
    expect(error.cause).toBe('x');
  });

  test.each<[unknown, string]>([
    [new TypeError('no such thing'), 'TypeError: no such thing'],
    ['text', 'text'],
    [undefined, 'undefined'],
    [null, 'null'],
    [{ toString: () => 'an object' }, 'an object'],
  ])('%o becomes UNEXPECTED, with its cause', (thrown, reason) => {
    const error = asSluiceError(thrown);
    expect([error.code, error.facts.reason, error.cause]).toEqual(['UNEXPECTED', reason, thrown]);
    expect(error.message).toContain(reason);
  });
});

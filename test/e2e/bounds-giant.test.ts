/**
 * Bounds (I8): one row with a value of 250 MB (text, bytea, jsonb) goes every way that it can take, and no function's process comes to 512 MB. Each function is a
 * process of its own, bundled as the stack ships it, and tells its own greatest size.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { bounded, FULL, RSS_BYTES_MAX } from '../support/bounds.ts';
import { skipDebian, startDebianPostgres, suiteName } from '../support/debian-postgres.ts';
import { type OwnFunctions, ownFunctions } from '../support/own-functions.ts';
import { startPostgres, type TestPostgres } from '../support/postgres.ts';

/** Of the value. A bytea's text is twice as long: more than is kept as it came (PACKED_MESSAGE_BYTES_MIN). */
const VALUE_BYTES = FULL ? 250e6 : 9e6;
/** Of one digest in hexadecimal. */
const DIGEST_DIGITS = 128;
const TIMEOUT_MS = FULL ? 3_600_000 : 600_000;

const digits = (seed: string): string =>
  `(SELECT string_agg(encode(sha512(('${seed}' || i)::bytea), 'hex'), '') FROM generate_series(1, ${Math.ceil(VALUE_BYTES / DIGEST_DIGITS)}) i)`;
const VALUES: Readonly<Record<string, (seed: string) => string>> = {
  text: digits,
  bytea: (seed) =>
    `(SELECT string_agg(sha512(('${seed}' || i)::bytea), '') FROM generate_series(1, ${Math.ceil(VALUE_BYTES / 64)}) i)`,
  // One string, with all that is escaped in front of it; a jsonb's string has 256 MB at most.
  jsonb: (seed) => `to_jsonb(E'"\\\\\\t\\n' || ${digits(seed)})`,
};

type Step = readonly [what: string, sql: (kind: string) => string];
const value = (kind: string, seed: string): string => VALUES[kind]?.(seed) ?? '';
const STEPS: readonly Step[] = [
  ['first sync', () => ''],
  ['inserted', (kind) => `INSERT INTO giant_${kind} VALUES (2, 2, ${value(kind, 'b')})`],
  ['changed beside it', (kind) => `UPDATE giant_${kind} SET n = n + 10`],
  ['its key changed', (kind) => `UPDATE giant_${kind} SET id = id + 10 WHERE id < 10`],
  [
    'two in one transaction',
    (kind) => `BEGIN; DELETE FROM giant_${kind}; INSERT INTO giant_${kind} VALUES (3, 3, ${value(kind, 'c')});
      INSERT INTO giant_${kind} VALUES (4, 4, ${value(kind, 'd')}); COMMIT`,
  ],
  [
    'under REPLICA IDENTITY FULL',
    (kind) => `ALTER TABLE giant_${kind} REPLICA IDENTITY FULL; UPDATE giant_${kind} SET n = 5 WHERE id = 3;
      DELETE FROM giant_${kind} WHERE id = 4`,
  ],
];

/** Each costs minutes in full. */
const KINDS = FULL ? Object.keys(VALUES) : ['bytea'];
const stepsOf = (kind: string): Step[] =>
  STEPS.filter(([what]) => (FULL ? kind === 'text' || !/chang/.test(what) : /first sync|two/.test(what)));

const suite = (plugin: 'pgoutput' | 'wal2json'): void => {
  let source: TestPostgres;
  let target: TestPostgres;

  beforeAll(async () => {
    const settings = { max_wal_size: '4GB' };
    source = await (plugin === 'wal2json' ? startDebianPostgres : startPostgres)({ settings, large: true });
    target = await startPostgres({ settings, large: true });
  });

  afterAll(async () => {
    await source?.stop();
    await target?.stop();
  });

  test.each(KINDS)('%s', { timeout: TIMEOUT_MS }, async (kind) => {
    const [from, to] = [await source.connect(), await target.connect()];
    await from.query(
      `CREATE TABLE giant_${kind} (id int PRIMARY KEY, n int, big ${kind}); INSERT INTO giant_${kind} VALUES (1, 1, ${value(kind, 'a')})`,
    );
    const sql = `SELECT id, n, octet_length(big::text) AS bytes, md5(big::text) AS md5 FROM giant_${kind} ORDER BY id`;
    const name = `${kind}-${plugin}`;
    await using own: OwnFunctions = await ownFunctions(
      { source, target },
      {
        pipeline: name,
        tables: `[public.giant_${kind}]`,
        source: `  plugin: ${plugin}\n  replication_slot: ${kind}\n  publication_name: ${kind}`,
        target: '  hard_delete: true',
      },
    );
    for (const [what, change] of stepsOf(kind)) {
      await bounded(own, `${name}: ${what}`, RSS_BYTES_MAX, async () => {
        await from.query(change(kind));
        await own.settle();
      });
      expect((await to.query(sql)).rows, what).toEqual((await from.query(sql)).rows);
    }
    await from.query(`SELECT pg_drop_replication_slot('${kind}'); DROP TABLE giant_${kind}`);
    await to.query(`DROP TABLE giant_${kind}`);
    await Promise.all([from.end(), to.end()]);
  });
};

describe('by pgoutput', () => suite('pgoutput'));
describe.skipIf(skipDebian)(suiteName('by wal2json'), () => suite('wal2json'));

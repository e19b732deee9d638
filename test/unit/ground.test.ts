/** groundFault and publicationStep: each way in which the ground can give, and none where it is firm. */
import { describe, expect, test } from 'vitest';
import { type Lsn, lsnOf } from '../../lib/lsn.ts';
import type { Ground, SlotRow } from '../../lib/ports.ts';
import { type GroundExpectations, groundFault } from '../../lib/slot/ground.ts';
import { needsWriterLock, type PublicationState, publicationStep } from '../../lib/slot/publication.ts';

const at = (position: number): Lsn => lsnOf(BigInt(position));

const SLOT: SlotRow = {
  plugin: 'pgoutput',
  database: 'shop',
  active_pid: null,
  active_application: null,
  active_client: null,
  confirmed_lsn: at(100),
  wal_status: 'reserved',
  safe_wal_bytes: null,
  invalidation_reason: null,
};

const GROUND: Ground = {
  version: 180_004,
  system_identifier: '7300000000000000001',
  timeline: 1,
  in_recovery: false,
  wal_level: 'logical',
  encoding: 'UTF8',
  user: 'Replica "1"',
  may_replicate: true,
  flush_lsn: at(1000),
  slot: SLOT,
  publication: [],
};

const HEAD = { end_lsn: at(100), system_identifier: GROUND.system_identifier, timeline: 1 };

const EXPECTED: GroundExpectations = {
  host: 'db',
  port: 5432,
  database: 'shop',
  slot: 'sluice_shop',
  plugin: 'pgoutput',
  create_slot: true,
  slot_intended: false,
  head: HEAD,
};

function codeOf(ground: Partial<Ground>, expected: Partial<GroundExpectations> = {}): string | null {
  return groundFault({ ...GROUND, ...ground }, { ...EXPECTED, ...expected })?.code ?? null;
}

const withSlot = (slot: Partial<SlotRow>, expected: Partial<GroundExpectations> = {}): string | null =>
  codeOf({ slot: { ...SLOT, ...slot } }, expected);

describe('the server', () => {
  test('firm', () => expect(codeOf({})).toBeNull());
  test.each([
    [{ version: 90_624 }, 'VERSION_UNSUPPORTED'],
    [{ in_recovery: true, wal_level: 'replica' }, 'SOURCE_IS_STANDBY'],
    [{ wal_level: 'replica' }, 'WAL_LEVEL'],
    [{ may_replicate: false }, 'REPLICATION_NOT_ALLOWED'],
    [{ encoding: 'LATIN1' }, 'ENCODING_UNSUPPORTED'],
  ])('%j → %s', (ground, code) => expect(codeOf(ground)).toBe(code));

  test('the SQL that gives the right quotes the role', () => {
    expect(groundFault({ ...GROUND, may_replicate: false }, EXPECTED)?.remedy).toContain(
      'ALTER ROLE "Replica ""1""" REPLICATION',
    );
  });
});

describe('the cluster', () => {
  test.each([
    ['another system identifier', { system_identifier: '7300000000000000002' }, 'CLUSTER_CHANGED'],
    ['an earlier timeline', { timeline: 0 }, 'CLUSTER_CHANGED'],
    ['a log that ends before the chain', { flush_lsn: at(99) }, 'CLUSTER_CHANGED'],
    ['a log that ends where the chain does', { flush_lsn: at(100) }, null],
    ['a later timeline, the slot having survived', { timeline: 2 }, null],
    ['a later timeline without the slot', { timeline: 2, slot: null }, 'SLOT_MISSING'],
  ])('%s', (_, ground, code) => expect(codeOf(ground)).toBe(code));

  test('before there is a chain, any cluster is right', () => {
    expect(codeOf({ system_identifier: '1', timeline: 9, slot: null }, { head: null })).toBeNull();
  });
});

describe('the slot, with a chain', () => {
  test.each([
    ['another plugin', { plugin: 'wal2json' }, 'SLOT_PLUGIN'],
    ['a physical slot', { plugin: 'physical' }, 'SLOT_PLUGIN'],
    ['another database', { database: 'other' }, 'SLOT_DATABASE'],
    ['lost', { wal_status: 'lost' }, 'SLOT_LOST'],
    ['invalidated', { wal_status: 'unreserved', invalidation_reason: 'idle_timeout' }, 'SLOT_LOST'],
    ['in danger, but there', { wal_status: 'unreserved' }, null],
    ['before the chain: what it sends again is known', { confirmed_lsn: at(1) }, null],
    ['past the chain', { confirmed_lsn: at(101) }, 'SLOT_ADVANCED'],
  ])('%s', (_, slot, code) => expect(withSlot(slot)).toBe(code));

  test('missing: the changes since the chain are gone, and the fault says since when', () => {
    const fault = groundFault({ ...GROUND, slot: null }, EXPECTED);
    expect(fault?.code).toBe('SLOT_MISSING');
    expect(fault?.message).toContain('changes since 0/64');
  });
});

describe('the slot, without a chain', () => {
  const head = null;
  test.each([
    ['missing, to be made', null, { head }, null],
    ['missing, not to be made', null, { head, create_slot: false }, 'SLOT_MISSING'],
    ['there, to be taken over', SLOT, { head, create_slot: false }, null],
    ['there, nobody knows why', SLOT, { head }, 'SLOT_FOREIGN'],
    ['there, since a window died after making it', SLOT, { head, slot_intended: true }, null],
    ['there, but lost', { ...SLOT, wal_status: 'lost' }, { head, slot_intended: true }, 'SLOT_LOST'],
  ])('%s', (_, slot, expected, code) => expect(codeOf({ slot }, expected)).toBe(code));
});

describe('the publication', () => {
  const a = { schema: 'public', table: 'a' };
  const odd = { schema: 'S-1', table: 'b "x"' };
  const state = (overrides: Partial<PublicationState>): PublicationState => ({
    all_tables: false,
    silent: [],
    via_root: false,
    tables: [],
    partial: [],
    ...overrides,
  });

  test('is made for exactly the tables', () => {
    expect(publicationStep('P', null, [a, odd])).toEqual({
      kind: 'change',
      sql: 'CREATE PUBLICATION "P" FOR TABLE ONLY "public"."a", ONLY "S-1"."b ""x"""',
      tables: [a, odd],
    });
  });

  test('is added to, and left alone when it has everything', () => {
    expect(publicationStep('P', state({ tables: [a] }), [a, odd])).toMatchObject({
      sql: 'ALTER PUBLICATION "P" ADD TABLE ONLY "S-1"."b ""x"""',
    });
    expect(publicationStep('P', state({ tables: [odd, a] }), [a, odd])).toEqual({ kind: 'ready' });
    expect(publicationStep('P', state({ all_tables: true, tables: [odd, a] }), [a])).toEqual({ kind: 'ready' });
  });

  test.each([
    [
      'operations',
      state({ tables: [a], silent: ['update', 'truncate'] }),
      "SET (publish = 'insert, update, delete, truncate')",
    ],
    ['rows', state({ tables: [a], partial: [a] }), 'DROP TABLE ONLY "public"."a"'],
    ['a partition, under its root', state({ all_tables: true, via_root: true }), 'publish_via_partition_root = false'],
  ])('that leaves out %s is a fault, with the SQL that mends it', (_, found, sql) => {
    const step = publicationStep('P', found, [a]);
    expect(step.kind === 'fault' && [step.fault.code, step.fault.remedy]).toEqual([
      'PUBLICATION_INCOMPLETE',
      expect.stringContaining(sql),
    ]);
  });

  test('that still lacks a table after it was added publishes it under its root', () => {
    const step = publicationStep('P', state({ via_root: true }), [a], true);
    expect(step.kind === 'fault' && step.fault.code).toBe('PUBLICATION_INCOMPLETE');
  });

  test('for all tables that lacks one: there is no such table', () => {
    const step = publicationStep('P', state({ all_tables: true }), [a]);
    expect(step.kind === 'fault' && step.fault.code).toBe('TABLE_MISSING');
  });

  test.each([
    [100_023, true],
    [130_022, true],
    [140_017, true],
    [140_018, false],
    [150_012, true],
    [150_018, false],
    [160_008, true],
    [170_005, false],
    [180_000, false],
  ])('on %i, a table that is added is locked against writers: %s', (version, locked) => {
    expect(needsWriterLock(version)).toBe(locked);
  });
});

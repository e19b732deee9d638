/** groundFault and publicationStep: each way in which the ground can give, and none where it is firm. */
import { describe, expect, test } from 'vitest';
import { type Lsn, lsnOf } from '../../lib/lsn.ts';
import type { Ground, SlotRow, SourceTable } from '../../lib/ports.ts';
import { tableKey } from '../../lib/shape.ts';
import { type GroundExpectations, groundFault } from '../../lib/slot/ground.ts';
import {
  needsWriterLock,
  type PublicationState,
  publicationStep,
  publishedTables,
} from '../../lib/slot/publication.ts';
import { sourceTable } from '../support/source-tables.ts';

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
    [{ encoding: 'SQL_ASCII' }, 'ENCODING_UNSUPPORTED'],
    [{ encoding: 'LATIN1' }, null],
    [{ encoding: 'EUC_JP' }, null],
  ])('%j → %s', (ground, code) => expect(codeOf(ground)).toBe(code));

  test('wal2json writes in the encoding of the database, and nobody converts it', () => {
    const plugin = { plugin: 'wal2json', slot_intended: true, head: null };
    const slot = { ...SLOT, plugin: 'wal2json' };
    expect(codeOf({ encoding: 'LATIN1', slot }, plugin)).toBe('ENCODING_UNSUPPORTED');
    expect(codeOf({ slot }, plugin)).toBeNull();
  });

  test.each([
    [90_624, 'PostgreSQL 9.6.24; 10 or newer'],
    [100_006, 'PostgreSQL 10.6; 10.7 or newer is needed: logical decoding loses data'],
    [110_000, 'PostgreSQL 11; 11.2 or newer is needed: logical decoding loses data'],
    [110_001, 'PostgreSQL 11.1; 11.2 or newer is needed: logical decoding loses data'],
  ])('version %i is refused with the one to update to', (version, words) => {
    const fault = groundFault({ ...GROUND, version }, EXPECTED);
    expect(fault?.code).toBe('VERSION_UNSUPPORTED');
    expect(fault?.message).toContain(words);
  });

  test.each([100_007, 100_023, 110_002, 120_000, 130_000, 190_000])('version %i is firm ground', (version) =>
    expect(codeOf({ version })).toBeNull(),
  );

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
    ['a log that ends before the chain', { flush_lsn: at(99) }, 'CLUSTER_BEHIND'],
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
  const a = { ...sourceTable('public.a'), entries: 'r1' };
  const odd = { ...sourceTable('S-1.b "x"'), entries: 'r2' };
  const root = { ...sourceTable('public.root', { kind: 'p', oid: 7, partitions: [] }), entries: 'r3' };
  const leaf = { ...sourceTable('public.leaf', { oid: 8, partition_of: [7] }), entries: 'r3' };
  const computed = {
    ...sourceTable('public.computed', {
      replica_identity: 'f',
      generated: [{ name: 'g', type_oid: 23, type_modifier: -1, number: 3, expression: '1', storage: 's' }],
    }),
    entries: 'r4',
  };
  const on = { version: 180_000 };
  const state = (overrides: Partial<PublicationState>): PublicationState => ({
    revision: '5.100',
    all_tables: false,
    silent: [],
    via_root: false,
    generated_columns: 'n',
    tables: [],
    members: [],
    partial: [],
    ...overrides,
  });
  const sqlOf = (found: PublicationState | null, wanted: readonly SourceTable[], version = 180_000): string | null => {
    const step = publicationStep('P', found, wanted, { version });
    return step.kind === 'change' ? step.sql : step.kind;
  };

  test('is made for exactly the tables', () => {
    expect(publicationStep('P', null, [a, odd], on)).toEqual({
      kind: 'change',
      sql: 'CREATE PUBLICATION "P" FOR TABLE ONLY "public"."a", ONLY "S-1"."b ""x"""',
      tables: [a, odd],
      alters: false,
    });
  });

  test('publishes a partitioned table as one, with what is below it, and not by a setting that the server lacks', () => {
    const via = 'publish_via_partition_root = true';
    expect(sqlOf(null, [a, root])).toBe(
      `CREATE PUBLICATION "P" FOR TABLE ONLY "public"."a", "public"."root" WITH (${via})`,
    );
    // In without the setting, its partitions stand there in its stead.
    const without = { tables: [a, leaf], members: [a, root] };
    expect(publicationStep('P', state(without), [a, root], on)).toEqual({
      kind: 'change',
      sql: `ALTER PUBLICATION "P" SET (${via})`,
      tables: [root],
      alters: true,
    });
    expect(sqlOf(state({ tables: [a], via_root: true }), [a, root])).toBe(
      'ALTER PUBLICATION "P" ADD TABLE "public"."root"',
    );
    expect(sqlOf(state({ tables: [a, root], via_root: true }), [a, root])).toBe('ready');
  });

  test('publishes generated columns before it takes in a table that they identify, from 18 on', () => {
    const stored = 'publish_generated_columns = stored';
    expect(sqlOf(null, [computed])).toContain(`WITH (${stored})`);
    expect(sqlOf(null, [computed], 170_000)).not.toContain('WITH');
    expect(sqlOf(state({ tables: [a] }), [a, computed])).toBe(`ALTER PUBLICATION "P" SET (${stored})`);
    expect(sqlOf(state({ tables: [a], generated_columns: 's' }), [a, computed])).toContain('ADD TABLE');
    expect(sqlOf(state({ tables: [a], generated_columns: null }), [a, computed], 170_000)).toContain('ADD TABLE');
    // Only where they identify a row.
    expect(sqlOf(state({ tables: [a] }), [a, { ...computed, replica_identity: 'd' }])).toContain('ADD TABLE');
  });

  test('a partition that comes under its root, while other roots are wanted: the root is what must leave', () => {
    const found = state({ via_root: true, tables: [root], members: [root] });
    const other = sourceTable('public.other', { kind: 'p', oid: 9, partitions: [] });
    const step = publicationStep('P', { ...found, tables: [root, { ...other, entries: '' }] }, [leaf, other], {
      ...on,
      added: true,
    });
    expect(step.kind === 'fault' && step.fault.remedy).toContain('ALTER PUBLICATION "P" DROP TABLE "public"."root"');
  });

  describe('how it holds a table', () => {
    const textOf = (found: PublicationState | null, table: SourceTable): string | undefined =>
      publishedTables('P', found, [table]).get(tableKey(table));

    test('changes with its settings, and with how the table got in; not with another table', () => {
      const before = textOf(state({ tables: [a] }), a);
      expect(before).toBeDefined();
      expect(textOf(state({ tables: [a, odd] }), a)).toBe(before);
      expect(textOf(state({ tables: [a], revision: '5.101' }), a)).not.toBe(before);
      expect(textOf(state({ tables: [{ ...a, entries: 'r9' }] }), a)).not.toBe(before);
    });

    test('is nothing where it is not in, or there is no publication', () => {
      expect(textOf(state({ tables: [odd] }), a)).toBeUndefined();
      expect(textOf(null, a)).toBeUndefined();
    });

    test('is a fault where it leaves out changes of it, and none where those are of others', () => {
      const clipped = state({ tables: [a, odd], partial: [odd] });
      expect(textOf(clipped, a)).toBeDefined();
      expect(() => textOf(clipped, odd)).toThrow(expect.objectContaining({ code: 'PUBLICATION_INCOMPLETE' }));
      const silent = state({ tables: [a], silent: ['delete'] });
      expect(() => textOf(silent, a)).toThrow(expect.objectContaining({ code: 'PUBLICATION_INCOMPLETE' }));
    });
  });

  test('is added to, and left alone when it has everything', () => {
    expect(publicationStep('P', state({ tables: [a] }), [a, odd], on)).toMatchObject({
      sql: 'ALTER PUBLICATION "P" ADD TABLE ONLY "S-1"."b ""x"""',
    });
    expect(publicationStep('P', state({ tables: [odd, a] }), [a, odd], on)).toEqual({ kind: 'ready' });
    expect(publicationStep('P', state({ all_tables: true, tables: [odd, a] }), [a], on)).toEqual({ kind: 'ready' });
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
    const step = publicationStep('P', found, [a], on);
    expect(step.kind === 'fault' && [step.fault.code, step.fault.remedy]).toEqual([
      'PUBLICATION_INCOMPLETE',
      expect.stringContaining(sql),
    ]);
  });

  test('that still lacks a table after it was added publishes it under its root', () => {
    const step = publicationStep('P', state({ via_root: true }), [leaf], { ...on, added: true });
    expect(step.kind === 'fault' && step.fault.code).toBe('PUBLICATION_INCOMPLETE');
    // One that is no partition has another name by now: the server says so when it is added again.
    expect(publicationStep('P', state({ via_root: true }), [a], { ...on, added: true }).kind).toBe('change');
  });

  test('for all tables that lacks one: there is no such table', () => {
    const step = publicationStep('P', state({ all_tables: true }), [a], on);
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

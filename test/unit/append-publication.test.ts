/** The publication of tables that are only appended to: its name, what it must hold, and what it must not. */
import { describe, expect, test } from 'vitest';
import {
  appendOperations,
  appendPublicationName,
  appendState,
  isAppendOnly,
} from '../../lib/slot/append-publication.ts';
import { type PublicationState, publicationStep } from '../../lib/slot/publication.ts';

const STATE: PublicationState = {
  revision: '1.1',
  all_tables: false,
  silent: ['update', 'delete'],
  via_root: false,
  generated_columns: null,
  tables: [],
  members: [],
  partial: [],
};

test('a table is only appended to where the log has neither a key nor the whole old row', () => {
  const of = (key: string[], replica_identity: string): boolean => isAppendOnly({ key, replica_identity });
  expect([of([], 'd'), of([], 'n'), of([], 'f'), of(['id'], 'd')]).toEqual([true, true, false, false]);
});

describe('its name', () => {
  test('is the other one with an ending', () => {
    expect(appendPublicationName('sluice_shop')).toBe('sluice_shop_append');
  });

  test('is never longer than PostgreSQL takes, cut between letters, and another one for another publication', () => {
    const names = ['x'.repeat(63), `${'x'.repeat(62)}y`, 'é'.repeat(31), `${'é'.repeat(30)}è`].map(
      appendPublicationName,
    );
    expect(new Set(names).size).toBe(names.length);
    for (const name of names) {
      expect(Buffer.byteLength(name)).toBeLessThanOrEqual(63);
      expect(Buffer.from(name).toString()).toBe(name);
      expect(name).toMatch(/_[0-9a-f]{8}_append$/);
    }
  });
});

test('it is made to publish INSERT, and TRUNCATE where the log has it', () => {
  const step = publicationStep('p', null, [{ schema: 's', table: 't', kind: 'r', replica_identity: 'd' }], {
    version: 180_000,
    operations: appendOperations(180_000),
  });
  expect(step).toMatchObject({
    sql: `CREATE PUBLICATION "p" FOR TABLE ONLY "s"."t" WITH (publish = 'insert, truncate')`,
  });
  expect(appendOperations(100_000)).toBe('insert');
});

describe('one that is there', () => {
  test('is as it should be where it leaves out updates and deletes', () => {
    expect(appendState('p', STATE, 180_000).silent).toEqual([]);
  });

  test.each([
    ['holds less', ['truncate', 'update', 'delete'], 'leaves out every truncate'],
    ['holds more', ['delete'], 'publishes update'],
  ])('and %s is a fault, with the SQL that mends it', (_what, silent, message) => {
    expect(() => appendState('p', { ...STATE, silent }, 180_000)).toThrow(message);
    try {
      appendState('p', { ...STATE, silent }, 180_000);
    } catch (error) {
      expect((error as { remedy: string }).remedy).toContain(
        `ALTER PUBLICATION "p" SET (publish = 'insert, truncate')`,
      );
    }
  });
});

/**
 * OpenCut knows a table by its OID: names of the past, names of the future, and other tables under a captured name.
 */
import { describe, expect, test } from 'vitest';
import { OpenCut } from '../../lib/cut/open-cut.ts';
import { PgoutputDecoder } from '../../lib/decode/pgoutput.ts';
import { lsnOf } from '../../lib/lsn.ts';
import { joined } from '../../lib/piece.ts';
import * as pg from '../support/pgoutput.ts';

const OURS = 7;
const OTHER = 8;
const CATALOG_LSN = 1000n;

/** What a cut with the captured table `public.a` (OID 7) makes of transactions. */
function read(...transactions: readonly { readonly at: bigint; readonly messages: readonly Buffer[] }[]) {
  const streams = [{ stream: 'a', schema: 'public', table: 'a', key: ['id'], oid: OURS }];
  const cut = new OpenCut({ streams, hard_delete: true, isDue: () => false, catalog_lsn: lsnOf(CATALOG_LSN) });
  const decoder = new PgoutputDecoder(cut);
  for (const { at, messages } of transactions) {
    const all = [pg.begin(1, 1_700_000_000_000_000n, at), ...messages, pg.commit(at)];
    for (const message of all) decoder.decode(message, 0, message.length);
  }
  const lines = cut
    .takePart()
    .flatMap(({ blocks }) => blocks.map(({ pieces }) => joined(pieces).toString().replaceAll('\t', ',').trim()));
  return { lines, fault: cut.faults.get('a') ?? null };
}

const named = (id: number, table: string, schema = 'public'): Buffer =>
  pg.relation({ id, schema, table, columns: [{ name: 'id', key: true }] });
const before = (...messages: Buffer[]) => ({ at: CATALOG_LSN - 1n, messages });
const after = (...messages: Buffer[]) => ({ at: CATALOG_LSN, messages });

describe('older than the catalog', () => {
  test('what it follows is its own under every name that it had', () => {
    const { lines, fault } = read(
      before(named(OURS, 'x'), pg.insert(OURS, ['1'])),
      before(named(OURS, 'a', 'elsewhere'), pg.insert(OURS, ['2'])),
      after(named(OURS, 'a'), pg.insert(OURS, ['3'])),
    );
    expect([lines.join('\n'), fault]).toEqual(['1\n2\n3', null]);
  });

  test('another table under its name is one that is gone', () => {
    const { lines, fault } = read(
      before(named(OTHER, 'a'), pg.insert(OTHER, ['1'])),
      after(named(OURS, 'a'), pg.insert(OURS, ['2'])),
    );
    expect([lines, fault]).toEqual([['2'], null]);
  });
});

describe('younger than the catalog', () => {
  test('a table that was made anew under its name is not followed: the stream is copied anew', () => {
    const { lines, fault } = read(
      after(named(OURS, 'a'), pg.insert(OURS, ['1'])),
      after(named(OTHER, 'a'), pg.insert(OTHER, ['2'])),
    );
    expect(lines).toEqual(['1']);
    expect(fault).toMatchObject({ code: 'TABLE_REWRITTEN', disposition: 'recopy' });
  });

  test.each([
    ['renamed', 'b', 'public', 'public.b'],
    ['moved to another schema', 'a', 'archive', 'archive.a'],
  ])('one that was %s is not followed: the stream halts, and says what it is called now', (_, table, schema, now) => {
    const { lines, fault } = read(
      after(named(OURS, 'a'), pg.insert(OURS, ['1'])),
      after(named(OURS, table, schema), pg.insert(OURS, ['2'])),
      // Renamed back: what came meanwhile was passed over, and that is not forgotten.
      after(named(OURS, 'a'), pg.insert(OURS, ['3'])),
    );
    expect(lines.join('\n')).toBe('1\n3');
    expect(fault).toMatchObject({ code: 'TABLE_RENAMED', facts: { table: 'public.a', now } });
  });

  test('a table that nobody captured is nobody’s', () => {
    const { lines, fault } = read(after(named(OTHER, 'b'), pg.insert(OTHER, ['1'])));
    expect([lines, fault]).toEqual([[], null]);
  });
});

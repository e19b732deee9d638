/**
 * Tables without a key: what a share of them holds, when it ends, and the statements that the loader makes of it. That shares mean what happened is
 * test/property/multiset.test.ts's, and that statements do is test/pg/keyless.test.ts's.
 */
import { describe, expect, test } from 'vitest';
import type { Keyless } from '../../lib/cut/multiset.ts';
import { OpenCut } from '../../lib/cut/open-cut.ts';
import type { Share } from '../../lib/cut/share.ts';
import { PgoutputDecoder } from '../../lib/decode/pgoutput.ts';
import { addCopiesSql, copyEmptyRowsSql, inCopy, takeCopiesSql } from '../../lib/load/multiset.ts';
import { landedColumns, makeTempSql, type TableForm } from '../../lib/load/sql.ts';
import { LSN_MAX, LSN_ZERO, lsnOf } from '../../lib/lsn.ts';
import { joined } from '../../lib/piece.ts';
import * as pg from '../support/pgoutput.ts';

const COLUMNS = [{ name: 'a' }, { name: 'b' }];
const T = 1;

function open({ hard_delete = true, ...keyless }: Partial<Keyless> & { hard_delete?: boolean } = {}) {
  const full = { rows: 'multiset', apart_before: LSN_ZERO, ...keyless } as const;
  const streams = [{ stream: 't', schema: 'public', table: 't', key: [], keyless: full }];
  const cut = new OpenCut({ streams, hard_delete, isDue: () => false });
  const decoder = new PgoutputDecoder(cut);
  const feed = (...messages: readonly Buffer[]): void => {
    for (const message of messages) decoder.decode(message, 0, message.length);
  };
  return { cut, feed };
}

const described = (identity: 'f' | 'd' | 'n' = 'f', columns: pg.RelationOf['columns'] = COLUMNS): Buffer =>
  pg.relation({ id: T, identity, columns });

/** `first-last kind: lines` of each share. */
function told(shares: readonly Share[]): string[] {
  return shares.map(({ operation, blocks, commits }) => {
    const span = `${commits?.first}-${commits?.last}`;
    if (operation === 'truncate') return `${span} truncate`;
    const texts = blocks.map(({ kind, columns, rows, pieces }) => {
      const text = joined(pieces).toString().replaceAll('\n', '|').replaceAll('\t', ',');
      return `${kind}(${columns.join()})x${rows}: ${text}`;
    });
    return `${span} ${texts.join(' ')}`;
  });
}

describe('a share', () => {
  test('counts copies: what comes and goes is not told, and an update is a replaced row and an added one', () => {
    const { cut, feed } = open();
    feed(
      pg.begin(1, 0n, 16n),
      described(),
      pg.insert(T, ['1', 'x']),
      pg.insert(T, ['1', 'x']),
      pg.insert(T, ['2', null]),
    );
    feed(pg.del(T, { full: ['2', null] }), pg.update(T, ['3', ''], { full: ['1', 'y'] }), pg.commit(32n));
    expect(told(cut.takePart())).toEqual(['0/10-0/10 remove(0,1)x1: 1,y,1| add(0,1)x2: 1,x,2|3,,1|']);
    expect(cut.changes).toBe(5);
  });

  test('takes what an update left unchanged from the old row', () => {
    const { cut, feed } = open();
    feed(
      pg.begin(1, 0n, 16n),
      described(),
      pg.update(T, ['2', pg.UNCHANGED], { full: ['1', 'far away'] }),
      pg.commit(32n),
    );
    expect(told(cut.takePart())).toEqual(['0/10-0/10 remove(0,1)x1: 1,far away,1| add(0,1)x1: 2,far away,1|']);
  });

  test('keeps what was written and deleted where deletions leave a mark', () => {
    const { cut, feed } = open({ hard_delete: false });
    feed(pg.begin(1, 1_700_000_000_000_001n, 16n), described(), pg.insert(T, ['1', 'x']));
    feed(pg.del(T, { full: ['1', 'x'] }), pg.del(T, { full: ['1', 'x'] }), pg.commit(32n));
    expect(told(cut.takePart())).toEqual([
      '0/10-0/10 add(0,1)x1: 1,x,1| erase(0,1)x1: 1,x,2023-11-14 22:13:20.000001+00,2|',
    ]);
  });

  test('holds one transaction before the position, and any number of them from there on', () => {
    const { cut, feed } = open({ apart_before: lsnOf(48n) });
    feed(described());
    for (const [begin, end] of [
      [16n, 32n],
      [32n, 48n],
      [48n, 64n],
      [64n, 80n],
    ] as const) {
      feed(pg.begin(1, 0n, begin), pg.insert(T, ['1', 'x']), pg.commit(end));
    }
    const add = (copies: number): string => `add(0,1)x1: 1,x,${copies}|`;
    expect(told(cut.takePart())).toEqual([`0/10-0/10 ${add(1)}`, `0/20-0/20 ${add(1)}`, `0/30-0/40 ${add(2)}`]);
  });

  test('a TRUNCATE has its place, and says when it was committed', () => {
    const { cut, feed } = open({ apart_before: LSN_MAX });
    feed(
      pg.begin(1, 0n, 16n),
      described(),
      pg.insert(T, ['1', 'x']),
      pg.truncate([T]),
      pg.insert(T, ['2', 'y']),
      pg.commit(32n),
    );
    expect(told(cut.takePart())).toEqual([
      '0/10-0/10 add(0,1)x1: 1,x,1|',
      '0/10-0/10 truncate',
      '0/10-0/10 add(0,1)x1: 2,y,1|',
    ]);
  });

  test('a row without columns is its number', () => {
    const { cut, feed } = open();
    feed(pg.begin(1, 0n, 16n), described('f', []), pg.insert(T, []), pg.insert(T, []), pg.commit(32n));
    expect(told(cut.takePart())).toEqual(['0/10-0/10 add()x1: 2|']);
  });

  test('a row of megabytes has a share of its own, deleted or not', () => {
    const { cut, feed } = open();
    const big = 'g'.repeat(70_000);
    const giant = pg.del(T, { full: ['1', big] });
    feed(pg.begin(1, 0n, 16n), described(), pg.insert(T, ['1', 'x']));
    new PgoutputDecoder(cut).decodeGiant([giant.subarray(0, 9), giant.subarray(9)]);
    feed(pg.insert(T, ['1', 'x']), pg.commit(32n));
    const shares = told(cut.takePart());
    expect(shares).toHaveLength(3);
    expect(shares[1]).toMatch(/^0\/10-0\/10 erase\(0,1\)x1: 1,g{70000},[-0-9 :.+]+,1\|$/);
  });

  test('the part is full when its rows are', () => {
    const { cut, feed } = open();
    feed(pg.begin(1, 0n, 16n), described());
    for (let i = 0; i < 9; i++) feed(pg.insert(T, [String(i), 'x'.repeat(1024 * 1024)]));
    expect(cut.partIsFull).toBe(true);
  });
});

describe('where the log has no old row', () => {
  test.each(['d', 'n'] as const)(
    'identity %s: a table that is only appended to goes on, and what changes is passed over',
    (identity) => {
      const { cut, feed } = open({ rows: 'append' });
      feed(
        pg.begin(1, 0n, 16n),
        described(identity),
        pg.update(T, ['1', 'x']),
        pg.insert(T, ['2', 'y']),
        pg.commit(32n),
      );
      feed(pg.begin(1, 0n, 32n), described('f'), pg.del(T, { full: ['1', 'x'] }), pg.commit(48n));
      expect(told(cut.takePart())).toEqual(['0/10-0/10 add(0,1)x1: 2,y,1|']);
      expect(cut.faults.size).toBe(0);
    },
  );

  test('a table that was to be followed whole is copied anew', () => {
    const { cut, feed } = open();
    feed(
      pg.begin(1, 0n, 16n),
      described('d'),
      pg.insert(T, ['1', 'x']),
      pg.update(T, ['2', 'x']),
      pg.insert(T, ['3', 'x']),
    );
    expect([...cut.faults.values()].map(({ code }) => code)).toEqual(['TABLE_REWRITTEN']);
    expect(told(cut.takePart())).toEqual(['0/10-0/10 add(0,1)x1: 1,x,1|']);
  });
});

test('a copy has what was committed before its position, and not what begins there', () => {
  const has = (first: string, last: string): string => inCopy({ first, last }, lsnOf(0x30n));
  expect([has('0/10', '0/2F'), has('0/30', '0/30'), has('0/40', '1/0'), has('0/2F', '0/30')]).toEqual([
    'all',
    'none',
    'none',
    'some',
  ]);
});

describe('statements', () => {
  const form: TableForm = {
    name: { schema: 's', table: 't' },
    shape: { columns: [{ name: 'a', type_oid: 23, type_modifier: -1 }], key: [] },
    metadata: true,
  };
  const landed = { temp: 'pg_temp.x', kind: 'erase', columns: ['a'], key: [] } as const;

  test('a landed line ends with its number, and of a deletion with its time before it', () => {
    expect(landedColumns(landed)).toEqual(['c0', 'at', 'n']);
    expect(landedColumns({ ...landed, kind: 'add' })).toEqual(['c0', 'n']);
    expect(makeTempSql(form, landed)).toContain('SELECT t."a" AS c0, NULL::timestamptz AS at, NULL::int8 AS n FROM');
  });

  test('rows are compared as text, and marked ones count as gone', () => {
    const sql = takeCopiesSql(form, landed, null);
    expect(sql).toContain('ROW(t."a")::pg_catalog.text COLLATE "C" WHERE t."_sdc_deleted_at" IS NULL');
    expect(sql).toContain('DELETE FROM "s"."t"');
    expect(takeCopiesSql({ ...form, metadata: false }, landed, null)).not.toContain('_sdc_');
    expect(takeCopiesSql(form, landed, { extracted_at: '2026-01-01T00:00:00Z' })).toContain('"_sdc_deleted_at" = f.at');
  });

  test('a table without columns is inserted into all the same', () => {
    const none = { ...form, metadata: false, shape: { columns: [], key: [] } };
    const into = 'INSERT INTO "s"."t" SELECT  FROM pg_temp.x s CROSS JOIN LATERAL generate_series(1, s.n)';
    expect(addCopiesSql(none, { ...landed, kind: 'add', columns: [] }, '')).toBe(into);
    expect(copyEmptyRowsSql('"s"."t"')).toBe(`COPY "s"."t" ("_sdc_deleted_at") FROM STDIN WITH (NULL '')`);
  });
});

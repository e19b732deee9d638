/** How far the reader by calls lets a call go: to where a record is known to end, for the function would wait for the rest of one that is flushed in part. */
import type { Client } from 'pg';
import { describe, expect, test } from 'vitest';
import { formatLsn, lsnOf } from '../../lib/lsn.ts';
import { PeekSession } from '../../lib/slot/peek-session.ts';

const PAGE = 8192;
const clock = { now: () => 0, sleep: () => Promise.resolve() };

/** A session that finds these at its looks: [insert, flush]. */
function sessionOf(...looks: readonly (readonly [number, number])[]): PeekSession {
  const left = [...looks];
  const client = {
    query: () => {
      const [insert, flush] = left.shift() ?? [0, 0];
      const row = { insert_lsn: formatLsn(lsnOf(BigInt(insert))), flush_lsn: formatLsn(lsnOf(BigInt(flush))) };
      return Promise.resolve({ rows: [row] });
    },
  };
  return new PeekSession(
    { connect: () => Promise.reject(new Error('not asked')), clock, slot: 's', publication: 'p' },
    client as unknown as Client,
    { version: 180_004, page_bytes: PAGE, confirmed_lsn: '0/1' },
    { options: {}, dialect: { plugin: 'pgoutput' } },
    lsnOf(1n),
  );
}

describe('the end of a call', () => {
  test.each([
    ['all is flushed', PAGE * 3, PAGE * 3, PAGE * 3],
    ['all is flushed, and the next record goes behind the header of a page', PAGE * 3 + 24, PAGE * 3, PAGE * 3],
    ['… and of a segment', PAGE * 3 + 40, PAGE * 3, PAGE * 3],
    ['flushed up to a commit, and more written', PAGE * 5, PAGE * 2 + 96, PAGE * 2 + 96],
    ['flushed by pages: the last record may lack its rest', PAGE * 5, PAGE * 3, null],
  ])('%s', async (_, insert, flush, end) => {
    expect(await sessionOf([insert, flush]).end()).toBe(end === null ? null : BigInt(end));
  });

  test('a record that was seen whole before, and is flushed by now, will do', async () => {
    const session = sessionOf(
      [PAGE * 2 + 8, PAGE],
      [PAGE * 9, PAGE * 2],
      [PAGE * 9, PAGE * 3],
      [PAGE * 9 + 8, PAGE * 8],
    );
    expect(await session.end()).toBeNull();
    // It is not flushed yet: remembered, and not put off by a later one.
    expect(await session.end()).toBeNull();
    expect(await session.end()).toBe(BigInt(PAGE * 2 + 8));
    // The later one is remembered now, and not flushed.
    expect(await session.end()).toBeNull();
  });
});

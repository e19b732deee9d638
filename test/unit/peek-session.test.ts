/** How far the reader by calls lets a call go: to where a record is known to end, for the function would wait for the rest of one that is flushed in part. */
import type { Client } from 'pg';
import { describe, expect, test } from 'vitest';
import { formatLsn, lsnOf } from '../../lib/lsn.ts';
import { PeekSession } from '../../lib/slot/peek-session.ts';

const PAGE = 8192;
const SEGMENT = 1024 * 1024;
const clock = { now: () => 0, sleep: () => Promise.resolve() };

/** A session that finds these at its looks: [insert, flush]. */
function sessionOf(...looks: readonly (readonly [number, number])[]): PeekSession {
  const left = [...looks];
  const client = {
    query: () => {
      const [insert, flush] = left.shift() ?? [0, 0];
      const row = {
        insert_lsn: formatLsn(lsnOf(BigInt(insert))),
        flush_lsn: formatLsn(lsnOf(BigInt(flush))),
        confirmed_lsn: '0/1',
      };
      return Promise.resolve({ rows: [row] });
    },
  };
  return new PeekSession(
    { connect: () => Promise.reject(new Error('not asked')), clock, slot: 's', publication: 'p' },
    client as unknown as Client,
    { version: 180_004, page_bytes: PAGE, segment_bytes: SEGMENT, confirmed_lsn: '0/1' },
    { options: {}, dialect: { plugin: 'pgoutput' } },
    lsnOf(1n),
  );
}

describe('the end of a call', () => {
  test.each([
    ['all is flushed', PAGE * 3, PAGE * 3, PAGE * 3],
    ['all is flushed, and the next record goes behind the header of a page', PAGE * 3 + 24, PAGE * 3, PAGE * 3],
    ['… and of a segment', SEGMENT * 3 + 40, SEGMENT * 3, SEGMENT * 3],
    ['a record of which the last bytes lie on the next page, that is not flushed', PAGE * 3 + 40, PAGE * 3, null],
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

  test('what is remembered of a log whose next record goes behind the header of a page ends before that', async () => {
    const session = sessionOf([PAGE * 3 + 24, PAGE], [PAGE * 9, PAGE * 3]);
    expect(await session.end()).toBeNull();
    expect(await session.end()).toBe(BigInt(PAGE * 3));
  });
});

test('a call is not cancelled once its connection is closed: its process may be another one by then', async () => {
  const asked: string[] = [];
  const clientOf = (processID: number): Client =>
    ({
      processID,
      query: (sql: string) => Promise.resolve({ rows: [], asked: asked.push(sql) }),
      end: () => Promise.resolve(),
      connection: { stream: { destroy: () => asked.push(`${processID} closed`) } },
    }) as unknown as Client;
  const late = Promise.withResolvers<Client>();
  const session = new PeekSession(
    { connect: () => late.promise, clock, slot: 's', publication: 'p' },
    clientOf(1),
    { version: 180_004, page_bytes: PAGE, segment_bytes: SEGMENT, confirmed_lsn: '0/1' },
    { options: {}, dialect: { plugin: 'pgoutput' } },
    lsnOf(1n),
  );
  const cancelled = session.cancel();
  await session.close();
  late.resolve(clientOf(2));
  await cancelled;
  expect(asked).toEqual(['1 closed', '2 closed']);
});

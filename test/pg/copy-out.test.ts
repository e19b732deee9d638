/**
 * A copy read by slabs is the copy that pg-copy-streams reads message by message: same bytes, same number of rows, and the connection is `pg`'s again
 * afterwards, whatever happened.
 */
import type { Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import type pg from 'pg';
import { to as copyTo } from 'pg-copy-streams';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { CopyOut } from '../../lib/postgres/copy-out.ts';
import { FRAME_TEXT_BYTES_MAX } from '../../lib/stage/segment.ts';
import { startPostgres, type TestPostgres } from '../support/postgres.ts';

let server: TestPostgres;
let client: pg.Client;
beforeAll(async () => {
  server = await startPostgres();
});
afterAll(async () => {
  await server.stop();
});
beforeEach(async () => {
  client = await server.connect();
  client.on('error', () => undefined);
});
afterEach(async () => {
  await client.end().catch(() => undefined);
});

async function piecesOf(stream: AsyncIterable<Buffer>): Promise<Buffer[]> {
  const pieces: Buffer[] = [];
  for await (const piece of stream) pieces.push(piece);
  return pieces;
}

/** The connection answers, and nothing of the copy is left in it. */
async function expectGivenBack(): Promise<void> {
  expect((await client.query('SELECT 1 AS one')).rows).toEqual([{ one: 1 }]);
}

describe('the bytes are those that pg-copy-streams reads', () => {
  test.for([
    ['nothing', 'SELECT 1 WHERE false'],
    ['one row', "SELECT 1, 'a', NULL"],
    ['rows without columns', 'SELECT FROM generate_series(1, 1000)'],
    ['short rows', 'SELECT i FROM generate_series(1, 100000) i'],
    ['rows of every length around a read of the socket', "SELECT i, repeat('x', i) FROM generate_series(0, 3000) i"],
    ['rows that straddle slabs', 'SELECT i, repeat(md5(i::text), 40000) FROM generate_series(1, 12) i'],
    ['one row of 30 MB', "SELECT repeat('0123456789', 3000000)"],
    ['exactly one slab', `SELECT repeat('y', ${FRAME_TEXT_BYTES_MAX - 1})`],
    ['a slab and one byte', `SELECT repeat('y', ${FRAME_TEXT_BYTES_MAX})`],
  ])('%s', async ([, sql]) => {
    const copy = `COPY (${sql}) TO STDOUT`;
    const plain = client.query(copyTo(copy));
    const expected = Buffer.concat(await piecesOf(plain));
    const copied = client.query(new CopyOut(copy));
    const pieces = await piecesOf(copied);
    await expectGivenBack();
    expect(Buffer.concat(pieces).equals(expected)).toBe(true);
    expect(copied.rows).toBe(plain.rowCount);
    // Each but the last is a whole frame of the stage.
    expect(pieces.slice(0, -1).every(({ length }) => length === FRAME_TEXT_BYTES_MAX)).toBe(true);
  });

  test('with notices and changes of settings in between', async () => {
    await client.query(`CREATE FUNCTION pg_temp.noisy(i int) RETURNS int LANGUAGE plpgsql AS $$
      BEGIN RAISE NOTICE 'row %', i; PERFORM set_config('application_name', 'row ' || i, false); RETURN i; END $$`);
    const notices: string[] = [];
    client.on('notice', ({ message }) => notices.push(String(message)));
    const copied = client.query(new CopyOut('COPY (SELECT pg_temp.noisy(i) FROM generate_series(1, 300) i) TO STDOUT'));
    const text = Buffer.concat(await piecesOf(copied)).toString();
    expect(text).toBe(Array.from({ length: 300 }, (_, i) => `${i + 1}\n`).join(''));
    await expectGivenBack();
  });

  test('one copy after another, and statements that wait behind them', async () => {
    const copies = [1, 2, 3].map((n) => client.query(new CopyOut(`COPY (SELECT ${n}) TO STDOUT`)));
    const last = client.query('SELECT 4 AS n');
    for (const [i, copy] of copies.entries()) {
      expect(Buffer.concat(await piecesOf(copy)).toString()).toBe(`${i + 1}\n`);
    }
    expect((await last).rows).toEqual([{ n: 4 }]);
  });
});

describe('a copy that does not end well', () => {
  test.for([
    ['at its beginning', 'SELECT * FROM nowhere', '42P01'],
    ['in the middle', 'SELECT 1 / (50000 - i) FROM generate_series(1, 60000) i', '22012'],
  ])('fails with the error of the server %s', async ([, sql, code]) => {
    const copied = client.query(new CopyOut(`COPY (${sql}) TO STDOUT`));
    await expect(piecesOf(copied)).rejects.toMatchObject({ code });
    await expectGivenBack();
  });

  test('fails where the connection breaks', async () => {
    const copied = client.query(
      new CopyOut('COPY (SELECT i, pg_sleep(0.001) FROM generate_series(1, 100000) i) TO STDOUT'),
    );
    const failed = expect(piecesOf(copied)).rejects.toThrow();
    await sleep(200);
    client.connection.stream.destroy();
    await failed;
  });
});

test('who does not read holds the server up, and memory down', async () => {
  const copied = client.query(new CopyOut("COPY (SELECT repeat('x', 1000) FROM generate_series(1, 200000)) TO STDOUT"));
  const socket = client.connection.stream as Socket;
  const reader = copied[Symbol.asyncIterator]();
  await reader.next();
  await sleep(300);
  const before = socket.bytesRead;
  await sleep(300);
  expect(socket.bytesRead).toBe(before);
  // A slab or two, and what the socket holds.
  expect(before).toBeLessThan(4 * FRAME_TEXT_BYTES_MAX);
  let bytes = FRAME_TEXT_BYTES_MAX;
  for (let piece = await reader.next(); !piece.done; piece = await reader.next())
    bytes += (piece.value as Buffer).length;
  expect(bytes).toBe(200_000 * 1001);
  await expectGivenBack();
});

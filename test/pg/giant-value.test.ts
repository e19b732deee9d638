/** A value of 100 MB goes the whole way, by the first sync and by the log, and is not read again when another column of its row changes. */
import { expect, test } from 'vitest';
import { openLine } from '../support/line.ts';
import { startPostgres } from '../support/postgres.ts';

const BYTES = 100 * 1024 * 1024;
/** Of one md5 in hexadecimal. */
const DIGEST_BYTES = 32;
/** Of what takes half a minute on a machine that does nothing else. */
const TIMEOUT_MS = 240_000;

test('100 MB', { timeout: TIMEOUT_MS }, async () => {
  await using source = await startPostgres({ large: true });
  await using target = await startPostgres({ large: true });
  const [here, there] = [await source.connect(), await target.connect()];
  // Digits that compress badly, all of them different.
  const value = (seed: string): string =>
    `(SELECT string_agg(md5('${seed}' || i), '') FROM generate_series(1, ${BYTES / DIGEST_BYTES}) i)`;
  await here.query(`CREATE TABLE giant (id int PRIMARY KEY, n int, big text);
    INSERT INTO giant VALUES (1, 1, ${value('a')})`);
  await using line = await openLine({ source, target });
  const compare = async (): Promise<void> => {
    await line.settle();
    const sql = 'SELECT id, n, octet_length(big) AS bytes, md5(big) AS md5 FROM giant ORDER BY id';
    expect((await there.query(sql)).rows).toEqual((await here.query(sql)).rows);
  };
  await compare();
  await here.query(`INSERT INTO giant VALUES (2, 2, ${value('b')}); UPDATE giant SET n = n + 10`);
  await compare();
  expect((await there.query('SELECT sum(octet_length(big))::int8 AS bytes FROM giant')).rows).toEqual([
    { bytes: String(2 * BYTES) },
  ]);
});

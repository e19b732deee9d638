/** A giant value goes the whole way, by the first sync and by the log, and is not read again when another column of its row changes. SLUICE_BOUNDS=full: 100 MiB, else 20. */
import { expect, test } from 'vitest';
import { FULL } from '../support/bounds.ts';
import { openLine } from '../support/line.ts';
import { startPostgres } from '../support/postgres.ts';

const BYTES = (FULL ? 100 : 20) * 1024 * 1024;
/** Of one md5 in hexadecimal. */
const DIGEST_BYTES = 32;
/** On a machine that has other things to do. */
const TIMEOUT_MS = 600_000;

test(`a value of ${BYTES} bytes`, { timeout: TIMEOUT_MS }, async () => {
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

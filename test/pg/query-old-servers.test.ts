/**
 * Reading by query from servers before 15, whose publications have no row filters: masks, left out columns and row filters hold there as well, and so do replication
 * keys without an end, of which older servers have fewer.
 */
import { createHash } from 'node:crypto';
import { expect, test } from 'vitest';
import { MASK_SALT, openLine } from '../support/line.ts';
import { startPostgres } from '../support/postgres.ts';
import { MAJORS_HERE } from '../support/servers.ts';

const hashOf = (text: string): string => createHash('sha256').update(MASK_SALT).update(text).digest('hex');

const HIDING =
  "columns: { exclude: [secret] }, mask: { mail: hash, note: redact, phone: 'null' }, where: region = 'eu'";
const ENTRIES = [
  `{ table: public.full, replication_method: FULL_TABLE, ${HIDING} }`,
  `{ table: public.shown, replication_method: FULL_TABLE, key_properties: [id], ${HIDING} }`,
  `{ table: public.by_time, replication_method: INCREMENTAL, replication_key: k, ${HIDING} }`,
  `{ table: public.by_number, replication_method: INCREMENTAL, replication_key: k, ${HIDING} }`,
];
const TABLES = ['full', 'shown', 'by_time', 'by_number'];

test.each(MAJORS_HERE.filter((major) => major < 15))('PostgreSQL %i', async (version) => {
  await using source = await startPostgres({ version });
  await using target = await startPostgres();
  const [from, to] = [await source.connect(), await target.connect()];
  const columns = 'id int PRIMARY KEY, region text, mail text, note text, phone text, secret text';
  const values = (from_id: number, to_id: number, k: string): string =>
    `SELECT i, CASE WHEN i % 2 = 0 THEN 'eu' ELSE 'us' END, i || '@b.c', 'n' || i, 'tel:5', 's' || i, ${k} FROM generate_series(${from_id}, ${to_id}) i`;
  const time = "'2026-01-01Z'::timestamptz + i * interval '1 hour'";
  await from.query(
    `CREATE TABLE "full" (${columns}, k int); INSERT INTO "full" ${values(1, 20, 'i')};
     CREATE VIEW shown AS TABLE "full";
     CREATE TABLE by_time (${columns}, k timestamptz); INSERT INTO by_time ${values(1, 20, time)};
     CREATE TABLE by_number (${columns}, k numeric); INSERT INTO by_number ${values(1, 20, 'i / 7.0')};
     INSERT INTO by_time VALUES (100, 'eu', '100@b.c', 'n', '5', 's', 'infinity'), (102, 'eu', '102@b.c', 'n', '5', 's', '-infinity'), (101, 'us', NULL, NULL, NULL, NULL, 'infinity');
     INSERT INTO by_number VALUES (100, 'eu', '100@b.c', 'n', '5', 's', 'NaN'), (101, 'us', NULL, NULL, NULL, NULL, 'NaN')`,
  );
  await using line = await openLine({
    source,
    target,
    config: { source: 'itersize: 4', tables: `[${ENTRIES.join(', ')}]` },
  });
  const compare = async (): Promise<void> => {
    await line.settle();
    for (const table of TABLES) {
      // The filter is the source's, and the masks are made here.
      const { rows } = await from.query<Record<string, string>>(
        `SELECT id::text, region, mail, '[redacted]' AS note, NULL AS phone, k::text FROM "${table}" WHERE region = 'eu' ORDER BY "${table}".id`,
      );
      const wanted = rows.map((row) => ({ ...row, mail: hashOf(String(row.mail)) }));
      const found = await to.query(
        `SELECT id::text, region, mail, note, phone, k::text FROM "${table}" ORDER BY "${table}".id`,
      );
      expect(found.rows, table).toEqual(wanted);
    }
  };
  await compare();
  const { rows: shown } = await to.query(
    "SELECT FROM pg_attribute WHERE attname = 'secret' AND attrelid::regclass::text = ANY ($1)",
    [[...TABLES, '"full"']],
  );
  expect(shown).toEqual([]);
  await from.query(
    `INSERT INTO "full" ${values(21, 30, 'i')}; DELETE FROM "full" WHERE id < 5;
     INSERT INTO by_time ${values(21, 30, time)}; INSERT INTO by_number ${values(21, 30, 'i / 7.0')};
     UPDATE by_time SET mail = 'new@b.c' WHERE id = 100; UPDATE by_number SET mail = 'new@b.c' WHERE id = 100`,
  );
  await compare();
  expect(line.bookmark('public.by_time').replication?.value).toMatch(/^2026-01-02/u);
  expect(line.bookmark('public.by_number').replication?.value).toMatch(/^4\.28/u);
  // What the filter leaves out is not looked at: nothing of it is in the ledger.
  const ledger = JSON.stringify(
    [...line.durable.bookmarks.values(), ...line.durable.chunks.values()],
    (_, value: unknown) => (typeof value === 'bigint' ? String(value) : value),
  );
  // None of them is a number, which may stand in a time of day.
  for (const hidden of ['@b.c', 'tel:5', 's21']) expect(ledger).not.toContain(hidden);
  await Promise.all([from.end(), to.end()]);
});

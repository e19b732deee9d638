/** The servers that the other tests of versions stand on. */
import { expect, test } from 'vitest';
import { startPostgres } from '../support/postgres.ts';
import { MAJORS_HERE } from '../support/servers.ts';

test.each(MAJORS_HERE)('PostgreSQL %i runs', async (version) => {
  await using server = await startPostgres({ version });
  const client = await server.connect();
  const { rows } = await client.query<{ major: number; level: string }>(
    "SELECT current_setting('server_version_num')::int4 / 10000 AS major, current_setting('wal_level') AS level",
  );
  expect(rows).toEqual([{ major: version, level: 'logical' }]);
});

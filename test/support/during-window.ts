/** A window into whose middle something falls: it has looked at the catalog, and waits for a writer to a table that is new. */
import { setTimeout as sleep } from 'node:timers/promises';
import type pg from 'pg';
import type { Line } from './line.ts';
import type { TestPostgres } from './postgres.ts';

/** From when the new table is published until the window has looked for its writers. */
const LOOK_MS = 300;
/** From its beginning until it has read the catalog. */
const BEGIN_MS = 1_000;

/** `on` runs `sql`, in one transaction, when `line` has begun a window on its source, a database of `server`; resolves when its bells are answered as well. Makes a table `late`. */
export async function duringWindow(
  line: Line,
  { server, on }: { readonly server: TestPostgres; readonly on: pg.Client },
  sql: string,
): Promise<void> {
  const writer = await server.connect(line.pipeline.source.database);
  await on.query('CREATE TABLE late (id int PRIMARY KEY)');
  const { rows } = await on.query<{ path: string }>("SELECT current_setting('search_path') AS path");
  await writer.query(`SET search_path = ${rows[0]?.path}; BEGIN; INSERT INTO late VALUES (1)`);
  const window = line.window();
  const isPublished = async (): Promise<boolean> =>
    (await on.query("SELECT FROM pg_publication_tables WHERE tablename = 'late'")).rows.length > 0;
  // Without a publication there is nothing to see.
  if (line.pipeline.source.plugin === 'wal2json') await sleep(BEGIN_MS);
  else while (!(await isPublished())) await sleep(20);
  await sleep(LOOK_MS);
  await on.query(`BEGIN; ${sql}; COMMIT`);
  await writer.query('COMMIT');
  await writer.end();
  await window;
  await line.pump();
}

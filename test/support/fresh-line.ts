/**
 * A line (line.ts) between two databases of its own, so that many tests share two servers and none sees another's tables.
 */
import type pg from 'pg';
import { columnsOf, tableText } from './compare.ts';
import { type Line, type LineOptions, type LineServer, openLine } from './line.ts';
import type { TestPostgres } from './postgres.ts';

export interface FreshLine extends AsyncDisposable {
  readonly line: Line;
  readonly from: pg.Client;
  readonly to: pg.Client;
  /** Replicates until all is there. Throws the first halt, as `CODE: message`. */
  settle(): Promise<void>;
  /** The same, and compares every table of the schemas (none named: of public): the columns that the source has, as text. Throws where they differ. */
  equal(...schemas: string[]): Promise<void>;
}

let databases = 0;

/** Two new databases, with `sql` run on the source. `role`: reads the source in place of the superuser. */
export async function freshLine(
  servers: { readonly source: TestPostgres; readonly target: TestPostgres },
  sql: string,
  {
    role,
    old_wal2json = false,
    ...config
  }: NonNullable<LineOptions['config']> & {
    role?: Pick<LineServer, 'user' | 'password'>;
    old_wal2json?: boolean;
  } = {},
): Promise<FreshLine> {
  const database = `fresh_${++databases}`;
  const open = async (server: TestPostgres): Promise<pg.Client> => {
    await administer(server, `CREATE DATABASE ${database}`);
    return await server.connect(database);
  };
  const [from, to] = await Promise.all([open(servers.source), open(servers.target)]);
  await from.query(sql);
  const at = ({ host, port, user, password }: TestPostgres): LineServer => ({ host, port, user, password, database });
  const line = await openLine({
    source: { ...at(servers.source), ...role },
    target: at(servers.target),
    pipeline: database.replace('_', '-'),
    old_wal2json,
    config: {
      ...config,
      source: [`replication_slot: ${database}, publication_name: ${database}`, config.source ?? []].flat().join(', '),
    },
  });
  const settle = async (): Promise<void> => {
    await line.settle();
    for (const { halt } of line.durable.bookmarks.values()) if (halt) throw new Error(`${halt.code}: ${halt.message}`);
  };
  return {
    line,
    from,
    to,
    settle,
    equal: async (...schemas) => {
      await settle();
      try {
        for (const schema of schemas.length > 0 ? schemas : ['public']) await assertEqual(from, to, schema);
      } finally {
        // What comparing has pinned, the search path too.
        await Promise.all([from.query('RESET ALL'), to.query('RESET ALL')]);
      }
    },
    [Symbol.asyncDispose]: async () => {
      await line[Symbol.asyncDispose]();
      await Promise.all([from.end(), to.end()]);
      for (const server of [servers.source, servers.target]) {
        await administer(server, `DROP DATABASE ${database} WITH (FORCE)`);
      }
    },
  };
}

async function administer(server: TestPostgres, sql: string): Promise<void> {
  const admin = await server.connect();
  try {
    await admin.query(sql);
  } finally {
    await admin.end();
  }
}

async function assertEqual(from: pg.Client, to: pg.Client, schema: string): Promise<void> {
  const { rows } = await from.query<{ table: string }>(
    `SELECT c.relname AS table FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
      WHERE n.nspname = $1 AND c.relkind = 'r' AND c.relpersistence = 'p' ORDER BY 1`,
    [schema],
  );
  if (rows.length === 0) throw new Error(`no table in ${schema} to compare`);
  for (const { table } of rows) {
    const columns = await columnsOf(from, { schema, table });
    const [want, got] = [
      await tableText(from, { schema, table }, columns),
      await tableText(to, { schema, table }, columns),
    ];
    if (want.md5 === got.md5 && want.rows === got.rows) continue;
    throw new Error(`${schema}.${table} differs: ${want.rows} rows on the source, ${got.rows} on the target`);
  }
}

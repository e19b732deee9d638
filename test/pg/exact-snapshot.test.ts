/**
 * The snapshot of a copy, on every server that npm has: its position divides the commits exactly; what it waits for is bounded; and a table that is written
 * anew beside it is seen.
 */
import type pg from 'pg';
import { Client } from 'pg';
import { expect, test } from 'vitest';
import { assertNotRewritten, exactSnapshot, takeSnapshotSql } from '../../lib/epoch/exact-snapshot.ts';
import { postgresExtractor } from '../../lib/epoch/extractor.ts';
import type { SourceTable } from '../../lib/ports.ts';
import { clientConfig, connectClient } from '../../lib/postgres/connection.ts';
import { startPostgres, type TestPostgres } from '../support/postgres.ts';
import { MAJORS_HERE } from '../support/servers.ts';

const WAIT = { transaction_ms: 300, slot_ms: 20_000 };

const connecting = (server: TestPostgres, replication: boolean) => (): Promise<Client> => {
  const { host, port, user, password, database } = server;
  const connection = {
    host,
    port,
    user,
    password,
    database,
    application_name: 'sluice/test',
    connect_timeout_seconds: 10,
  };
  const endpoint = { side: 'source' as const, connection, replication };
  return connectClient(() => new Client(clientConfig(endpoint)), endpoint);
};

async function tableOf(server: TestPostgres, table: string): Promise<SourceTable> {
  const extractor = postgresExtractor({
    connect: connecting(server, false),
    connectReplication: connecting(server, true),
    publications: [],
  });
  const found = await extractor.table({ schema: 'public', table });
  if (!found) throw new Error(`no table ${table}`);
  return found;
}

/** Ids that a transaction sees which takes the snapshot over. */
async function idsBy(client: pg.Client, snapshot: { name: string }): Promise<number[]> {
  await client.query('BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY');
  await client.query(takeSnapshotSql(snapshot as Parameters<typeof takeSnapshotSql>[0]));
  const { rows } = await client.query<{ id: number }>('SELECT id FROM public.t ORDER BY id');
  await client.query('COMMIT');
  return rows.map(({ id }) => id);
}

test.each(MAJORS_HERE)(
  'PostgreSQL %i: the snapshot has what committed before the position, and nothing else',
  { timeout: 120_000 },
  async (version) => {
    await using server = await startPostgres({ version });
    const admin = await server.connect();
    await admin.query("CREATE TABLE t (id int); CREATE PUBLICATION p FOR TABLE t WITH (publish = 'insert')");
    await admin.query("SELECT pg_create_logical_replication_slot('pg', 'pgoutput')");
    const table = await tableOf(server, 't');
    const state = { open: true, id: 0 };
    const write = async (): Promise<void> => {
      const client = await server.connect();
      while (state.open) {
        await client.query('BEGIN');
        await client.query('INSERT INTO t VALUES ($1)', [++state.id]);
        await new Promise((resolve) => setTimeout(resolve, Math.random() * 8));
        await client.query('COMMIT');
      }
      await client.end();
    };
    const writers = Array.from({ length: 4 }, write);
    const taken: { lsn: bigint; ids: number[] }[] = [];
    try {
      for (let i = 0; i < 6; i++) {
        const client = await connecting(server, false)();
        const snapshot = await exactSnapshot(client, connecting(server, true), table);
        taken.push({ lsn: snapshot.lsn, ids: await idsBy(client, snapshot) });
        await snapshot.close();
        await client.end();
      }
    } finally {
      state.open = false;
      await Promise.all(writers);
    }
    const { rows } = await admin.query<{ data: Buffer }>(
      "SELECT data FROM pg_logical_slot_get_binary_changes('pg', NULL, NULL, 'proto_version', '1', 'publication_names', 'p')",
    );
    /** Id → where its commit record begins, from Begin and Insert messages of pgoutput. */
    const commits = new Map<number, bigint>();
    let commit_lsn = 0n;
    for (const { data } of rows) {
      if (data[0] === 'B'.charCodeAt(0)) commit_lsn = data.readBigUInt64BE(1);
      if (data[0] === 'I'.charCodeAt(0)) commits.set(Number(data.subarray(13).toString()), commit_lsn);
    }
    expect(commits.size).toBe(state.id);
    for (const { lsn, ids } of taken) {
      expect(ids).toEqual(
        [...commits]
          .filter(([, at]) => at < lsn)
          .map(([id]) => id)
          .toSorted((a, b) => a - b),
      );
    }
    // The snapshots were of different moments, with commits on both sides.
    expect(new Set(taken.map(({ ids }) => ids.length)).size).toBeGreaterThan(1);
    expect(
      (await admin.query("SELECT slot_name FROM pg_replication_slots WHERE slot_name LIKE 'sluice%'")).rows,
    ).toEqual([]);
  },
);

test('a transaction that stays open is waited for no longer than told, and named', async () => {
  await using server = await startPostgres();
  const admin = await server.connect();
  await admin.query('CREATE TABLE t (id int)');
  const table = await tableOf(server, 't');
  await admin.query('BEGIN; INSERT INTO t VALUES (1)');
  const client = await connecting(server, false)();
  await expect(exactSnapshot(client, connecting(server, true), table, WAIT)).rejects.toMatchObject({
    code: 'SLOT_BLOCKED',
    facts: { blockers: expect.stringMatching(/^process \d+$/) },
  });
  await admin.query('COMMIT');
  const left =
    'SELECT count(*)::int AS n FROM pg_replication_slots UNION ALL SELECT count(*)::int FROM pg_stat_replication';
  await expect.poll(async () => (await admin.query(left)).rows).toEqual([{ n: 0 }, { n: 0 }]);
  await client.end();
});

test.each(
  ['TRUNCATE t', 'ALTER TABLE t ALTER COLUMN id TYPE bigint'].flatMap((sql) =>
    [MAJORS_HERE[0] ?? 18, 18 as const].map((version) => [sql, version] as const),
  ),
)('%s beside it is seen, on PostgreSQL %i', async (sql, version) => {
  await using server = await startPostgres({ version });
  const admin = await server.connect();
  await admin.query('CREATE TABLE t (id int); INSERT INTO t VALUES (1)');
  const table = await tableOf(server, 't');
  const client = await connecting(server, false)();
  const snapshot = await exactSnapshot(client, connecting(server, true), table);
  const begin = async (): Promise<void> => {
    await client.query('BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY');
    await client.query('LOCK TABLE public.t IN ACCESS SHARE MODE');
    await client.query(takeSnapshotSql(snapshot));
  };
  await begin();
  await assertNotRewritten(client, table);
  await client.query('ROLLBACK');
  await admin.query(sql);
  await begin();
  await expect(assertNotRewritten(client, table)).rejects.toMatchObject({ code: 'SOURCE_TRANSIENT' });
  await snapshot.close();
  await client.end();
});

/**
 * A whole pipeline between two servers that take no connection without TLS and a client certificate, and what it leaves open when it waits: nothing.
 */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Client } from 'pg';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { makeAuthority } from '../support/certificates.ts';
import { eventually } from '../support/local-engine.ts';
import { startSluice } from '../support/sluice.ts';
import { startTlsServer, type TlsServer } from '../support/tls-server.ts';

const PASSPHRASE = 'a passphrase of the test';
/** Longer than a look at whether a message has come. */
const QUIET_MS = 500;

let source: TlsServer;
let target: TlsServer;
let directory: string;
const admins: Client[] = [];

beforeAll(async () => {
  const authority = await makeAuthority('ours');
  const server = await authority.issue('server', { names: ['db.internal'] });
  const client = await authority.issue('certified');
  [source, target] = await Promise.all([startTlsServer(authority, server), startTlsServer(authority, server)]);
  for (const { server: at } of [source, target]) {
    const admin = await at.connect();
    admins.push(admin);
    await admin.query('GRANT CREATE ON DATABASE postgres TO certified');
  }
  await admins[0]?.query(`
    SET ROLE certified; CREATE SCHEMA shop; CREATE TABLE shop.orders (id int PRIMARY KEY, note text);
    INSERT INTO shop.orders SELECT i, 'note ' || i FROM generate_series(1, 1000) AS i; RESET ROLE`);

  directory = await mkdtemp(join(tmpdir(), 'sluice-test-'));
  const files = {
    'ca.pem': authority.cert,
    'client.crt': client.cert,
    'client.key': client.encryptedKey(PASSPHRASE, 'pkcs8'),
  };
  for (const [name, text] of Object.entries(files)) await writeFile(join(directory, name), text);
  const side = ({ server: { host, port } }: TlsServer): string => `
  host: ${host}
  port: ${port}
  user: certified
  database: postgres
  ssl:
    mode: verify-full
    ca: ./ca.pem
    cert: ./client.crt
    key: ./client.key
    key_password: \${env:KEY_PASSWORD}
    server_name: db.internal
`;
  await writeFile(
    join(directory, 'pipeline.yaml'),
    `pipeline: safe\nsource:${side(source)}  break_at_end_lsn: true\ntables: [shop.*]\ntarget:${side(target)}  hard_delete: true\n`,
  );
});
afterAll(async () => {
  await Promise.all(admins.map((admin) => admin.end()));
  await Promise.all([source, target].map((server) => server?.[Symbol.asyncDispose]()));
  await rm(directory, { recursive: true, force: true, maxRetries: 10 });
});

function sluice(...args: string[]) {
  const at = ['-c', join(directory, 'pipeline.yaml'), '--state', join(directory, 'state')];
  return startSluice([...args, ...at], { KEY_PASSWORD: PASSPHRASE });
}

async function rows(side: 0 | 1): Promise<string> {
  const { rows: found } = await (admins[side] as Client).query<{ text: string }>(
    "SELECT count(*) || ' ' || md5(string_agg(id || note, ',' ORDER BY id)) AS text FROM shop.orders",
  );
  return found[0]?.text ?? '';
}

async function sessions(): Promise<string[]> {
  const found = await Promise.all(
    admins.map((admin) =>
      admin.query<{ name: string }>(
        "SELECT application_name AS name FROM pg_stat_activity WHERE usename = 'certified'",
      ),
    ),
  );
  return found.flatMap(({ rows: names }) => names.map(({ name }) => name));
}

test('source.ssl and target.ssl: doctor, copies, the log and verify go by client certificates alone', async () => {
  const doctor = await sluice('doctor').ended;
  expect(doctor.code, doctor.out + doctor.err).toBe(0);
  const copied = await sluice('run', '--until-caught-up').ended;
  expect(copied.code, copied.err).toBe(0);
  await admins[0]?.query("UPDATE shop.orders SET note = 'new' WHERE id <= 10; DELETE FROM shop.orders WHERE id > 990");
  const followed = await sluice('run', '--until-caught-up').ended;
  expect(followed.code, followed.err).toBe(0);
  expect(await rows(1)).toBe(await rows(0));
  const verified = await sluice('verify').ended;
  expect(verified.code, verified.out + verified.err).toBe(0);
});

test('every connection is closed: a run that waits for its next window has none', async () => {
  await admins[0]?.query("INSERT INTO shop.orders VALUES (5000, 'while it runs')");
  const run = sluice('run');
  try {
    await eventually('the new row', async () => (await rows(1)) === (await rows(0)));
    await eventually('no connection', async () => (await sessions()).length === 0);
    await sleep(QUIET_MS);
    expect(await sessions()).toEqual([]);
  } finally {
    run.kill('SIGINT');
    await run.ended;
  }
});

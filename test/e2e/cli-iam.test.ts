/**
 * A whole pipeline with IAM tokens on both sides: over TLS, with the slot peeked at, and no replication connection, which the servers here refuse as Amazon
 * RDS does. Tokens are signed with the credentials of the environment, and no network.
 */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Client } from 'pg';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { makeAuthority } from '../support/certificates.ts';
import { type Ended, startSluice } from '../support/sluice.ts';
import { startTlsServer, type TlsServer } from '../support/tls-server.ts';

const ENDPOINT = 'shop.c1a2.eu-central-1.rds.amazonaws.com';
const CREDENTIALS = { AWS_ACCESS_KEY_ID: 'AKIAEXAMPLE', AWS_SECRET_ACCESS_KEY: 'canary-of-the-key' };

let source: TlsServer;
let target: TlsServer;
let from: Client;
let to: Client;
let directory: string;

beforeAll(async () => {
  const authority = await makeAuthority('ours');
  const server = await authority.issue('server', { names: [ENDPOINT] });
  [source, target] = await Promise.all([startTlsServer(authority, server), startTlsServer(authority, server)]);
  [from, to] = await Promise.all([source.server.connect(), target.server.connect()]);
  for (const admin of [from, to]) await admin.query('GRANT CREATE ON DATABASE postgres TO tokens');
  await from.query(`
    SET ROLE tokens; CREATE SCHEMA shop; CREATE TABLE shop.orders (id int PRIMARY KEY, note text);
    INSERT INTO shop.orders SELECT i, 'note ' || i FROM generate_series(1, 1000) AS i; RESET ROLE`);
  directory = await mkdtemp(join(tmpdir(), 'sluice-test-'));
  await writeFile(join(directory, 'ca.pem'), authority.cert);
  const side = ({ server: { host, port } }: TlsServer): string => `
  host: ${host}
  port: ${port}
  user: tokens
  password: { iam: true }
  database: postgres
  ssl: { mode: verify-full, ca: ./ca.pem, server_name: ${ENDPOINT} }
`;
  await writeFile(
    join(directory, 'pipeline.yaml'),
    `pipeline: tokens\nsource:${side(source)}  break_at_end_lsn: true\ntables: [shop.*]\ntarget:${side(target)}  hard_delete: true\n`,
  );
});
afterAll(async () => {
  await Promise.all([from, to].map((client) => client?.end()));
  await Promise.all([source, target].map((server) => server?.[Symbol.asyncDispose]()));
  await rm(directory, { recursive: true, force: true, maxRetries: 10 });
});

async function sluice(...args: string[]): Promise<Ended> {
  const at = ['-c', join(directory, 'pipeline.yaml'), '--state', join(directory, 'state')];
  const ended = await startSluice([...args, ...at], CREDENTIALS).ended;
  expect(ended.out + ended.err).not.toContain(CREDENTIALS.AWS_SECRET_ACCESS_KEY);
  expect(ended.out + ended.err).not.toContain('X-Amz-');
  return ended;
}

async function rows(client: Client): Promise<string> {
  const { rows: found } = await client.query<{ text: string }>(
    "SELECT count(*) || ' ' || md5(string_agg(id || note, ',' ORDER BY id)) AS text FROM shop.orders",
  );
  return found[0]?.text ?? '';
}

test('password: { iam: true } on source and target: doctor, copies, the log and verify', async () => {
  const doctor = await sluice('doctor');
  expect(doctor.code, doctor.out + doctor.err).toBe(0);
  const copied = await sluice('run', '--until-caught-up');
  expect(copied.code, copied.out + copied.err).toBe(0);
  await from.query("UPDATE shop.orders SET note = 'new' WHERE id <= 10; DELETE FROM shop.orders WHERE id > 990");
  const followed = await sluice('run', '--until-caught-up');
  expect(followed.code, followed.out + followed.err).toBe(0);
  expect(await rows(to)).toBe(await rows(from));
  const verified = await sluice('verify');
  expect(verified.code, verified.out + verified.err).toBe(0);
});

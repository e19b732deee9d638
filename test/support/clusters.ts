/**
 * Clusters for test servers. In a run of vitest (run-directory.ts), initdb runs once for each kind of server, and every server gets a copy of what it
 * made, with a system identifier of its own, as if initdb had run for it. Else initdb runs for each.
 *
 * The superuser's password is one for the run, and its verifier has one iteration instead of 4,096: a test opens hundreds of connections, and what
 * SCRAM makes slow is guessing.
 */
import { execFile } from 'node:child_process';
import { createHash, createHmac, randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, open, readdir, readFile, rename, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { Client } from 'pg';
import * as z from 'zod';
import { tryLock } from '../../infra/local/lock.ts';
import { saveKnown } from '../../infra/local/postgres/cluster.ts';
import { type EmbeddedPostgresOptions, startEmbeddedPostgres } from '../../infra/local/postgres.ts';
import { runDirectory } from './run-directory.ts';

type Server = EmbeddedPostgresOptions['server'];

const MAKING_WAIT_MS = 120_000;
const POLL_MS = 25;
const Known = z.object({ password: z.string() });

/** A new directory for one server. `large`: what it will hold may not fit into memory. */
export async function serverDirectory(large = false): Promise<string> {
  return await mkdtemp(join(runDirectory(large) ?? tmpdir(), 'sluice-test-pg-'));
}

/** Puts a cluster into `directory`, which a server then finds there. Nothing outside of a run. */
export async function plantCluster(directory: string, server: Server): Promise<void> {
  const run = runDirectory();
  if (run === null) return;
  const template = await templateOf(run, server);
  // It keeps owners and modes, and takes a twentieth of what Node's own copying does.
  await promisify(execFile)('cp', ['-a', join(template, 'data'), join(directory, 'data')]);
  await identify(join(directory, 'data'));
  const { password } = Known.parse(JSON.parse(await readFile(join(template, 'server.json'), 'utf8')));
  await saveKnown(directory, { password, port: null, pid: null });
}

/** Whoever comes first makes it; the others wait. */
async function templateOf(run: string, server: Server): Promise<string> {
  const name = createHash('sha256')
    .update(JSON.stringify(server ?? null))
    .digest('hex');
  const template = join(run, `template-${name.slice(0, 16)}`);
  for (let waited_ms = 0; waited_ms < MAKING_WAIT_MS; waited_ms += POLL_MS) {
    if (existsSync(template)) return template;
    const lock = tryLock(`${template}.lock`);
    if (lock === null) {
      await sleep(POLL_MS);
      continue;
    }
    try {
      if (!existsSync(template)) await makeTemplate(template, server);
      return template;
    } finally {
      lock.release();
    }
  }
  throw new Error(`no cluster to copy was made in ${MAKING_WAIT_MS / 1000} s`);
}

async function makeTemplate(template: string, server: Server): Promise<void> {
  const making = `${template}.making`;
  await rm(making, { recursive: true, force: true });
  await mkdir(making);
  const made = await startEmbeddedPostgres({
    directory: making,
    settings: { fsync: 'off' },
    ...(server === undefined ? {} : { server }),
  });
  try {
    const { host, port, user, password, database } = made;
    const client = new Client({ host, port, user, password, database });
    await client.connect();
    await client.query(`ALTER ROLE ${user} PASSWORD '${verifierOf(password)}'`);
    await client.end();
  } finally {
    // With a checkpoint: a copy starts without recovery.
    await made.stop('fast');
  }
  await rename(making, template);
}

/** `SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey`, https://www.postgresql.org/docs/current/catalog-pg-authid.html. */
function verifierOf(password: string): string {
  const salt = randomBytes(16);
  const mac = (key: string | Buffer, text: string | Buffer): Buffer => createHmac('sha256', key).update(text).digest();
  // RFC 5802: Hi() of one iteration.
  const salted = mac(password, Buffer.concat([salt, Buffer.from([0, 0, 0, 1])]));
  const stored = createHash('sha256').update(mac(salted, 'Client Key')).digest('base64');
  return `SCRAM-SHA-256$1:${salt.toString('base64')}$${stored}:${mac(salted, 'Server Key').toString('base64')}`;
}

/** pg_control begins with the identifier, and has its CRC behind what it is of (src/include/catalog/pg_control.h). */
const CONTROL_BYTES_MAX = 512;
/** Where the first page of a WAL file repeats it (XLogLongPageHeaderData). */
const WAL_IDENTIFIER_AT = 24;

/** Gives the cluster an identifier as initdb does: from the clock, and what else differs. */
async function identify(data: string): Promise<void> {
  const identifier = Buffer.alloc(8);
  const seconds = BigInt(Math.floor(Date.now() / 1000));
  identifier.writeBigUInt64LE((seconds << 32n) | BigInt(randomBytes(4).readUInt32LE()));
  const control = await open(join(data, 'global/pg_control'), 'r+');
  try {
    const bytes = Buffer.alloc(CONTROL_BYTES_MAX);
    await control.read(bytes, 0, CONTROL_BYTES_MAX, 0);
    const crc_at = crcPlace(bytes);
    identifier.copy(bytes);
    bytes.writeUInt32LE(crc32c(bytes.subarray(0, crc_at)), crc_at);
    await control.write(bytes, 0, CONTROL_BYTES_MAX, 0);
  } finally {
    await control.close();
  }
  for (const name of await readdir(join(data, 'pg_wal'))) {
    if (!/^[0-9A-F]{24}$/.test(name)) continue;
    const file = await open(join(data, 'pg_wal', name), 'r+');
    try {
      await file.write(identifier, 0, identifier.length, WAL_IDENTIFIER_AT);
    } finally {
      await file.close();
    }
  }
}

/** The CRC's place differs by version: it is where the CRC of all before it stands. */
function crcPlace(bytes: Buffer): number {
  for (let at = 128; at + 4 <= bytes.length; at += 4) {
    if (bytes.readUInt32LE(at) === crc32c(bytes.subarray(0, at))) return at;
  }
  throw new Error('no CRC in pg_control');
}

/** Castagnoli's CRC-32, bit by bit: for some hundred bytes. */
function crc32c(bytes: Buffer): number {
  let crc = 0xffffffff;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0x82f63b78 : 0);
  }
  return (crc ^ 0xffffffff) >>> 0;
}

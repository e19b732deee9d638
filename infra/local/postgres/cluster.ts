/**
 * The directory of one embedded server: made by initdb once, and found again afterwards.
 *
 *     directory/data         the cluster (PGDATA); owned by the server's account
 *     directory/server.lock  held by the process that the server belongs to
 *     directory/server.json  password, port and that process's id, for the next start; written last, so that a cluster is there whole or not at all
 *     directory/server.log   of the present run; server.log.1 of the one before
 */
import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { chmod, chown, mkdtemp, open, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { text } from 'node:stream/consumers';
import * as z from 'zod';
import { SluiceError } from '../../../lib/errors.ts';
import { type Account, accountCan, serverAccount } from './account.ts';
import { type Binaries, findBinaries, packageDirectory } from './binaries.ts';
import { SERVER_ENVIRONMENT } from './supervise.ts';

export const SUPERUSER = 'postgres';

/** Processes that are just ending may still add files to what is removed. */
export const REMOVE_TRIES = 10;

const Known = z.object({ password: z.string().min(1), port: z.int().nullable(), pid: z.int().nullable() });
export type Known = z.infer<typeof Known>;

export interface Cluster {
  readonly directory: string;
  readonly data: string;
  /** The path by which the server's account reaches `data`. */
  readonly dataSeen: string;
  readonly account: Account;
  readonly binaries: Binaries;
  readonly known: Known;
}

/**
 * Finds the cluster in `directory`, or makes it (about a second); `sync`: it must survive the machine's death at once. `from`: the directory of an npm
 * package, or binaries that are installed on this machine; left out: the package that is a dependency.
 */
export async function openCluster(directory: string, sync: boolean, from?: string | Binaries): Promise<Cluster> {
  const account = await serverAccount();
  await chmod(directory, 0o711); // The server's account passes through; nobody but us lists it.
  const binaries =
    typeof from === 'object'
      ? from
      : await findBinaries(account, from ?? packageDirectory(), [tmpdir(), '/var/tmp', dirname(directory)]);
  const known = (await readKnown(directory)) ?? (await initialize(directory, account, binaries, sync));
  const data = join(directory, 'data');
  return { directory, data, dataSeen: await seenBy(account, data), account, binaries, known };
}

export async function saveKnown(directory: string, known: Known): Promise<void> {
  const file = join(directory, 'server.json');
  await writeFile(`${file}.new`, JSON.stringify(known), { mode: 0o600 });
  await rename(`${file}.new`, file);
}

/** The process that has, or had, the server of the directory. */
export async function ownerOf(directory: string): Promise<number | null> {
  return (await readKnown(directory))?.pid ?? null;
}

async function readKnown(directory: string): Promise<Known | null> {
  const json = await readFile(join(directory, 'server.json'), 'utf8').catch((thrown: NodeJS.ErrnoException) => {
    if (thrown.code === 'ENOENT') return null;
    throw thrown;
  });
  return json === null ? null : Known.parse(JSON.parse(json));
}

/**
 * A directory below one that the server's account cannot enter (root's home) can still be the server's working directory, because that is
 * entered before the account is changed; and Linux lets a process reach its own working directory without a path.
 */
async function seenBy(account: Account, data: string): Promise<string> {
  if (await accountCan(account, '-w', data)) return data;
  if (process.platform === 'linux') return '/proc/self/cwd';
  throw new SluiceError('LOCAL_POSTGRES_FAILED', {
    directory: dirname(data),
    action: 'start',
    reason: `user id ${account.uid} cannot reach it`,
  });
}

async function initialize(directory: string, account: Account, binaries: Binaries, sync: boolean): Promise<Known> {
  const data = join(directory, 'data');
  for (const name of await readdir(directory)) {
    if (name === 'data' || name.startsWith('data.'))
      await rm(join(directory, name), { recursive: true, force: true, maxRetries: REMOVE_TRIES });
  }
  // A name of its own: the initdb of a start that was killed may still be writing to the last one.
  const making = await mkdtemp(`${data}.`);
  await chown(making, account.uid, account.gid);

  const password = randomBytes(18).toString('base64url');
  const args = ['-U', SUPERUSER, '-A', 'scram-sha-256', '-E', 'UTF8', '--no-locale', ...(sync ? [] : ['--no-sync'])];
  await runInitdb(directory, making, args, password, account, binaries);
  await rename(making, data);
  const known = { password, port: null, pid: null };
  await saveKnown(directory, known);
  return known;
}

/** https://www.postgresql.org/docs/current/app-initdb.html */
async function runInitdb(
  directory: string,
  making: string,
  options: readonly string[],
  password: string,
  account: Account,
  binaries: Binaries,
): Promise<void> {
  const args = ['-D', await seenBy(account, making), '--pwfile=/dev/stdin', ...options];
  // The password goes in as an open file: a pipe of root's could not be opened anew by another account, nor could a path in root's home.
  const path = join(directory, 'password.new');
  await writeFile(path, password, { mode: 0o600 });
  await chown(path, account.uid, account.gid);
  const file = await open(path, 'r');
  try {
    const child = spawn(binaries.initdb, args, {
      cwd: making,
      env: SERVER_ENVIRONMENT,
      stdio: [file.fd, 'ignore', 'pipe'],
      ...account.spawn,
    });
    if (child.stderr === null) throw new TypeError('a child with stdio "pipe" has no stderr');
    const [errors, [code, signal]] = await Promise.all([text(child.stderr), once(child, 'exit')]);
    if (code !== 0) {
      throw new SluiceError('LOCAL_POSTGRES_FAILED', {
        directory,
        action: 'initialize',
        reason: `initdb ended with ${signal ?? code}: ${errors.trim()}`,
      });
    }
  } finally {
    await file.close();
    await rm(path, { force: true });
  }
}

/**
 * Under which account an embedded PostgreSQL runs. PostgreSQL refuses root
 * (https://www.postgresql.org/docs/current/postgres-user.html), so root hands its servers to `nobody`, who owns nothing else here; any other
 * user runs them as himself.
 */
import { execFile } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { promisify } from 'node:util';
import { SluiceError } from '../../../lib/errors.ts';

export interface Account {
  readonly uid: number;
  readonly gid: number;
  /** Set when processes must be started under another account than ours: the options of `spawn`. */
  readonly spawn: { readonly uid?: number; readonly gid?: number };
}

/** Accounts that own nothing, in order of preference; every Unix has one of them. */
const UNPRIVILEGED = ['nobody', 'daemon'];

/** The account for the server's processes and files. LOCAL_POSTGRES_MISSING where root has nobody to hand them to. */
export async function serverAccount(): Promise<Account> {
  const uid = process.getuid?.();
  const gid = process.getgid?.();
  if (uid === undefined || gid === undefined) {
    throw new SluiceError('LOCAL_POSTGRES_MISSING', { platform: process.platform, reason: 'it has no Unix accounts' });
  }
  if (uid !== 0) return { uid, gid, spawn: {} };
  const accounts = (await readFile('/etc/passwd', 'utf8')).split('\n').map((line) => line.split(':'));
  for (const name of UNPRIVILEGED) {
    const found = accounts.find((fields) => fields[0] === name);
    if (!found) continue;
    // The server must never get root's group either. 2^32 wraps: some systems write nobody as -2.
    const id = { uid: Number(found[2]) >>> 0, gid: Number(found[3]) >>> 0 };
    if (id.uid > 0 && id.gid > 0) return { ...id, spawn: id };
  }
  throw new SluiceError('LOCAL_POSTGRES_MISSING', {
    platform: process.platform,
    reason: `it does not run as root, and /etc/passwd names none of ${UNPRIVILEGED.join(', ')}`,
  });
}

/**
 * Whether the account passes a `test` of sh(1): `-x` a file that it can reach and execute, `-w` a directory that it can reach and write.
 * The kernel itself is asked: mode bits alone know nothing of ACLs and noexec mounts.
 */
export async function accountCan(account: Account, test: '-x' | '-w', path: string): Promise<boolean> {
  try {
    await promisify(execFile)('/bin/sh', ['-c', `test ${test} "$1"`, 'sh', path], { cwd: '/', ...account.spawn });
    return true;
  } catch {
    return false; // `test` says no by its exit code; whatever else is wrong shows when the path is used.
  }
}

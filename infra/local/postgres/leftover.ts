/**
 * A server that a killed process of ours left behind. Its supervisor is already shutting it down; whoever starts next waits for that, or hurries
 * it. It is not adopted: its settings, port and log may be others than those asked for, and a restart costs half a second.
 */
import { execFile } from 'node:child_process';
import { readFile, readlink, realpath, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';

/** The parts of postmaster.pid that are used here (src/include/utils/pidfile.h); null where the file is not there, or not complete yet. */
export interface PidFile {
  readonly pid: number;
  readonly status: string;
  readonly text: string;
}

export async function readPidFile(data_directory: string): Promise<PidFile | null> {
  const text = await readFile(join(data_directory, 'postmaster.pid'), 'utf8').catch((thrown: NodeJS.ErrnoException) => {
    if (thrown.code === 'ENOENT') return '';
    throw thrown;
  });
  const lines = text.split('\n');
  const pid = Number(lines[0]);
  return Number.isSafeInteger(pid) && pid > 0 ? { pid, status: (lines[7] ?? '').trim(), text } : null;
}

/** A checkpoint on a slow disk; then backends that an immediate shutdown has to kill, which the postmaster does after 5 s. */
const FAST_WAIT_MS = 15_000;
const IMMEDIATE_WAIT_MS = 15_000;
const POLL_MS = 50;

/**
 * Sees to it that no server runs on `data_directory`. Returns the process id of one that would not end, or null. A process that has merely
 * inherited the number (after a reboot, say) is not touched; the file that names it is removed, because PostgreSQL would refuse to start.
 */
export async function endLeftover(data_directory: string): Promise<number | null> {
  const file = await readPidFile(data_directory);
  if (file === null) return null;
  if (!(await isServerOf(file.pid, data_directory))) {
    await rm(join(data_directory, 'postmaster.pid'), { force: true });
    return null;
  }
  for (const [signal, wait_ms] of [
    ['SIGINT', FAST_WAIT_MS],
    ['SIGQUIT', IMMEDIATE_WAIT_MS],
  ] as const) {
    signalProcess(file.pid, signal);
    for (let waited_ms = 0; waited_ms < wait_ms; waited_ms += POLL_MS) {
      if (!(await isServerOf(file.pid, data_directory))) return null;
      await sleep(POLL_MS);
    }
  }
  return file.pid;
}

function signalProcess(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch (thrown) {
    if ((thrown as NodeJS.ErrnoException).code !== 'ESRCH') throw thrown;
  }
}

/** A postmaster's working directory is its data directory; where there is no /proc, its command line names it (`-D`). */
async function isServerOf(pid: number, data_directory: string): Promise<boolean> {
  const directory = await realpath(data_directory);
  if (process.platform === 'linux') {
    const cwd = await readlink(`/proc/${pid}/cwd`).catch(() => null); // Gone, a zombie, or another user's: not ours in any case.
    return cwd === directory;
  }
  const shown = await promisify(execFile)('ps', ['-o', 'command=', '-p', String(pid)]).catch(() => ({ stdout: '' }));
  return (
    shown.stdout.includes('postgres') && (shown.stdout.includes(directory) || shown.stdout.includes(data_directory))
  );
}

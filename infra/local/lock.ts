/**
 * A lock on a directory, held by one process: SQLite's on a file of its own, which is the kernel's. It ends with the process however that dies, so
 * there is never a stale one to clear away, and no moment in which two processes can clear it away at once (as there is with a socket or a file
 * that names a process).
 */
import { DatabaseSync } from 'node:sqlite';
import { setTimeout as sleep } from 'node:timers/promises';

const SQLITE_BUSY = 5;
/** Who only looks at a lock takes it for a moment, and a process that is killed needs one to die: who wants it tries for longer than that. */
const TAKE_TRIES = 10;
const TAKE_WAIT_MS = 50;

export interface Lock {
  release(): void;
}

/**
 * Null: it is held, by this process or another. https://www.sqlite.org/lang_transaction.html: EXCLUSIVE takes the file's lock at once, and keeps it
 * until the connection ends.
 */
export function tryLock(file: string): Lock | null {
  const database = new DatabaseSync(file, { timeout: 0 });
  try {
    database.exec('PRAGMA journal_mode = MEMORY; BEGIN EXCLUSIVE');
    return { release: () => database.close() };
  } catch (thrown) {
    database.close();
    if ((thrown as { errcode?: number }).errcode === SQLITE_BUSY) return null;
    throw thrown;
  }
}

/** Null: it is held, and stays so. */
export async function takeLock(file: string): Promise<Lock | null> {
  for (let tries = 1; ; tries++) {
    const lock = tryLock(file);
    if (lock !== null || tries === TAKE_TRIES) return lock;
    await sleep(TAKE_WAIT_MS);
  }
}

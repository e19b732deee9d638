/**
 * The state directory of the local engine, and its lock: one engine at a time.
 *
 *     engine.lock   held by the running engine
 *     engine.json   who that is, and where its services listen: `sluice status` in another process asks them
 *     s3/ dynamodb/ stage and ledger
 *
 * The lock is SQLite's on a file of its own, which is the kernel's: it ends with the process however that dies, so there is never a stale one to
 * clear away, and no moment in which two can clear it away at once.
 */
import { mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { setTimeout as sleep } from 'node:timers/promises';
import * as z from 'zod';
import { SluiceError } from '../../lib/errors.ts';

const EngineFile = z.object({
  pid: z.int(),
  started_at_ms: z.int(),
  pipeline: z.string(),
  endpoints: z.object({ s3: z.string(), sqs: z.string(), dynamodb: z.string() }),
});
/** What other processes may know of a running engine. */
export type EngineFile = z.infer<typeof EngineFile>;

export interface StateLock {
  readonly directory: string;
  /** Tells other processes where the engine is. */
  publish(engine: EngineFile): Promise<void>;
  release(): Promise<void>;
}

/** A look at the lock takes it for a moment: who wants to keep it tries for longer than that. */
const TAKE_TRIES = 10;
const TAKE_WAIT_MS = 50;
const SQLITE_BUSY = 5;

/** Makes the directory when it is missing, and takes its lock. STATE_IN_USE where another engine has it. */
export async function takeState(directory: string): Promise<StateLock> {
  await mkdir(directory, { recursive: true, mode: 0o755 });
  await writeFile(join(directory, '.gitignore'), '*\n');
  for (let tries = 1; ; tries++) {
    const lock = tryLock(directory);
    if (lock !== null) {
      return {
        directory,
        publish: (engine) => writeWhole(join(directory, 'engine.json'), JSON.stringify(engine)),
        release: async () => {
          await rm(join(directory, 'engine.json'), { force: true });
          lock.close();
        },
      };
    }
    if (tries === TAKE_TRIES) {
      const holder = await readEngineFile(directory);
      throw new SluiceError('STATE_IN_USE', { pid: holder?.pid ?? '(just starting)', directory });
    }
    await sleep(TAKE_WAIT_MS);
  }
}

/** The engine that runs on the directory; null: none, or one that is not ready yet. */
export async function findEngine(directory: string): Promise<EngineFile | null> {
  const engine = await readEngineFile(directory);
  if (engine === null) return null;
  const lock = tryLock(directory);
  lock?.close();
  return lock === null ? engine : null;
}

/** Null: held by another. https://www.sqlite.org/lang_transaction.html: EXCLUSIVE takes the file's lock at once and until the connection ends. */
function tryLock(directory: string): DatabaseSync | null {
  const database = new DatabaseSync(join(directory, 'engine.lock'), { timeout: 0 });
  try {
    database.exec('PRAGMA journal_mode = MEMORY; BEGIN EXCLUSIVE');
    return database;
  } catch (thrown) {
    database.close();
    if ((thrown as { errcode?: number }).errcode === SQLITE_BUSY) return null;
    throw thrown;
  }
}

async function readEngineFile(directory: string): Promise<EngineFile | null> {
  const json = await readFile(join(directory, 'engine.json'), 'utf8').catch((thrown: NodeJS.ErrnoException) => {
    if (thrown.code === 'ENOENT') return null;
    throw thrown;
  });
  return json === null ? null : EngineFile.parse(JSON.parse(json));
}

async function writeWhole(path: string, content: string): Promise<void> {
  await writeFile(`${path}.new`, content, { mode: 0o600 });
  await rename(`${path}.new`, path);
}

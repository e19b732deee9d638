/**
 * The state directory of the local engine: one engine at a time.
 *
 *     engine.lock         held by the running engine
 *     engine.json         who that is, and where its services listen: `sluice status` in another process asks them
 *     s3/ dynamodb/       stage and ledger
 *     postgres/           embedded servers, for pipelines that name none
 *     <pipeline>.yaml     such a pipeline's file, with their addresses
 */
import { chmod, mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import * as z from 'zod';
import { SluiceError } from '../../lib/errors.ts';
import { takeLock, tryLock } from './lock.ts';

/** Mode of a directory with rows or secrets in it. */
const PRIVATE_DIRECTORY = 0o700;

/** Makes it, with what is above it, for nobody else; one that an earlier version has made for all is closed. */
export async function privateDirectory(directory: string): Promise<void> {
  await mkdir(directory, { recursive: true, mode: PRIVATE_DIRECTORY });
  await chmod(directory, PRIVATE_DIRECTORY);
}

const Address = z.object({
  host: z.string(),
  port: z.int(),
  user: z.string(),
  password: z.string(),
  database: z.string(),
});
/** Where an embedded server is, and how to get in. */
export type DatabaseAddress = z.infer<typeof Address>;

const EngineFile = z.object({
  pid: z.int(),
  started_at_ms: z.int(),
  pipeline: z.string(),
  endpoints: z.object({ s3: z.string(), sqs: z.string(), dynamodb: z.string() }),
  databases: z.object({ source: Address.nullable(), target: Address.nullable() }),
});
/** What other processes of the same user may know of a running engine. */
export type EngineFile = z.infer<typeof EngineFile>;

/**
 * Rows lie here: for nobody else. Root's embedded servers run under another account, which must pass through where it cannot be given a working directory
 * by the kernel (postgres/cluster.ts).
 */
const STATE_MODE = process.platform !== 'linux' && process.getuid?.() === 0 ? 0o711 : PRIVATE_DIRECTORY;

export interface State {
  readonly directory: string;
  /** Tells other processes where the engine is. */
  publish(engine: EngineFile): Promise<void>;
  release(): Promise<void>;
}

/** Makes the directory when it is missing, and takes its lock. STATE_IN_USE where another engine has it. */
export async function takeState(directory: string): Promise<State> {
  await mkdir(directory, { recursive: true, mode: STATE_MODE });
  await writeFile(join(directory, '.gitignore'), '*\n');
  const lock = await takeLock(join(directory, 'engine.lock'));
  if (lock === null) {
    const holder = await readEngineFile(directory);
    throw new SluiceError('STATE_IN_USE', { pid: holder?.pid ?? '(just starting)', directory });
  }
  return {
    directory,
    publish: (engine) => writeWhole(join(directory, 'engine.json'), JSON.stringify(engine)),
    release: async () => {
      await rm(join(directory, 'engine.json'), { force: true });
      lock.release();
    },
  };
}

/** The engine that runs on the directory; null: none, or one that is not ready yet. */
export async function findEngine(directory: string): Promise<EngineFile | null> {
  const engine = await readEngineFile(directory);
  if (engine === null) return null;
  const lock = tryLock(join(directory, 'engine.lock'));
  lock?.release();
  return lock === null ? engine : null;
}

async function readEngineFile(directory: string): Promise<EngineFile | null> {
  const json = await readFile(join(directory, 'engine.json'), 'utf8').catch((thrown: NodeJS.ErrnoException) => {
    if (thrown.code === 'ENOENT') return null;
    throw thrown;
  });
  return json === null ? null : EngineFile.parse(JSON.parse(json));
}

/** Whole or not at all, and for nobody else: it may hold a password. */
export async function writeWhole(path: string, content: string): Promise<void> {
  await writeFile(`${path}.new`, content, { mode: 0o600 });
  await rename(`${path}.new`, path);
}

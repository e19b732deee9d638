/**
 * The command as a process of its own, as a person runs it: for tests that kill it, measure it, or read what it says.
 */
import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { TestPostgres } from './postgres.ts';

/** The launcher, for whoever starts it in another way. */
export const COMMAND = fileURLToPath(new URL('../../cli/sluice.js', import.meta.url));
const RSS_POLL_MS = 50;

export interface Ended {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly out: string;
  readonly err: string;
  /** Greatest resident size of the process, bytes. */
  readonly rss_bytes_max: number;
}

export interface Running {
  readonly pid: number;
  readonly ended: Promise<Ended>;
  kill(signal: NodeJS.Signals): void;
  /** What it has said so far. */
  said(): string;
}

/** Starts `sluice …args`; `command` is another copy's launcher. */
export function startSluice(args: readonly string[], env: Record<string, string> = {}, command = COMMAND): Running {
  const child = spawn(process.execPath, [command, ...args], {
    env: { ...process.env, ...env, NO_COLOR: '1' },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let out = '';
  let err = '';
  child.stdout.on('data', (chunk: Buffer) => {
    out += chunk.toString();
  });
  child.stderr.on('data', (chunk: Buffer) => {
    err += chunk.toString();
  });
  let rss_bytes_max = 0;
  const poll = setInterval(() => {
    rss_bytes_max = Math.max(rss_bytes_max, rssPeak(child.pid));
  }, RSS_POLL_MS);
  const ended = new Promise<Ended>((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (code, signal) => {
      clearInterval(poll);
      resolve({ code, signal, out, err, rss_bytes_max });
    });
  });
  return { pid: child.pid ?? -1, ended, kill: (signal) => child.kill(signal), said: () => out + err };
}

/** The kernel's own high-water mark; 0 when the process is gone. */
function rssPeak(pid: number | undefined): number {
  try {
    const [, kilobytes] = /^VmHWM:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8')) ?? [];
    return Number(kilobytes ?? 0) * 1024;
  } catch {
    return 0; // It has ended since.
  }
}

export interface Workplace {
  readonly config: string;
  readonly state: string;
  /** The passwords that the file names. */
  readonly env: Readonly<Record<string, string>>;
  /** `run`, with the file and the state of this place. */
  run(...args: string[]): Running;
  command(name: string, ...args: string[]): Running;
  [Symbol.asyncDispose](): Promise<void>;
}

/** A directory with a pipeline file and a state, for two servers. `more` is YAML that goes into the sections, and the launcher of another copy of the command. */
export async function workplace(
  source: TestPostgres,
  target: TestPostgres,
  more: { tables?: string; source?: string; target?: string; pipeline?: string; launcher?: string } = {},
): Promise<Workplace> {
  const directory = await mkdtemp(join(tmpdir(), 'sluice-test-'));
  const config = join(directory, 'pipeline.yaml');
  const state = join(directory, 'state');
  const side = (server: TestPostgres, password: string, options = ''): string => `
  host: ${server.host}
  port: ${server.port}
  user: ${server.user}
  password: \${env:${password}}
  database: ${server.database}
${options}`;
  await writeFile(
    config,
    `pipeline: ${more.pipeline ?? 'test'}
source:${side(source, 'SOURCE_PASSWORD', more.source)}
tables: ${more.tables ?? '[public.*]'}
target:${side(target, 'TARGET_PASSWORD', more.target ?? '  hard_delete: true')}
`,
  );
  const env = { SOURCE_PASSWORD: source.password, TARGET_PASSWORD: target.password };
  const command = (name: string, ...args: string[]): Running =>
    startSluice([name, '-c', config, '--state', state, ...args], env, more.launcher);
  return {
    config,
    state,
    env,
    command,
    run: (...args) => command('run', ...args),
    [Symbol.asyncDispose]: () => rm(directory, { recursive: true, force: true, maxRetries: 10 }),
  };
}

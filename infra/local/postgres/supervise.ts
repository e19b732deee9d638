/**
 * One postmaster, and a shell beside it that ends it when this process dies, however it dies: the shell holds the reading end of a pipe whose
 * writing end is ours alone. It is in a process group of its own, so that Ctrl-C in a terminal reaches us and not the server: the engine ends
 * its window first. The shell is the postmaster's parent, so the process id that it signals can belong to nobody else.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import type { Account } from './account.ts';

/** https://www.postgresql.org/docs/current/server-shutdown.html: SIGINT is the fast shutdown, SIGQUIT the immediate one. */
export type StopMode = 'fast' | 'immediate';

/** Reads commands from descriptor 3, our pipe; its end is our death. `wait` returns only when the postmaster has ended. */
const SUPERVISOR = `
exec 3<&0 </dev/null
"$@" 3<&- &
server=$!
( while read -r mode <&3; do [ "$mode" = immediate ] && kill -QUIT $server || kill -INT $server; done; kill -INT $server ) 2>/dev/null &
reader=$!
exec 3<&-
wait $server
status=$?
kill $reader 2>/dev/null
exit $status`;

export interface Supervised {
  /** Resolves when the postmaster has ended, with how. */
  readonly ended: Promise<string>;
  /** Asks for a shutdown; watch `ended`. */
  ask(mode: StopMode): void;
  /** Whether the running server keeps this process from ending by itself. */
  hold(yes: boolean): void;
}

/** What a server inherits: nothing of the caller's, whose PG* variables would change what it does. */
export const SERVER_ENVIRONMENT = { PATH: '/usr/local/bin:/usr/bin:/bin', LC_ALL: 'C', TZ: 'UTC' };

/** Starts `command` in `cwd`; what it writes goes to the file descriptor `log`. */
export function supervise(command: readonly string[], cwd: string, account: Account, log: number): Supervised {
  const child = spawn('/bin/sh', ['-c', SUPERVISOR, 'sluice-postgres', ...command], {
    cwd,
    detached: true,
    env: SERVER_ENVIRONMENT,
    stdio: ['pipe', log, log],
    ...account.spawn,
  });
  const commands = child.stdin;
  if (commands === null) throw new TypeError('a child with stdio "pipe" has no stdin');
  commands.on('error', () => undefined); // It has ended meanwhile: `ended` says so.
  return {
    ended: endOf(child),
    ask: (mode) => commands.write(`${mode}\n`),
    hold: (yes) => (yes ? child.ref() : child.unref()),
  };
}

async function endOf(child: ChildProcess): Promise<string> {
  return await new Promise((resolve) => {
    child.once('error', (error) => resolve(error.message));
    child.once('exit', (code, signal) => {
      child.stdin?.destroy();
      resolve(signal === null ? `exit code ${code}` : `signal ${signal}`);
    });
  });
}

#!/usr/bin/env node
/**
 * The command `sluice`, as npm finds it: runs sluice.ts on Node 24, with settings that a process can only be given at its start. On an older Node it takes
 * the one that npm has installed beside it (the optional dependency node-<platform>-<arch>), and passes terminal, signals and exit code
 * through. Plain JavaScript: it must run anywhere.
 */
import { spawn } from 'node:child_process';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const NODE_MAJOR_MIN = 24;

/**
 * glibc keeps what is freed, for each thread apart, and a large row passes through several: with these it gives it back. And a module that has been
 * compiled once is not compiled again by each thread. Together they halve what the process takes. What the caller has set stands.
 */
const SETTINGS = {
  MALLOC_ARENA_MAX: '2',
  MALLOC_TRIM_THRESHOLD_: '131072',
  MALLOC_MMAP_THRESHOLD_: '65536',
  NODE_COMPILE_CACHE: fileURLToPath(new URL('../node_modules/.cache/sluice/compiled', import.meta.url)),
};

/** What is young is garbage soon, in each of several threads: the default lets 16 MiB of it gather twice over. */
const FLAGS = ['--max-semi-space-size=4'];
const script = fileURLToPath(new URL('./sluice.ts', import.meta.url));
const environment = { ...SETTINGS, ...process.env };

if (Number(process.versions.node.split('.')[0]) < NODE_MAJOR_MIN) {
  const node = installedNode();
  if (node === null) {
    process.stderr.write(
      `Error: Sluice needs Node.js ${NODE_MAJOR_MIN}, this is ${process.version}, and node-${process.platform}-${process.arch} is not installed.\n` +
        `  Remedy: Run \`npm ci\` with optional dependencies, or run sluice with Node.js ${NODE_MAJOR_MIN}.\n`,
    );
    process.exit(1);
  }
  runOn(node);
} else if (process.platform === 'linux' && Object.keys(SETTINGS).some((name) => process.env[name] === undefined)) {
  // In place: the same process, with the same terminal, signals and exit code.
  process.execve(
    process.execPath,
    [process.execPath, ...FLAGS, ...process.execArgv, script, ...process.argv.slice(2)],
    environment,
  );
} else {
  await import('./sluice.ts');
}

function installedNode() {
  try {
    const manifest = createRequire(import.meta.url).resolve(`node-${process.platform}-${process.arch}/package.json`);
    return join(dirname(manifest), 'bin', 'node');
  } catch {
    return null;
  }
}

function runOn(node) {
  const child = spawn(node, [...FLAGS, script, ...process.argv.slice(2)], { stdio: 'inherit', env: environment });
  // Ctrl-C in a terminal reaches both processes; what is sent to this one alone must reach the other. It takes two in a moment for one.
  const signals = ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT'];
  for (const signal of signals) process.on(signal, () => child.kill(signal));
  child.on('error', (error) => {
    process.stderr.write(`Error: ${node} cannot be started: ${error.message}\n`);
    process.exit(1);
  });
  child.on('exit', (code, signal) => {
    if (signal === null) process.exit(code ?? 1);
    for (const name of signals) process.removeAllListeners(name);
    process.kill(process.pid, signal);
  });
}

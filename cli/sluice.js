#!/usr/bin/env node
/**
 * The command `sluice`, as npm finds it: runs sluice.ts on Node 24. On an older Node it takes the one that npm has installed beside it
 * (the optional dependency node-<platform>-<arch>), and passes terminal, signals and exit code through. Plain JavaScript: it must run anywhere.
 */
import { spawn } from 'node:child_process';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const NODE_MAJOR_MIN = 24;

if (Number(process.versions.node.split('.')[0]) >= NODE_MAJOR_MIN) {
  await import('./sluice.ts');
} else {
  const node = installedNode();
  if (node === null) {
    process.stderr.write(
      `Error: Sluice needs Node.js ${NODE_MAJOR_MIN}, this is ${process.version}, and node-${process.platform}-${process.arch} is not installed.\n` +
        `  Remedy: Run \`npm ci\` with optional dependencies, or run sluice with Node.js ${NODE_MAJOR_MIN}.\n`,
    );
    process.exit(1);
  }
  runOn(node);
}

function installedNode() {
  try {
    const manifest = createRequire(import.meta.url).resolve(
      `node-${process.platform}-${process.arch}/package.json`,
    );
    return join(dirname(manifest), 'bin', 'node');
  } catch {
    return null;
  }
}

function runOn(node) {
  const script = fileURLToPath(new URL('./sluice.ts', import.meta.url));
  const child = spawn(node, [script, ...process.argv.slice(2)], { stdio: 'inherit' });
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

#!/usr/bin/env node
/**
 * The command: reads the command line, runs one command, tells what went wrong, and sets the exit code (design §6).
 */
import { readFileSync } from 'node:fs';
import { Command } from 'commander';
import { Client } from 'pg';
import { clientConfig, connectClient } from '../lib/postgres/connection.ts';
import { registerBackfill } from './backfill.ts';
import { registerDemo } from './demo.ts';
import { registerDoctor } from './doctor.ts';
import { failureOf } from './failure.ts';
import { registerInit } from './init.ts';
import type { CliIo } from './io.ts';
import { registerRejects } from './rejects.ts';
import { registerResume } from './resume.ts';
import { registerRun } from './run.ts';
import { registerStatus } from './status.ts';
import { registerVerify } from './verify.ts';
import { terminalOf } from './view/terminal.ts';
import { harmless } from './view/text.ts';

const LINGER_MS_MAX = 2_000;

const io: CliIo = {
  out: (line) => process.stdout.write(`${harmless(line)}\n`),
  err: (line) => process.stderr.write(`${harmless(line)}\n`),
  env: process.env,
  connect: (endpoint) => connectClient(() => new Client(clientConfig(endpoint)), endpoint),
};
const terminal = terminalOf(process.stderr, process.env);
const page = terminalOf(process.stdout, process.env);

const { version } = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8')) as {
  version: string;
};

// A URL may hold a password, and the command line of a process is for everybody to see.
if (process.argv.some((argument) => URL.canParse(argument) && new URL(argument).password !== '')) {
  process.title = 'sluice';
}

const program = new Command('sluice')
  .description('Keeps tables of one PostgreSQL up to date in another, without a server that runs all day.')
  .version(version, '-V, --version', 'print the version')
  .helpOption('-h, --help', 'print help')
  .helpCommand('help [command]', 'print help')
  .addHelpText('after', '\nExit codes: 0 done, 1 findings or failure, 2 wrong usage or pipeline file.')
  .showHelpAfterError('(sluice --help, or sluice COMMAND --help)')
  .exitOverride();

registerDemo(program, io, { terminal, page });
registerInit(program, io);
registerDoctor(program, io, page);
registerRun(program, io, terminal);
registerStatus(program, io, page);
registerResume(program, io);
registerBackfill(program, io);
registerRejects(program, io, page);
registerVerify(program, io, { terminal, page });

// Whoever reads our output may stop reading (`| head`): then there is nobody left to tell anything.
for (const output of [process.stdout, process.stderr]) {
  output.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code === 'EPIPE') process.exit();
    throw error;
  });
}

try {
  await program.parseAsync();
} catch (thrown) {
  const { exit_code, errors, lines } = failureOf(thrown, Boolean(io.env.SLUICE_DEBUG));
  if (errors.length > 0 && process.argv.includes('--json')) io.out(JSON.stringify({ event: 'failed', errors }));
  for (const line of lines) io.err(line);
  process.exitCode = exit_code;
}
// All is closed by now. Should something still hold the process, it has no more to say.
setTimeout(() => process.exit(), LINGER_MS_MAX).unref();

/**
 * `sluice status`: streams, positions, lag, copies, halts, last windows. Works beside a run, and without one.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Command } from 'commander';
import { type PipelineStatus, status } from '../lib/operate.ts';
import type { CliIo } from './io.ts';
import { CONFIG_OPTION, STATE_OPTION } from './options.ts';
import { readPipelineFile } from './pipeline-file.ts';
import { beside, hasState, type Place } from './place/beside.ts';
import { onInterrupt } from './run/interrupt.ts';
import { statusPage, watchTitle } from './view/status.ts';
import { Block, type Terminal } from './view/terminal.ts';

const WATCH_SECONDS = 2;

interface StatusOptions {
  readonly config: string;
  readonly state: string;
  readonly json?: boolean;
  readonly watch?: boolean;
}

export function registerStatus(program: Command, io: CliIo, terminal: Terminal): void {
  program
    .command('status')
    .description('streams, positions, lag in bytes and seconds, halts, last windows')
    .addOption(CONFIG_OPTION())
    .addOption(STATE_OPTION())
    .option('--watch', `look again every ${WATCH_SECONDS} seconds, until Ctrl-C`)
    .option('--json', 'as JSON; with --watch a line each time')
    .addHelpText(
      'after',
      '\n"behind" is what is recorded for a table and not applied: bytes of the log, and the age of the oldest change. What no window has read yet is not in it.',
    )
    .action((options: StatusOptions) => statusCommand(options, io, terminal));
}

/** Throws what is wrong with the file, and USAGE where there is no state. */
export async function statusCommand(options: StatusOptions, io: CliIo, terminal: Terminal): Promise<void> {
  const file = await readPipelineFile(options.config);
  const place: Place = { file, path: options.config, state: options.state, environment: io.env };
  if (options.watch) {
    await watch(place, options, io, terminal);
    return;
  }
  const seen = await look(place);
  if (options.json) io.out(JSON.stringify(seen));
  else for (const line of pageOf(seen, terminal)) io.out(line);
}

interface Seen extends PipelineStatus {
  readonly running_pid: number | null;
}

async function look(place: Place): Promise<Seen> {
  const { pipeline } = place.file.pipeline;
  if (!(await hasState(place))) {
    return {
      pipeline,
      at: new Date().toISOString(),
      running_pid: null,
      head: null,
      unfinished: null,
      streams: [],
      reports: [],
    };
  }
  return await beside(place, async ({ ports, running_pid }) => ({ running_pid, ...(await status(ports, pipeline)) }));
}

function pageOf({ running_pid, ...seen }: Seen, { columns, paint }: Terminal): string[] {
  return statusPage({ status: seen, now_ms: Date.now(), running_pid, width: columns(), paint });
}

async function watch(place: Place, { json }: StatusOptions, io: CliIo, terminal: Terminal): Promise<void> {
  using interrupt = onInterrupt(() => undefined);
  const { signal } = interrupt;
  const block = terminal.isLive && !json ? new Block(terminal) : null;
  while (!signal.aborted) {
    const seen = await look(place);
    if (json) io.out(JSON.stringify(seen));
    else if (block) block.draw([watchTitle(Date.now(), WATCH_SECONDS), '', ...pageOf(seen, terminal)]);
    else for (const line of ['', watchTitle(Date.now(), WATCH_SECONDS), ...pageOf(seen, terminal)]) io.out(line);
    await sleep(WATCH_SECONDS * 1000, undefined, { signal }).catch(() => undefined); // Cut short by Ctrl-C.
  }
}

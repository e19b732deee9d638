/**
 * `sluice backfill --reset`: asks for tables to be copied anew, beside the running stream. The next window begins it; readers of the target see the
 * old table until the new one is complete.
 */
import type { Command } from 'commander';
import { SluiceError } from '../lib/errors.ts';
import { requestResets } from '../lib/operate.ts';
import type { CliIo } from './io.ts';
import { CONFIG_OPTION, STATE_OPTION } from './options.ts';
import { readPipelineFile } from './pipeline-file.ts';
import { beside } from './place/beside.ts';
import { printable } from './view/text.ts';

interface BackfillOptions {
  readonly config: string;
  readonly state: string;
  readonly reset?: boolean;
  readonly json?: boolean;
}

export function registerBackfill(program: Command, io: CliIo): void {
  program
    .command('backfill')
    .description('copy tables anew (--reset), beside the running stream')
    .argument('<table...>', 'tables, globs such as public.*, or ids as `status --json` has them')
    .addOption(CONFIG_OPTION())
    .addOption(STATE_OPTION())
    .option('--reset', 'into a new table, which then takes the place of the old one')
    .option('--json', 'tell the result as JSON')
    .action((tables: string[], options: BackfillOptions) => backfillCommand(tables, options, io));
}

/** Throws USAGE without --reset, and for a name that means no stream; nothing is asked for then. */
export async function backfillCommand(tables: readonly string[], options: BackfillOptions, io: CliIo): Promise<void> {
  const { config, state, reset } = options;
  if (!reset) {
    throw new SluiceError('USAGE', {
      problem: 'This version copies whole tables anew only; a backfill of some rows (--where) comes with a later one.',
      remedy: 'Give --reset.',
    });
  }
  const file = await readPipelineFile(config);
  const place = { file, path: config, state, environment: io.env };
  const { streams, running_pid } = await beside(place, async ({ ports, running_pid: pid }) => ({
    streams: await requestResets(ports, tables),
    running_pid: pid,
  }));
  if (options.json) {
    io.out(JSON.stringify({ running_pid, streams }));
    return;
  }
  for (const { table } of streams) io.out(`${printable(table)} will be copied anew.`);
  io.out(running_pid === null ? 'The first window of the next `sluice run` begins it.' : 'The next window begins it.');
}

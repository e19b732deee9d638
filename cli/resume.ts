/**
 * `sluice resume`: goes on with a stream that was halted, after its cause has been mended. Nothing is skipped: what halted it is tried again.
 */
import type { Command } from 'commander';
import { resume } from '../lib/operate.ts';
import type { CliIo } from './io.ts';
import { CONFIG_OPTION, STATE_OPTION } from './options.ts';
import { readPipelineFile } from './pipeline-file.ts';
import { beside } from './place/beside.ts';
import { printable } from './view/text.ts';

interface ResumeOptions {
  readonly config: string;
  readonly state: string;
  readonly json?: boolean;
}

export function registerResume(program: Command, io: CliIo): void {
  program
    .command('resume')
    .description('go on with a stream that was halted')
    .argument('<stream>', 'table, glob such as public.*, or id as `status --json` has it')
    .addOption(CONFIG_OPTION())
    .addOption(STATE_OPTION())
    .option('--json', 'tell the result as JSON')
    .action((stream: string, options: ResumeOptions) => resumeCommand(stream, options, io));
}

/** Throws USAGE for a name that means no stream, and for a stream that only a reset can mend. */
export async function resumeCommand(stream: string, options: ResumeOptions, io: CliIo): Promise<void> {
  const { config, state } = options;
  const file = await readPipelineFile(config);
  const place = { file, path: config, state, environment: io.env };
  const { streams, running_pid } = await beside(place, async ({ ports, running_pid: pid }) => ({
    streams: await resume(ports, stream),
    running_pid: pid,
  }));
  if (options.json) {
    io.out(JSON.stringify({ running_pid, streams }));
    return;
  }
  for (const { table, resumed } of streams) {
    io.out(resumed ? `${printable(table)} goes on.` : `${printable(table)} was not halted.`);
  }
  if (running_pid === null && streams.some(({ resumed }) => resumed)) io.out('The next `sluice run` goes on with it.');
}

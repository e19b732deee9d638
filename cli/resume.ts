/**
 * `sluice resume`: goes on with a stream that was halted, after its cause has been mended. Nothing is skipped: what halted it is tried again. With `--resync`:
 * with all streams, over a new slot, after the old one was lost.
 */
import type { Command } from 'commander';
import { SluiceError } from '../lib/errors.ts';
import { requestResync, resume } from '../lib/operate.ts';
import type { CliIo } from './io.ts';
import { CONFIG_OPTION, STATE_OPTION } from './options.ts';
import { readPipelineFile } from './pipeline-file.ts';
import { beside, type Place } from './place/beside.ts';
import { counted, printable } from './view/text.ts';

interface ResumeOptions {
  readonly config: string;
  readonly state: string;
  readonly resync?: boolean;
  readonly json?: boolean;
}

export function registerResume(program: Command, io: CliIo): void {
  program
    .command('resume')
    .description('go on with a stream that was halted')
    .argument('[stream]', 'table, glob such as public.*, or id as `status --json` has it')
    .addOption(CONFIG_OPTION())
    .addOption(STATE_OPTION())
    .option('--resync', 'after the slot was lost: all streams, over a new slot, copying only what differs')
    .option('--json', 'tell the result as JSON')
    .action((stream: string | undefined, options: ResumeOptions) => resumeCommand(stream, options, io));
}

/** Throws USAGE for a name that means no stream, for a stream that only a reset or a resync can mend, and for a resync that nothing asks for. */
export async function resumeCommand(stream: string | undefined, options: ResumeOptions, io: CliIo): Promise<void> {
  if (options.resync) return await resyncCommand(stream, options, io);
  if (stream === undefined) {
    throw new SluiceError('USAGE', {
      problem: 'Which stream shall go on?',
      remedy: "Name it; '*.*' means all that are halted. After the loss of the slot: --resync, without a name.",
    });
  }
  const { streams, running_pid } = await beside(await placeOf(options, io), async ({ ports, running_pid: pid }) => ({
    streams: await resume(ports, stream),
    running_pid: pid,
  }));
  if (options.json) {
    io.out(JSON.stringify({ running_pid, streams }));
    return;
  }
  const looked = running_pid === null ? '' : '; it is looked at again';
  for (const { table, resumed } of streams) {
    io.out(resumed ? `${printable(table)} goes on.` : `${printable(table)} was not halted${looked}.`);
  }
  if (running_pid === null && streams.some(({ resumed }) => resumed)) io.out('The next `sluice run` goes on with it.');
}

async function resyncCommand(stream: string | undefined, options: ResumeOptions, io: CliIo): Promise<void> {
  if (stream !== undefined) {
    throw new SluiceError('USAGE', {
      problem: '--resync takes no name: all streams are read from one slot, and have lost their place with it.',
      remedy: 'sluice resume --resync',
    });
  }
  const { streams, running_pid } = await beside(await placeOf(options, io), async ({ ports, running_pid: pid }) => ({
    streams: await requestResync(ports),
    running_pid: pid,
  }));
  if (options.json) {
    io.out(JSON.stringify({ running_pid, streams }));
    return;
  }
  const next = running_pid === null ? 'The first window of the next `sluice run`' : 'The next window';
  io.out(`${next} makes a new slot, and ${counted(streams.length, 'stream')} will be compared with the source.`);
}

async function placeOf({ config, state }: ResumeOptions, { env }: CliIo): Promise<Place> {
  return { file: await readPipelineFile(config), path: config, state, environment: env };
}

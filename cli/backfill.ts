/**
 * `sluice backfill`: rows read again beside the running stream. `--where`: those that match, into the table as it is. `--reset`: the whole table anew, which then takes
 * the place of the old one. `--cancel`: what was asked for and is not done.
 */
import type { Command } from 'commander';
import { cancelBackfills, requestBackfills } from '../lib/epoch/backfill.ts';
import { checkWhere } from '../lib/epoch/where.ts';
import { SluiceError } from '../lib/errors.ts';
import { requestResets } from '../lib/operate.ts';
import type { CliIo } from './io.ts';
import { CONFIG_OPTION, STATE_OPTION } from './options.ts';
import { readPipelineFile } from './pipeline-file.ts';
import { type Beside, beside } from './place/beside.ts';
import { connectionsTo } from './place/connect.ts';
import { counted, printable } from './view/text.ts';

interface BackfillOptions {
  readonly config: string;
  readonly state: string;
  readonly where?: string;
  readonly reset?: boolean;
  readonly cancel?: boolean;
  readonly json?: boolean;
}

export function registerBackfill(program: Command, io: CliIo): void {
  program
    .command('backfill')
    .description('read rows again, beside the running stream: some (--where), or the whole table (--reset)')
    .argument('<table...>', 'tables, globs such as public.*, or ids as `status --json` has them')
    .addOption(CONFIG_OPTION())
    .addOption(STATE_OPTION())
    .option('--where <sql>', 'rows that match this condition on the source, into the table as it is')
    .option('--reset', 'all rows into a new table, which then takes the place of the old one')
    .option('--cancel', 'stop what was asked for with --where and is not done; what has been read again stays')
    .option('--json', 'tell the result as JSON')
    .addHelpText(
      'after',
      '\n--where brings rows that the source has; rows that it no longer has, or that no longer match, are left to the log. Several may be asked for: one after another.',
    )
    .action((tables: string[], options: BackfillOptions) => backfillCommand(tables, options, io));
}

/** Throws USAGE for a name that means no stream, and BACKFILL_WHERE; nothing is asked for then. */
export async function backfillCommand(tables: readonly string[], options: BackfillOptions, io: CliIo): Promise<void> {
  const { config, state } = options;
  assertOneOf(options);
  const file = await readPipelineFile(config);
  const place = { file, path: config, state, environment: io.env };
  const { asked, lines, running_pid } = await beside(place, async (there) => ({
    ...(await ask(tables, options, there)),
    running_pid: there.running_pid,
  }));
  if (options.json) {
    io.out(JSON.stringify({ running_pid, streams: asked }));
    return;
  }
  for (const line of lines) io.out(line);
}

function assertOneOf({ where, reset, cancel }: BackfillOptions): void {
  if ([where !== undefined, reset, cancel].filter(Boolean).length === 1) return;
  throw new SluiceError('USAGE', {
    problem: 'Say what shall be read again, and in one way.',
    remedy: 'Give --where SQL for some rows, --reset for the whole table, or --cancel to stop what was asked for.',
  });
}

interface Asked {
  readonly asked: readonly object[];
  readonly lines: readonly string[];
}

async function ask(tables: readonly string[], { where, cancel }: BackfillOptions, there: Beside): Promise<Asked> {
  const { ports, running_pid } = there;
  const next = running_pid === null ? 'The first window of the next `sluice run`' : 'The next window';
  if (cancel) {
    const asked = await cancelBackfills(ports, tables);
    const lines = asked.map(({ table, requests, epoch }) => {
      const ended = [
        ...(epoch === null ? [] : ['the one under way']),
        ...(requests === 0 ? [] : [`${counted(requests, 'request')} that had not begun`]),
      ];
      return `${printable(table)}: ${ended.length === 0 ? 'nothing was asked for' : `cancelled ${ended.join(' and ')}`}.`;
    });
    return { asked, lines };
  }
  if (where === undefined) {
    const asked = await requestResets(ports, tables);
    return {
      asked,
      lines: [...asked.map(({ table }) => `${printable(table)} will be copied anew.`), `${next} begins it.`],
    };
  }
  const { pipeline } = await readPipelineFile(there.backend.configPath);
  const { configPath: config_path, environment } = there.backend;
  const { source } = connectionsTo({ pipeline, config_path, environment });
  const asked = await requestBackfills(ports, tables, where, (table, sql) => checkWhere(source, table, sql));
  const lines = asked.map(
    ({ table, backfill }) =>
      `${printable(table)}: ${backfill === 'opened' ? 'the rows are read again' : 'waits until the stream is free'}.`,
  );
  return { asked, lines: running_pid === null ? [...lines, `${next} goes on with it.`] : lines };
}

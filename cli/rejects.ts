/**
 * `sluice rejects`: rows that were left out because they are not valid (target.on_invalid: reject), or because the target refused them
 * (target.on_error: quarantine). Without a name, how many of which table; with one, the rows with their reasons. `--load`: read them again from the source. `--discard`: forget them.
 */
import type { Command } from 'commander';
import { SluiceError } from '../lib/errors.ts';
import { s3Stage } from '../lib/stage/s3.ts';
import {
  discardRejects,
  listRejects,
  loadRejects,
  type RejectPorts,
  type RejectsHandled,
  readRejects,
  type ShownReject,
} from '../lib/validation/rejects.ts';
import type { CliIo } from './io.ts';
import { CONFIG_OPTION, STATE_OPTION } from './options.ts';
import { readPipelineFile } from './pipeline-file.ts';
import { beside, type Place } from './place/beside.ts';
import { rejectLines, rejectsPage } from './view/rejects.ts';
import type { Terminal } from './view/terminal.ts';
import { count, counted, printable } from './view/text.ts';

/** Rows that are shown of a table, unless somebody asks for more. */
const ROWS_SHOWN = 100;

interface RejectsOptions {
  readonly config: string;
  readonly state: string;
  readonly load?: boolean;
  readonly discard?: boolean;
  readonly limit: string;
  readonly json?: boolean;
}

export function registerRejects(program: Command, io: CliIo, page: Terminal): void {
  program
    .command('rejects')
    .description(
      'rows that were left out: they are not valid (target.on_invalid), or the target refused them (target.on_error)',
    )
    .argument('[stream]', 'table, glob such as public.*, or id as `status --json` has it (default: a list of tables)')
    .addOption(CONFIG_OPTION())
    .addOption(STATE_OPTION())
    .option('--load', 'read these rows again from the source, as they are now, and forget what was put aside')
    .option('--discard', 'forget them; the target stays as it is')
    .option('--limit <rows>', 'rows that are shown at most', String(ROWS_SHOWN))
    .option('--json', 'as JSON: the list, or a line for each row')
    .addHelpText(
      'after',
      '\nA row is shown with the values that it has in the stage: after masks, and cut where they are long.',
    )
    .action((stream: string | undefined, options: RejectsOptions) => rejectsCommand(stream, options, io, page));
}

/** Throws USAGE for a name that means no stream, and for rows that cannot be read again by their keys. */
export async function rejectsCommand(
  named: string | undefined,
  options: RejectsOptions,
  io: CliIo,
  page: Terminal,
): Promise<void> {
  const limit = limitOf(named, options);
  const { config, state } = options;
  const file = await readPipelineFile(config);
  const place: Place = { file, path: config, state, environment: io.env };
  await beside(place, async ({ backend, ports, running_pid }) => {
    const stage = s3Stage({ client: backend.clients.s3, bucket: backend.resources.bucket, log: ports.log });
    const there = { ...ports, stage };
    if (named === undefined) {
      const streams = await listRejects(ports.ledger);
      if (options.json) io.out(JSON.stringify({ pipeline: file.pipeline.pipeline, streams }));
      else for (const line of rejectsPage(streams, page.columns())) io.out(line);
    } else if (options.load || options.discard) {
      const streams = options.load
        ? await loadRejects(there, file.pipeline, named)
        : await discardRejects(there, named);
      if (options.json) io.out(JSON.stringify({ running_pid, streams }));
      else for (const line of handledLines(streams, options.load === true, running_pid)) io.out(line);
    } else {
      await show(there, named, { limit, json: options.json === true, width: page.columns() }, io);
    }
  });
}

async function show(
  ports: RejectPorts,
  named: string,
  { limit, json, width }: { readonly limit: number; readonly json: boolean; readonly width: number },
  io: CliIo,
): Promise<void> {
  let shown = 0;
  let more = 0;
  for await (const row of readRejects(ports, named)) {
    if (shown === limit) {
      more += 1;
      continue;
    }
    shown += 1;
    if (json) io.out(JSON.stringify(asJson(row)));
    else for (const line of rejectLines(row, width)) io.out(line);
  }
  if (json) return;
  if (shown === 0) io.out('No rows of it are put aside.');
  if (more > 0) io.out(`and ${count(more)} more: --limit ${shown + more}`);
}

/** The key as a map: names of columns are unique. */
function asJson({ key, ...row }: ShownReject): object {
  return { ...row, key: Object.fromEntries(key.columns.map((name, i) => [name, key.values[i]])) };
}

function handledLines(streams: readonly RejectsHandled[], isLoad: boolean, running_pid: number | null): string[] {
  const lines = streams.map(({ table, rows, load }) => {
    if (rows === 0) return `${printable(table)}: no rows are put aside.`;
    if (!isLoad) return `${printable(table)}: ${counted(rows, 'row')} forgotten.`;
    const how = load === 'opened' ? 'read again' : 'read again when the stream is free';
    return `${printable(table)}: ${counted(rows, 'row')} will be ${how}.`;
  });
  const isAsked = isLoad && streams.some(({ load }) => load !== null);
  return isAsked && running_pid === null
    ? [...lines, 'The first window of the next `sluice run` goes on with it.']
    : lines;
}

function limitOf(named: string | undefined, { load, discard, limit }: RejectsOptions): number {
  const usage = (problem: string, remedy: string): SluiceError => new SluiceError('USAGE', { problem, remedy });
  if (load && discard) throw usage('--load and --discard contradict each other.', 'Give one of them.');
  if ((load || discard) && named === undefined) {
    throw usage('Of which table?', "Name it; '*.*' means all of which rows are put aside.");
  }
  const rows = Number(limit);
  if (Number.isSafeInteger(rows) && rows > 0) return rows;
  throw usage('--limit must be a whole number, at least 1.', `--limit ${ROWS_SHOWN}`);
}

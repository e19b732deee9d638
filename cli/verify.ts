/**
 * `sluice verify`: compares tables on both sides, under live writes, and names the keys of rows that differ; `--repair` has just these rows brought again.
 * What keeps changing is looked at again when the chain has come past it, so the chain must move: by the engine that runs on the state, or by one of its own.
 */
import type { Command } from 'commander';
import { postgresExtractor } from '../lib/epoch/extractor.ts';
import { SluiceError } from '../lib/errors.ts';
import { streamsOf } from '../lib/operate.ts';
import type { Bookmark, Ledger } from '../lib/ports.ts';
import { displayName } from '../lib/shape.ts';
import { appendPublicationName } from '../lib/slot/append-publication.ts';
import type { StreamFindings } from '../lib/verify/findings.ts';
import { type VerifyOptions, verify } from '../lib/verify/verify.ts';
import { Ended } from './failure.ts';
import type { CliIo } from './io.ts';
import { CONFIG_OPTION, STATE_OPTION } from './options.ts';
import { readPipelineFile } from './pipeline-file.ts';
import { type Moving, onMovingChain } from './place/chain.ts';
import { onInterrupt } from './run/interrupt.ts';
import { verifyChainCommand } from './verify-chain.ts';
import { Block, type Terminal } from './view/terminal.ts';
import { count, counted, harmless, percent, printable } from './view/text.ts';
import { verifyPage } from './view/verify.ts';

interface VerifyCommandOptions {
  readonly config: string;
  readonly state: string;
  readonly repair?: boolean;
  readonly chain?: boolean;
  readonly json?: boolean;
}

/** Between two plain lines of progress. */
const PLAIN_LINE_MS = 5_000;

export function registerVerify(program: Command, io: CliIo, terminals: { terminal: Terminal; page: Terminal }): void {
  program
    .command('verify')
    .description('compare both sides by checksums, under live writes; exit 1 when rows differ')
    .argument(
      '[table...]',
      'tables, globs such as public.*, or ids as `status --json` has them (default: all that the log is read for)',
    )
    .addOption(CONFIG_OPTION())
    .addOption(STATE_OPTION())
    .option('--repair', 'bring the rows that differ again, and look at them once more')
    .option(
      '--chain',
      'look at no table, but at the ledger and the staged objects: nothing is missing, nothing damaged',
    )
    .option('--json', 'the findings as JSON')
    .addHelpText(
      'after',
      '\nNothing is locked, and no value but keys is shown. Where no `sluice run` is at work on the state, windows and loads run as long as the comparison does.',
    )
    .action((tables: string[], options: VerifyCommandOptions) => verifyCommand(tables, options, io, terminals));
}

/** Throws Ended(1) when rows differ, or a table could not be compared; USAGE for a name that means no stream. */
export async function verifyCommand(
  tables: readonly string[],
  options: VerifyCommandOptions,
  io: CliIo,
  { terminal, page }: { readonly terminal: Terminal; readonly page: Terminal },
): Promise<void> {
  const { config, state } = options;
  const file = await readPipelineFile(config);
  const place = { file, path: config, state, environment: io.env };
  if (options.chain) {
    if (tables.length > 0 || options.repair) {
      throw new SluiceError('USAGE', {
        problem: 'verify --chain looks at the whole chain, and mends nothing.',
        remedy: 'Leave out the tables and --repair: sluice verify --chain',
      });
    }
    await verifyChainCommand(place, options.json ?? false, io, terminal);
    return;
  }
  const progress = new VerifyProgress(terminal, options.json ?? false);
  const interrupted = Promise.withResolvers<never>();
  interrupted.promise.catch(() => undefined); // It is waited for below, together with the work.
  using _ = onInterrupt(() => interrupted.reject(new Ended(1)));
  let found: StreamFindings[];
  try {
    found = await onMovingChain(
      place,
      ({ code, message }) => progress.say(`${code}: ${printable(message)} It is tried again.`),
      async (moving) =>
        await Promise.race([compare(tables, options.repair ?? false, moving, progress), interrupted.promise]),
    );
  } finally {
    progress.close();
  }
  if (options.json) io.out(JSON.stringify({ pipeline: file.pipeline.pipeline, streams: found }));
  else for (const line of verifyPage(found, page.columns(), page.paint)) io.out(line);
  if (found.some(({ outcome }) => outcome === 'different' || outcome === 'failed')) throw new Ended(1);
}

async function compare(
  tables: readonly string[],
  repair: boolean,
  { pipeline, ports, connections, running_pid, advance, idle_ms_max }: Moving,
  progress: VerifyProgress,
): Promise<StreamFindings[]> {
  const streams = await bookmarksOf(ports.ledger, tables);
  const { publication_name } = pipeline.source;
  const extractor = postgresExtractor({
    connect: connections.source,
    connectReplication: connections.replication,
    publications: [publication_name, appendPublicationName(publication_name)],
  });
  const by = running_pid === null ? 'a window' : `\`sluice run\` in process ${running_pid}`;
  return await verify(
    {
      ...ports,
      connectSource: connections.source,
      connectTarget: connections.target,
      table: (name) => extractor.table(name),
      advance,
      idle_ms_max,
    },
    {
      pipeline,
      streams,
      named: tables.length > 0,
      repair,
      onProgress: (at) => progress.at(at),
      onWait: (what) => progress.say(`Waiting for ${printable(what)}, by ${by}`),
    },
  );
}

/** In the order of their tables' names; each once. Throws USAGE where there is none. */
async function bookmarksOf(ledger: Ledger, tables: readonly string[]): Promise<Bookmark[]> {
  const found = new Map<string, Bookmark>();
  for (const named of tables)
    for (const bookmark of await streamsOf(ledger, named)) found.set(bookmark.stream, bookmark);
  const streams = tables.length === 0 ? await ledger.bookmarks() : [...found.values()];
  if (streams.length === 0) {
    throw new SluiceError('USAGE', {
      problem: 'Nothing is replicated here yet.',
      remedy: 'sluice run --until-caught-up',
    });
  }
  return streams.toSorted((a, b) => (displayName(a.table) < displayName(b.table) ? -1 : 1));
}

/** On standard error: one line that is drawn again on a terminal, a line now and then elsewhere, nothing beside JSON. */
class VerifyProgress {
  readonly #terminal: Terminal;
  readonly #block: Block | null;
  readonly #silent: boolean;
  #told_ms = performance.now();
  #said = '';

  constructor(terminal: Terminal, silent: boolean) {
    this.#terminal = terminal;
    this.#silent = silent;
    this.#block = terminal.isLive && !silent ? new Block(terminal) : null;
  }

  at({ table, rows, rows_estimate }: Parameters<VerifyOptions['onProgress']>[0]): void {
    const share =
      rows_estimate > 0
        ? `${percent(Math.min(0.99, rows / rows_estimate)).trim()} of about ${count(rows_estimate)}`
        : '';
    const line = `Comparing ${printable(table)}: ${counted(rows, 'row')}${share === '' ? '' : `, ${share}`}`;
    if (this.#block) this.#block.draw([line]);
    else if (performance.now() - this.#told_ms >= PLAIN_LINE_MS) this.#write(line);
  }

  /** What is said twice in a row is said once. */
  say(line: string): void {
    if (line === this.#said) return;
    this.#said = line;
    if (this.#block) this.#block.draw([line]);
    else this.#write(line);
  }

  close(): void {
    this.#block?.clear();
  }

  #write(line: string): void {
    if (this.#silent) return;
    this.#told_ms = performance.now();
    this.#terminal.write(`${harmless(line)}\n`);
  }
}

/**
 * `sluice init URL`: writes a commented pipeline.yaml from what it finds in the source; `sluice init --from-singer CONFIG.json`: from the files of a Singer pipeline,
 * which it takes the place of. Changes nothing in either.
 */
import { readFile, writeFile } from 'node:fs/promises';
import type { Command } from 'commander';
import { parseConnectionUrl } from '../lib/config/connection-url.ts';
import { initialPipeline, SOURCE_PASSWORD } from '../lib/config/initial-pipeline.ts';
import { readPipeline } from '../lib/config/read.ts';
import { SluiceError } from '../lib/errors.ts';
import type { SourceTable } from '../lib/ports.ts';
import type { Connection } from '../lib/postgres/connection.ts';
import { onSource, serverVersion } from '../lib/postgres/session.ts';
import { type SingerFile, singerPipeline } from '../lib/singer/pipeline.ts';
import { type CatalogRow, tableOf, tablesSql } from '../lib/slot/catalog.ts';
import type { CliIo } from './io.ts';

const CONNECT_TIMEOUT_SECONDS = 30;
const STANDARD_OUTPUT = '-';

export interface InitOptions {
  /** File to write; `-` is standard output. */
  readonly output: string;
  readonly name?: string;
  readonly force?: boolean;
  readonly json?: boolean;
  /** tap-postgres' config.json, in place of a URL; its catalog; and target-postgres' config.json. Paths. */
  readonly fromSinger?: string;
  readonly catalog?: string;
  readonly target?: string;
}

export function registerInit(program: Command, io: CliIo): void {
  program
    .command('init')
    .description(
      'write a commented pipeline.yaml from what is found in a source, or from the files of a Singer pipeline',
    )
    .argument('[url]', 'the source: postgresql://USER@HOST:PORT/DATABASE')
    .option('--from-singer <file>', "tap-postgres' config.json, in place of a URL")
    .option('--catalog <file>', "the tap's catalog.json, with --from-singer")
    .option('--target <file>', "target-postgres' config.json, with --from-singer")
    .option('-o, --output <file>', 'file to write, - for standard output', 'pipeline.yaml')
    .option('--name <name>', 'name of the pipeline (default: from the database)')
    .option('--force', 'overwrite the file if it is there')
    .option('--json', 'tell the result as JSON')
    .addHelpText(
      'after',
      `\nThe password is taken from the URL, or from ${SOURCE_PASSWORD} or PGPASSWORD. It is not written to the file.`,
    )
    .action((url: string | undefined, options: InitOptions) => init(url ?? null, options, io));
}

/** Throws USAGE for arguments that do not go together, files and URLs that are none, and a file that is there already; and what connecting throws. */
export async function init(url: string | null, options: InitOptions, io: CliIo): Promise<void> {
  const { fromSinger, catalog, target } = options;
  const usage = (problem: string, remedy: string): SluiceError => new SluiceError('USAGE', { problem, remedy });
  if (fromSinger === undefined && (catalog ?? target) !== undefined) {
    throw usage(
      '--catalog and --target belong to --from-singer, which is not given.',
      "Add --from-singer CONFIG.json, the tap's.",
    );
  }
  if (url !== null && fromSinger !== undefined) {
    throw usage(
      'Both a URL and --from-singer are given.',
      "Leave the URL out: the tap's configuration says where the source is.",
    );
  }
  if (url !== null) return await fromSource(url, options, io);
  if (fromSinger !== undefined) return await fromFiles(fromSinger, options, io);
  throw usage(
    'Nothing says where the pipeline comes from.',
    'Run sluice init postgresql://USER@HOST:PORT/DATABASE, or sluice init --from-singer CONFIG.json.',
  );
}

async function fromSource(url: string, options: InitOptions, io: CliIo): Promise<void> {
  const { password: given, ...address } = parseConnectionUrl(url);
  const password = given ?? io.env[SOURCE_PASSWORD] ?? io.env.PGPASSWORD ?? null;
  const ca = address.ssl_ca === null ? null : await readCertificate(address.ssl_ca);
  const tables = await readTables(io, {
    host: address.host,
    port: address.port,
    user: address.user,
    password,
    database: address.database,
    connect_timeout_seconds: CONNECT_TIMEOUT_SECONDS,
    application_name: 'sluice/init',
    ssl: { mode: address.ssl_mode, ca, cert: null, key: null, key_password: null, server_name: null },
  });
  const { text, name, followed, skipped } = initialPipeline({
    connection: address,
    has_password: password !== null,
    tables,
    name: options.name ?? null,
  });
  // A name given on the command line, or one of the source's, may be more than the file can say: found here, before anything is written.
  readPipeline(text, options.output);
  if (options.output === STANDARD_OUTPUT) {
    io.out(text.trimEnd());
    return;
  }
  await write(options, text);
  if (options.json) {
    io.out(JSON.stringify({ file: options.output, pipeline: name, tables: followed, skipped }));
    return;
  }
  io.out(
    `Wrote ${options.output}: ${followed} ${followed === 1 ? 'table' : 'tables'} to follow, ${skipped.length} left out (see its comments).`,
  );
  if (password !== null) io.out(`The password is not in it: set ${SOURCE_PASSWORD} before you run it.`);
  io.out(`Next: sluice doctor -c ${options.output}`);
}

/** Throws USAGE for files that cannot be read, or are not what they should be. */
async function fromFiles(path: string, options: InitOptions, io: CliIo): Promise<void> {
  const { text, name, tables, remarks, environment } = singerPipeline({
    config: await readJson(path),
    catalog: options.catalog === undefined ? null : await readJson(options.catalog),
    target: options.target === undefined ? null : await readJson(options.target),
    name: options.name ?? null,
  });
  // What a tap took may be out of bounds here.
  readPipeline(text, options.output);
  if (options.output === STANDARD_OUTPUT) io.out(text.trimEnd());
  else await write(options, text);
  for (const remark of remarks) io.err(remark);
  if (options.output === STANDARD_OUTPUT) return;
  if (options.json) {
    io.out(JSON.stringify({ file: options.output, pipeline: name, tables, remarks, environment }));
    return;
  }
  io.out(`Wrote ${options.output}: ${tables} ${tables === 1 ? 'entry' : 'entries'} of tables.`);
  if (environment.length > 0) io.out(`No secret is in it: set ${environment.join(', ')} before you run it.`);
  io.out(`Next: sluice doctor -c ${options.output}`);
}

async function readJson(path: string): Promise<SingerFile> {
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (error) {
    throw fileFault(`${path} cannot be read`, error, 'Check the path.');
  }
  try {
    return { path, data: JSON.parse(text) as unknown };
  } catch {
    // The parser's own words quote what it found there: perhaps a secret.
    throw new SluiceError('USAGE', {
      problem: `${path} is no JSON.`,
      remedy: 'Check the path, and that the file is whole.',
    });
  }
}

function readTables(io: CliIo, connection: Connection): Promise<SourceTable[]> {
  const connect = () => io.connect({ side: 'source', connection });
  return onSource(connect, 'list its tables', async (client) => {
    const { rows } = await client.query<CatalogRow>(tablesSql(await serverVersion(client), false));
    return rows.map(tableOf);
  });
}

async function readCertificate(path: string): Promise<string> {
  try {
    return await readFile(path, 'utf8');
  } catch (error) {
    throw fileFault(`The certificates in ${path} cannot be read`, error, 'Check the path in sslrootcert.');
  }
}

async function write({ output, force }: InitOptions, text: string): Promise<void> {
  try {
    await writeFile(output, text, { flag: force ? 'w' : 'wx' });
  } catch (error) {
    const exists = (error as NodeJS.ErrnoException).code === 'EEXIST';
    if (!exists) throw fileFault(`${output} cannot be written`, error, 'Name another file with --output.');
    const remedy = 'Name another file with --output, or overwrite it with --force.';
    throw new SluiceError(
      'USAGE',
      { problem: `${output} is there already, and was not touched.`, remedy },
      { cause: error },
    );
  }
}

function fileFault(problem: string, error: unknown, remedy: string): SluiceError {
  const code = (error as NodeJS.ErrnoException).code ?? 'unknown error';
  return new SluiceError('USAGE', { problem: `${problem} (${code}).`, remedy }, { cause: error });
}

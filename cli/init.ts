/**
 * `sluice init URL`: writes a commented pipeline.yaml from what it finds in the source. Changes nothing there.
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
}

export function registerInit(program: Command, io: CliIo): void {
  program
    .command('init')
    .description('write a commented pipeline.yaml from what is found in a source')
    .argument('<url>', 'the source: postgresql://USER@HOST:PORT/DATABASE')
    .option('-o, --output <file>', 'file to write, - for standard output', 'pipeline.yaml')
    .option('--name <name>', 'name of the pipeline (default: from the database)')
    .option('--force', 'overwrite the file if it is there')
    .option('--json', 'tell the result as JSON')
    .addHelpText(
      'after',
      `\nThe password is taken from the URL, or from ${SOURCE_PASSWORD} or PGPASSWORD. It is not written to the file.`,
    )
    .action((url: string, options: InitOptions) => init(url, options, io));
}

/** Throws USAGE for a URL that is none and for a file that is there already, and what connecting throws. */
export async function init(url: string, options: InitOptions, io: CliIo): Promise<void> {
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

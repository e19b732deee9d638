/**
 * The pipeline file for a deployment: read and checked as everywhere, then turned into the JSON that is shipped with every function. The JSON has
 * no comments (a note in the file may say more than it should), and no secret: it holds only what Secrets Manager is asked for by name.
 */
import { readFileSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { parseConfig } from '../../lib/config/document.ts';
import { iamRegion } from '../../lib/config/iam.ts';
import { readPipeline } from '../../lib/config/read.ts';
import type { AuthorityReference, PasswordReference, Pipeline } from '../../lib/config/schema.ts';
import { withSchemas } from '../../lib/config/schema-files.ts';
import { SluiceError } from '../../lib/errors.ts';
import { ajvCompiler } from '../../lib/validation/ajv-compiler.ts';

export const SIDES = ['source', 'target'] as const;
export type Side = (typeof SIDES)[number];

export interface DeployedPipeline {
  readonly pipeline: Pipeline;
  /** The file as JSON text, for the functions. */
  readonly json: string;
  /** Names or ARNs in Secrets Manager that a connection to the side needs, each once, in order. */
  readonly secrets: Readonly<Record<Side, readonly string[]>>;
  /** Who connects to the side with an IAM token, and where; null: nobody does. */
  readonly tokens: Readonly<Record<Side, TokenUser | null>>;
}

/** A role of a database that is connected to with IAM tokens. */
export interface TokenUser {
  readonly user: string;
  readonly region: string;
}

/**
 * Reads the file at `path`. Throws CONFIG_INVALID for what is wrong in it, and for what cannot work on AWS: a side without a host, a secret from
 * the environment, a private key in a file.
 */
export function readDeployedPipeline(path: string): DeployedPipeline {
  const text = readText(path, 'the pipeline file');
  const pipeline = withSchemas(readPipeline(text, path), {
    text,
    fileName: path,
    read: (file) => readText(resolve(dirname(path), file), 'a JSON Schema'),
    compile: ajvCompiler.compile,
  });
  const data = parseConfig(text).value as Record<Side, { ssl?: Record<string, unknown> }> & { tables: unknown[] };
  for (const [i, { json_schema }] of pipeline.tables.entries()) {
    if (json_schema !== null) data.tables[i] = { ...(data.tables[i] as object), json_schema };
  }
  const secrets: Record<Side, Set<string>> = { source: new Set(), target: new Set() };
  for (const side of SIDES) {
    if (pipeline[side].host === null) {
      throw refusal(
        `${side}.host is missing: the embedded PostgreSQL is there on one machine only.`,
        `Set ${side}.host.`,
      );
    }
    for (const [option, reference] of referencesOf(pipeline[side])) {
      const where = `${side}.${option}`;
      if (reference.from === 'secret') secrets[side].add(reference.name);
      if (reference.from === 'env') throw environmentRefusal(where, reference.name);
      if (reference.from === 'file') {
        if (option === 'ssl.key' || option === 'ssh.private_key') throw privateKeyRefusal(where);
        // A certificate is public, and the functions have no disk of ours: its text goes where its path stood.
        const { ssl } = data[side];
        if (ssl) ssl[option.slice('ssl.'.length)] = readText(resolve(dirname(path), reference.path), where);
      }
    }
  }
  const { mask_salt } = pipeline;
  if (mask_salt?.from === 'env') throw environmentRefusal('mask_salt', mask_salt.name);
  // Whoever reads the source hashes what is not to be seen of it.
  if (mask_salt) secrets.source.add(mask_salt.name);
  return {
    pipeline,
    json: `${JSON.stringify(data, null, 2)}\n`,
    secrets: { source: [...secrets.source], target: [...secrets.target] },
    tokens: { source: tokenUser(pipeline.source), target: tokenUser(pipeline.target) },
  };
}

type Reference = PasswordReference | AuthorityReference;

/** Every option of a connection that names something to be read elsewhere, with its path below the side. */
function referencesOf(connection: Pipeline[Side]): [option: string, reference: Reference][] {
  const { ca, cert, key, key_password } = connection.ssl;
  const options: [string, Reference | null][] = [
    ['password', connection.password],
    ['ssl.ca', ca],
    ['ssl.cert', cert],
    ['ssl.key', key],
    ['ssl.key_password', key_password],
    ['ssh.private_key', connection.ssh?.private_key ?? null],
    ['ssh.passphrase', connection.ssh?.passphrase ?? null],
  ];
  return options.filter((entry): entry is [string, Reference] => entry[1] !== null);
}

function tokenUser({ password, user, host, ssl }: Pipeline[Side]): TokenUser | null {
  if (password?.from !== 'iam') return null;
  const region = iamRegion(password, ssl.server_name ?? host);
  return region === null ? null : { user, region };
}

function readText(path: string, what: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    throw new SluiceError('USAGE', {
      problem: `Cannot read ${what} (${path}): ${(error as NodeJS.ErrnoException).code ?? 'unknown error'}.`,
      remedy: 'Name the pipeline file by -c config=FILE; paths in it are relative to it.',
    });
  }
}

function environmentRefusal(where: string, name: string): SluiceError {
  return refusal(
    `${where} comes from the environment variable ${name}, which the functions do not have: it would have to stand in the template for all to read.`,
    `Put it into Secrets Manager and name it: ${where}: { secret: NAME, key: KEY }.`,
  );
}

function privateKeyRefusal(where: string): SluiceError {
  return refusal(
    `${where} is a file, and would be uploaded with the functions' code.`,
    `Put the private key into Secrets Manager and name it: ${where}: { secret: NAME }.`,
  );
}

function refusal(problem: string, remedy: string): SluiceError {
  return new SluiceError('CONFIG_INVALID', { problem, remedy });
}

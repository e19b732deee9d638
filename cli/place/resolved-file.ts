/**
 * The pipeline file as the functions get it where a side names no database: the same file, with the embedded server's address in it. Pure.
 */
import { resolve } from 'node:path';
import { stringify } from 'yaml';
import { parseConfig } from '../../lib/config/document.ts';
import type { Pipeline } from '../../lib/config/schema.ts';
import type { Side } from '../../lib/postgres/connection.ts';

export const SIDES = ['source', 'target'] as const satisfies readonly Side[];

/** Where an embedded server listens. Its password is in the environment variable, never in the file. */
export interface EmbeddedAddress {
  readonly host: string;
  readonly port: number;
  readonly user: string;
  readonly database: string;
  readonly password_variable: string;
}

const PEM_OPTIONS = ['ca', 'cert', 'key'] as const;

/** Paths in the file are made absolute (against `directory`), since it is written to another place. `pipeline` is what `text` says. */
export function resolvedFile(
  { text, pipeline, directory }: { readonly text: string; readonly pipeline: Pipeline; readonly directory: string },
  addresses: Readonly<Partial<Record<Side, EmbeddedAddress>>>,
): string {
  // A file that was read as a pipeline is a map of maps.
  const data = { ...(parseConfig(text).value as Record<string, unknown>) };
  for (const side of SIDES) {
    const section = { ...(data[side] as Record<string, unknown> | undefined) };
    const address = addresses[side];
    if (address) {
      const { password_variable, ...place } = address;
      Object.assign(section, place, { password: `\${env:${password_variable}}` });
    }
    const ssl = absolute(section.ssl, pipeline[side].ssl, directory);
    if (ssl !== null) section.ssl = ssl;
    data[side] = section;
  }
  return stringify(data);
}

function absolute(
  given: unknown,
  read: Pipeline['source']['ssl'],
  directory: string,
): Readonly<Record<string, unknown>> | null {
  if (typeof given !== 'object' || given === null) return null;
  const changed: Record<string, unknown> = { ...given };
  for (const option of PEM_OPTIONS) {
    const reference = read[option];
    if (reference?.from === 'file') changed[option] = resolve(directory, reference.path);
  }
  return changed;
}

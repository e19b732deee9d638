/**
 * Where a secret comes from. A pipeline file names secrets and never holds one: `${env:NAME}`, or an entry of AWS Secrets Manager.
 * Reading what is named is `secrets.ts`.
 */
import * as z from 'zod';
import { form } from './option.ts';

export type SecretReference =
  | { readonly from: 'env'; readonly name: string }
  /** `name` is a name or an ARN; `key` names a field of a secret that is a JSON object, null takes the whole text. */
  | { readonly from: 'secret'; readonly name: string; readonly key: string | null };

/** Where a PEM text comes from: the file itself (never for a private key), a file by path, or like a secret. */
export type PemReference =
  | SecretReference
  | { readonly from: 'text'; readonly pem: string }
  | { readonly from: 'file'; readonly path: string };

/** POSIX names of environment variables. */
const ENV_REFERENCE = /^\$\{env:([A-Za-z_][A-Za-z0-9_]*)\}$/;
const PEM_BEGIN = '-----BEGIN ';

const fromEnvironment = z
  .string()
  .regex(ENV_REFERENCE)
  .transform((text): SecretReference => ({ from: 'env', name: ENV_REFERENCE.exec(text)?.[1] ?? '' }));

const fromSecretsManager = z
  .strictObject({
    secret: z.string().min(1).max(2048).describe('Name or ARN of the secret in AWS Secrets Manager.'),
    key: z
      .string()
      .min(1)
      .optional()
      .describe('Field of the secret, where its text is a JSON object. Left out: the whole text.'),
  })
  .transform((entry): SecretReference => ({ from: 'secret', name: entry.secret, key: entry.key ?? null }));

/** Schema of a secret: the text of a password or of a passphrase is refused. */
export const secretReference = form(
  z.union([fromEnvironment, fromSecretsManager]),
  '${env:NAME} or { secret: NAME, key: KEY }',
);

/** Schema of a PEM text that is no secret (certificates). */
export const pemReference = form(
  z.union([
    z
      .string()
      .min(1)
      .regex(/^(?!rds$)/)
      .transform((text): PemReference => {
        const name = ENV_REFERENCE.exec(text)?.[1];
        if (name !== undefined) return { from: 'env', name };
        return text.trimStart().startsWith(PEM_BEGIN) ? { from: 'text', pem: text } : { from: 'file', path: text };
      }),
    fromSecretsManager,
  ]),
  'PEM text, the path of a file, ${env:NAME}, or { secret: NAME, key: KEY }',
);

/** Schema of a private key: as a certificate, but its text may not stand in the file. */
export const privateKeyReference = form(
  z.union([
    z
      .string()
      .min(1)
      .regex(/^(?!\s*-----BEGIN )/)
      .transform((text): PemReference => {
        const name = ENV_REFERENCE.exec(text)?.[1];
        return name === undefined ? { from: 'file', path: text } : { from: 'env', name };
      }),
    fromSecretsManager,
  ]),
  'the path of a file, ${env:NAME}, or { secret: NAME, key: KEY }',
);

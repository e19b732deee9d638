/**
 * Where a secret comes from. A pipeline file names secrets and never holds one: `${env:NAME}`, or an entry of AWS Secrets Manager; a password may also
 * be an IAM token, which is made for each connection. Reading what is named is `secrets.ts`.
 */
import * as z from 'zod';
import { form } from './option.ts';

export type SecretReference =
  | { readonly from: 'env'; readonly name: string }
  /** `name` is a name or an ARN; `key` names a field of a secret that is a JSON object, null takes the whole text. */
  | { readonly from: 'secret'; readonly name: string; readonly key: string | null };

/** Where a password comes from: also a token that IAM signs (`functions/postgres.ts`). `region` null: the host tells it (`iam.ts`). */
export type PasswordReference = SecretReference | { readonly from: 'iam'; readonly region: string | null };

/** Where a PEM text comes from: the file itself (never for a private key), a file by path, or like a secret. */
export type PemReference =
  | SecretReference
  | { readonly from: 'text'; readonly pem: string }
  | { readonly from: 'file'; readonly path: string };

/** POSIX names of environment variables. */
const ENV_REFERENCE = /^\$\{env:([A-Za-z_][A-Za-z0-9_]*)\}$/;
const PEM_BEGIN = '-----BEGIN ';

/** Where the trusted certificates come from: also the authorities of Amazon RDS, which come with Sluice. */
export type AuthorityReference = PemReference | { readonly from: 'rds' };

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

/** Names of regions: `eu-central-1`, `us-gov-west-1`. */
const REGION = /^[a-z]{2,}(?:-[a-z]+)+-[0-9]{1,2}$/;

const fromIam = z
  .strictObject({
    iam: form(z.literal(true), 'true').describe(
      'An IAM token of Amazon RDS for each connection. TLS is required with it.',
    ),
    region: form(z.string().regex(REGION), 'a region of AWS such as eu-central-1')
      .optional()
      .describe("The database's region, where the host does not tell it."),
  })
  .transform((entry): PasswordReference => ({ from: 'iam', region: entry.region ?? null }));

/** Schema of a password. */
export const passwordReference = form(
  z.union([fromEnvironment, fromSecretsManager, fromIam]),
  '${env:NAME}, { secret: NAME, key: KEY }, or { iam: true, region: REGION }',
);

function pemText(text: string): PemReference {
  const name = ENV_REFERENCE.exec(text)?.[1];
  if (name !== undefined) return { from: 'env', name };
  return text.trimStart().startsWith(PEM_BEGIN) ? { from: 'text', pem: text } : { from: 'file', path: text };
}

/** Schema of a PEM text that is no secret (certificates). */
export const pemReference = form(
  z.union([z.string().min(1).transform(pemText), fromSecretsManager]),
  'PEM text, the path of a file, ${env:NAME}, or { secret: NAME, key: KEY }',
);

/** The word for the authorities of Amazon RDS in place of certificates. A file of that name is `./rds`. */
const RDS = 'rds';

/** Schema of the certificates that are trusted. */
export const authorityReference = form(
  z.union([
    z
      .string()
      .min(1)
      .transform((text): AuthorityReference => (text === RDS ? { from: 'rds' } : pemText(text))),
    fromSecretsManager,
  ]),
  '`rds`, PEM text, the path of a file, ${env:NAME}, or { secret: NAME, key: KEY }',
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

/**
 * Options of a connection, the same for source and target. Names follow tap-postgres and target-postgres.
 * Without a `host` the local engine brings an embedded PostgreSQL of its own; `host` is then null.
 */
import * as z from 'zod';
import { IDENTIFIER_BYTES_MAX } from '../sql-text.ts';
import { hostForm, hostName, portNumber } from './address.ts';
import { form, option, orNull } from './option.ts';
import {
  authorityReference,
  passwordReference,
  pemReference,
  privateKeyReference,
  secretReference,
} from './secret-reference.ts';
import { sshSchema } from './ssh.ts';

/** Leaves room for the fencing token that a window adds, before PostgreSQL cuts application_name at IDENTIFIER_BYTES_MAX. */
const APPLICATION_NAME_MAX = 48;
const CONNECT_TIMEOUT_SECONDS_MAX = 3600;

export const SSL_MODES = ['disable', 'require', 'verify-ca', 'verify-full'] as const;
export type SslMode = (typeof SSL_MODES)[number];

export const identifierForm = `a name of at most ${IDENTIFIER_BYTES_MAX} bytes`;
/** A name of PostgreSQL, as the catalog spells it. */
export const identifier = form(
  z
    .string()
    .min(1)
    .refine((name) => Buffer.byteLength(name) <= IDENTIFIER_BYTES_MAX && !name.includes('\0')),
  identifierForm,
);

const sslOptions = z.strictObject({
  mode: option(z.enum(SSL_MODES).optional(), {
    sentence:
      "How far the server is trusted, as libpq's sslmode: `require` encrypts and believes any server, `verify-ca` wants a certificate of the authorities in `ca`, `verify-full` one that is also for the server's name.",
    default_text: '`verify-ca` with a `ca`, else `require`',
  }),
  ca: option(orNull(authorityReference), {
    sentence:
      'Certificates of the authorities that are trusted: PEM text, a file, a secret, or `rds` for those of Amazon RDS and RDS Proxy, which come with Sluice. Left out with `verify-full`: the public authorities.',
    example: './ca.pem',
  }),
  cert: option(orNull(pemReference), {
    sentence: "The client's certificate, with those between it and its authority: PEM text, a file, or a secret.",
    example: './client.crt',
  }),
  key: option(orNull(privateKeyReference), {
    sentence: "The client certificate's private key: a file or a secret, never its text.",
    example: '{ secret: prod/client-key }',
    secret: true,
  }),
  key_password: option(orNull(secretReference), {
    sentence: 'Passphrase of the private key, where that is encrypted.',
    example: '${env:KEY_PASSWORD}',
    secret: true,
  }),
  server_name: option(orNull(z.string().min(1).max(253)), {
    sentence:
      'Name that the server must prove with `verify-full`, where it is not `host`. An IAM token is signed for it as well.',
    example: 'db.internal',
  }),
});

/** TLS of a connection; `mode: 'disable'` is none, and all else is null then. */
export type SslConfig = Omit<z.output<typeof sslOptions>, 'mode'> & { readonly mode: SslMode };

const NO_SSL: SslConfig = { mode: 'disable', ca: null, cert: null, key: null, key_password: null, server_name: null };

const ssl = z.union([
  z.boolean().transform((on): SslConfig => (on ? { ...NO_SSL, mode: 'require' } : NO_SSL)),
  sslOptions.transform((given): SslConfig => ({ ...given, mode: given.mode ?? (given.ca ? 'verify-ca' : 'require') })),
]);

export const connectionOptions = {
  host: option(orNull(hostName), {
    sentence: 'Name or address of the server. Left out: the local engine starts an embedded PostgreSQL.',
    form: hostForm,
    default_text: 'embedded (local engine only)',
    example: 'db.internal',
  }),
  port: option(portNumber.default(5432), { sentence: 'TCP port of the server.' }),
  user: option(identifier.optional(), {
    sentence: 'Role to connect as.',
    default_text: 'required with `host`',
    example: 'sluice',
  }),
  password: option(orNull(passwordReference), {
    sentence:
      'Where the password comes from; left out where the server asks for none. `{ iam: true }` makes an IAM token of Amazon RDS for each connection; it needs `ssl`.',
    default_text: 'none',
    example: '${env:SOURCE_PASSWORD}',
    secret: true,
  }),
  database: option(identifier.optional(), {
    sentence: 'Database to connect to.',
    default_text: 'required with `host`',
    example: 'shop',
  }),
  connect_timeout_seconds: option(
    z
      .int()
      .max(CONNECT_TIMEOUT_SECONDS_MAX)
      .transform((seconds) => Math.max(0, seconds))
      .prefault(30),
    { sentence: 'How long to wait for the server to answer; 0 or less waits without end.', unit: 'seconds' },
  ),
  application_name: option(
    z
      .string()
      .min(1)
      .max(APPLICATION_NAME_MAX)
      .regex(/^[ -~]+$/)
      .optional(),
    {
      sentence: 'Name under which the connection shows on the server (pg_stat_activity).',
      form: `at most ${APPLICATION_NAME_MAX} characters of printable ASCII`,
      default_text: '`sluice/<pipeline>`',
      example: 'sluice/shop',
    },
  ),
  ssl: option(ssl.default(NO_SSL), {
    sentence: 'TLS: `true` means `{ mode: require }`.',
    form: 'true, false, or a map with mode, ca, cert, key, key_password, server_name',
    default_text: 'off',
    example: '{ mode: verify-full, ca: ./ca.pem }',
  }),
  ssh: option(orNull(sshSchema), {
    sentence:
      'An SSH tunnel to `host` and `port`, as the SSH server sees them: one SSH connection for each connection to the database, replica and replication included.',
    form: 'a map with host, port, user, private_key, passphrase, host_key',
    default_text: 'none',
    example: '{ host: bastion, user: tunnel, private_key: { secret: prod/bastion-key }, host_key: "SHA256:…" }',
  }),
} as const;

/** Options of `ssl` as a map, for the reference page. */
export const sslSchema = sslOptions;

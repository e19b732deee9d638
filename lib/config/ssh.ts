/**
 * Options of the SSH tunnel of a connection, the same for source and target: a server that is trusted by its fingerprint alone, and a private key.
 */
import * as z from 'zod';
import { hostForm, hostName, portNumber } from './address.ts';
import { option, orNull } from './option.ts';
import { privateKeyReference, secretReference } from './secret-reference.ts';

const SSH_PORT = 22;
const USER_MAX = 255;
/** SHA-256 in base64 without its padding. */
const FINGERPRINT = /^SHA256:[A-Za-z0-9+/]{43}$/;

export const sshSchema = z.strictObject({
  host: option(hostName, {
    sentence: 'Name or address of the SSH server.',
    form: hostForm,
    default_text: 'required',
    example: 'bastion.example.com',
  }),
  port: option(portNumber.default(SSH_PORT), { sentence: 'TCP port of the SSH server.' }),
  user: option(z.string().min(1).max(USER_MAX), {
    sentence: 'Account on the SSH server; it needs no shell, only forwarding (TCP).',
    default_text: 'required',
    example: 'tunnel',
  }),
  private_key: option(privateKeyReference, {
    sentence: "The account's private key, as `ssh-keygen` writes it: a file or a secret, never its text.",
    default_text: 'required',
    example: '{ secret: prod/bastion-key }',
    secret: true,
  }),
  passphrase: option(orNull(secretReference), {
    sentence: 'Passphrase of the private key.',
    default_text: 'none',
    example: '${env:SSH_PASSPHRASE}',
    secret: true,
  }),
  host_key: option(z.string().regex(FINGERPRINT), {
    sentence:
      "Fingerprint of one of the SSH server's host keys, as `ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub` prints it there. A server that cannot prove that key is not talked to.",
    form: 'SHA256: and 43 characters, as ssh-keygen -lf prints it',
    default_text: 'required',
    example: 'SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU',
  }),
});

export type SshConfig = z.output<typeof sshSchema>;

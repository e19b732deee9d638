/**
 * Faults of an SSH tunnel (option `ssh` of a connection), told apart by what a person has to do.
 */
import type { Entry } from './entry.ts';

export const SSH_ERRORS = {
  SSH_UNREACHABLE: {
    disposition: 'retry',
    meaning: (f) => `The SSH server ${f.host}:${f.port} of the ${f.side} cannot be reached: ${f.reason}`,
    remedy: (f) =>
      `Check ${f.side}.ssh.host and ${f.side}.ssh.port, the network, and that sshd runs and listens there.`,
  },
  SSH_HOST_KEY: {
    disposition: 'halt',
    meaning: (f) =>
      `The SSH server ${f.host}:${f.port} of the ${f.side} is not the one that is pinned: ${f.side}.ssh.host_key is ${f.expected}, and it has ${f.found}.`,
    remedy: (f) =>
      `Somebody may be in between. Ask on the server itself (ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub); only if it prints that fingerprint, write it into ${f.side}.ssh.host_key.`,
  },
  SSH_KEY_UNREADABLE: {
    disposition: 'halt',
    meaning: (f) => `The private key of ${f.side}.ssh cannot be used: ${f.reason}.`,
    remedy: (f) => `Correct what ${f.side}.ssh.private_key and ${f.side}.ssh.passphrase name.`,
  },
  SSH_KEY_REFUSED: {
    disposition: 'halt',
    meaning: (f) =>
      `The SSH server ${f.host}:${f.port} of the ${f.side} refuses user ${f.user} with this key: ${f.reason}`,
    remedy: (f) =>
      `Put the public key into authorized_keys of ${f.user} there, or correct ${f.side}.ssh.user and ${f.side}.ssh.private_key.`,
  },
  SSH_FORWARDING_REFUSED: {
    disposition: 'halt',
    meaning: (f) =>
      `The SSH server ${f.host}:${f.port} of the ${f.side} does not let user ${f.user} through to ${f.to}: ${f.reason}`,
    remedy: () =>
      'Allow it there: AllowTcpForwarding and PermitOpen in sshd_config, and no-port-forwarding or permitopen in authorized_keys.',
  },
} as const satisfies Record<string, Entry>;

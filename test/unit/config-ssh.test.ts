/**
 * ssh, failover and default_target_schema_select_permissions as the file says them: forms, defaults, and what is refused when it is read.
 */
import { describe, expect, test } from 'vitest';
import { readPipeline } from '../../lib/config/read.ts';
import { resolveConnection, type SecretReaders } from '../../lib/config/secrets.ts';
import { HEAD, SOURCE, TARGET, testFaults } from '../support/config-cases.ts';

const HOST_KEY = `SHA256:${'a'.repeat(43)}`;
const ssh = (more = '', host_key = `host_key: "${HOST_KEY}"`, private_key = 'private_key: ./id_ed25519') =>
  `  ssh: { host: bastion, user: tunnel, ${private_key}, ${host_key}${more} }\n`;

testFaults([
  [
    'a tunnel without a pinned key',
    `${HEAD}${SOURCE}  ssh: { host: bastion, user: tunnel, private_key: ./id }\n`,
    '7:3',
    'source.ssh.host_key is missing.',
    'for example host_key: SHA256:',
  ],
  [
    'a fingerprint of another kind',
    `${HEAD}${TARGET}${ssh('', 'host_key: "16:27:ac:a5:76:28:2d:36:63:1b:56:4d:eb:df:a6:48"')}`,
    '7:76',
    'target.ssh.host_key must be SHA256: and 43 characters, as ssh-keygen -lf prints it',
    'SHA256:',
  ],
  [
    'the text of a private key in the file',
    `${HEAD}${SOURCE}${ssh('', undefined, 'private_key: "-----BEGIN OPENSSH PRIVATE KEY-----"')}`,
    '7:52',
    'source.ssh.private_key is written out, and a secret is never in the file.',
    'private_key: { secret: NAME, key: KEY }',
  ],
  [
    'the text of a passphrase in the file',
    `${HEAD}${SOURCE}${ssh(', passphrase: open')}`,
    '7:142',
    'source.ssh.passphrase is written out, and a secret is never in the file.',
    'passphrase: { secret: NAME, key: KEY }',
  ],
  ['a tunnel to nowhere', `${HEAD}source:\n${ssh()}`, '3:1', 'source.host is missing beside source.ssh.', 'Add it'],
  [
    'no role at all',
    `${HEAD}${TARGET}  default_target_schema_select_permissions: []\n`,
    '7:45',
    'target.default_target_schema_select_permissions must be the name of a role, or a list of them',
    '[analysts, dashboards]',
  ],
]);

const read = (more: string) => readPipeline(`${HEAD}${SOURCE}${more}`, 'pipeline.yaml');
const into = (more: string) => readPipeline(`${HEAD}${TARGET}${more}`, 'pipeline.yaml').target;

describe('ssh', () => {
  test('has port 22, and reaches the connection with its secrets', async () => {
    const { source } = read(ssh(', passphrase: "${env:PASS}"'));
    expect(source.ssh?.port).toBe(22);
    const files: string[] = [];
    const key = '-----BEGIN OPENSSH PRIVATE KEY-----\nx\n-----END OPENSSH PRIVATE KEY-----\n';
    const reject = () => Promise.reject(new Error('not asked for'));
    const readers: SecretReaders = {
      env: { PASS: 'open sesame' },
      readFile: (path) => {
        files.push(path);
        return Promise.resolve(key);
      },
      readSecret: reject,
      readAuthorities: reject,
      signToken: reject,
    };
    expect((await resolveConnection(source, 'source', readers)).ssh).toEqual({
      host: 'bastion',
      port: 22,
      user: 'tunnel',
      private_key: key,
      passphrase: 'open sesame',
      host_key: HOST_KEY,
    });
    expect(files).toEqual(['./id_ed25519']);
    const unset = resolveConnection(source, 'source', { ...readers, env: {} });
    await expect(unset).rejects.toMatchObject({ code: 'SECRET_UNREADABLE', facts: { path: 'source.ssh.passphrase' } });
    expect(read('').source.ssh).toBeNull();
  });
});

test('one name behind two SSH servers is not one database', () => {
  const side = (name: string, host: string) =>
    `${name}:\n  host: localhost\n  user: u\n  database: d\n  ssh: { host: ${host}, user: t, private_key: ./id, host_key: "${HOST_KEY}" }\n`;
  const file = (from: string, to: string) => `${HEAD}${side('source', from)}${side('target', to)}`;
  expect(readPipeline(file('one', 'other'), 'pipeline.yaml').target.ssh?.host).toBe('other');
  expect(() => readPipeline(file('one', 'ONE'), 'pipeline.yaml')).toThrow(/in the database that it is read from/);
});

test('failover is off where it is not said, and left alone where the slot is of another', () => {
  expect(read('').source.failover).toBe(false);
  expect(read('  failover: true\n').source.failover).toBe(true);
  expect(read('  create_slot: false\n').source.failover).toBeNull();
  expect(read('  create_slot: false\n  failover: false\n').source.failover).toBe(false);
});

test('default_target_schema_select_permissions takes one role, or several, each once', () => {
  const roles = (text: string) => into(text).default_target_schema_select_permissions;
  expect(roles('')).toEqual([]);
  expect(roles('  default_target_schema_select_permissions: analysts\n')).toEqual(['analysts']);
  expect(roles('  default_target_schema_select_permissions: [b, a, b]\n')).toEqual(['b', 'a']);
});

/**
 * What is told of faults: all of them at once, in the order of the file, and never a secret.
 */
import { describe, expect, test } from 'vitest';
import { readPipeline } from '../../lib/config/read.ts';
import { SluiceError } from '../../lib/errors.ts';
import { faultsOf, HEAD, SOURCE, TARGET } from '../support/config-cases.ts';

const PASSWORD = 'hunter2-of-the-test';

describe('a secret that stands in the file', () => {
  test.each([
    [
      'password',
      `${HEAD}${SOURCE}  password: ${PASSWORD}\n`,
      'source.password is written out',
      '${env:SOURCE_PASSWORD}',
    ],
    [
      'password of the target',
      `${HEAD}${TARGET}  password: "${PASSWORD}"\n`,
      'target.password is written out',
      '${env:TARGET_PASSWORD}',
    ],
    [
      'password in a list',
      `${HEAD}${SOURCE}  password: [${PASSWORD}]\n`,
      'source.password names no secret',
      '${env:SOURCE_PASSWORD}',
    ],
    [
      'password beside a reference',
      `${HEAD}${SOURCE}  password: \${env:A}${PASSWORD}\n`,
      'source.password is written out',
      '${env:SOURCE_PASSWORD}',
    ],
    [
      'password as the name of a secret',
      `${HEAD}${SOURCE}  password: { secret: [${PASSWORD}] }\n`,
      'source.password.secret must be text',
      '',
    ],
    [
      'private key',
      `${HEAD}${SOURCE}  ssl: { cert: c, key: "-----BEGIN PRIVATE KEY-----\\n${PASSWORD}" }\n`,
      'source.ssl.key is written out',
      'path of a file',
    ],
    [
      'passphrase',
      `${HEAD}${SOURCE}  ssl: { cert: c, key: k, key_password: ${PASSWORD} }\n`,
      'source.ssl.key_password is written out',
      '${env:SOURCE_KEY_PASSWORD}',
    ],
    [
      'URL as host',
      `${HEAD}source:\n  host: postgres://u:${PASSWORD}/x@h/d\n  user: u\n  database: d\n`,
      'source.host must be',
      '',
    ],
    [
      'connection string as host',
      `${HEAD}source:\n  host: "host=h password=${PASSWORD}"\n  user: u\n  database: d\n`,
      'source.host must be',
      '',
    ],
    ['misspelt key', `${HEAD}${SOURCE}  pasword: ${PASSWORD}\n`, 'source.pasword is not an option', 'password'],
    ['broken syntax', `${HEAD}${SOURCE}  password: 'a'${PASSWORD}'\n`, 'This is not valid YAML', ''],
    ['twice', `${HEAD}${SOURCE}  password: ${PASSWORD}\n  password: ${PASSWORD}\n`, 'The key stands twice', ''],
    ['wrong tag', `${HEAD}${SOURCE}  password: !${PASSWORD} x\n`, 'A tag (!) is not known', ''],
    ['alias', `${HEAD}${SOURCE}  password: *${PASSWORD}\n`, 'is an alias', ''],
  ])('%s is refused and not told', (_name, text, problem, remedy) => {
    const told = faultsOf(text).join('\n');
    expect(told).toContain(problem);
    expect(told).toContain(remedy);
    expect(told).not.toContain(PASSWORD);
  });

  test('a number is no password either', () => {
    const told = faultsOf(`${HEAD}${SOURCE}  password: 83649271\n`).join('\n');
    expect(told).toContain('source.password is written out');
    expect(told).not.toContain('83649271');
  });
});

describe('the error', () => {
  const failing = (text: string): SluiceError => {
    try {
      readPipeline(text, 'shop.yaml');
    } catch (error) {
      if (error instanceof SluiceError) return error;
    }
    throw new Error('no SluiceError');
  };

  test('of one fault has its place in the message and its remedy', () => {
    const error = failing(`${HEAD}${SOURCE}  prot: 1\n`);
    expect(error.code).toBe('CONFIG_INVALID');
    expect(error.disposition).toBe('usage');
    expect(error.message).toBe('The pipeline file is not valid: shop.yaml:7:3  source.prot is not an option.');
    expect(error.remedy).toBe('Did you mean port?');
  });

  test('of many faults lists them all in the order of the file, those of keys, values and rules alike', () => {
    const error = failing(`pipeline: Shop
tables: [orders]
target: { user: u }
source: { prot: 1 }
schedule: { every: 1 hour, cron: 0 6 * * ? * }
`);
    expect(error.message.split('\n').map((line) => line.trim().split('  ')[0])).toEqual([
      'The pipeline file is not valid: 5 faults',
      'shop.yaml:1:11',
      'shop.yaml:2:10',
      'shop.yaml:3:1',
      'shop.yaml:4:11',
      'shop.yaml:5:28',
    ]);
    expect(error.message).toContain('Did you mean port?');
  });

  test('of very many faults names the first', () => {
    const tables = Array.from({ length: 100 }, (_, i) => `  - t${i}`).join('\n');
    const lines = failing(`pipeline: shop\ntables:\n${tables}\n`).message.split('\n');
    expect(lines).toHaveLength(32);
    expect(lines.at(-1)).toBe('  and 70 more');
  });
});

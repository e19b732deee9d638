/**
 * Options of a connection that contradict each other, or that would look safer than they are.
 */
import { describe, expect, test } from 'vitest';
import { iamRegion } from '../../lib/config/iam.ts';
import { readPipeline } from '../../lib/config/read.ts';
import { HEAD, SOURCE, TARGET, testFaults } from '../support/config-cases.ts';

const RDS_SOURCE = SOURCE.replace('host: h', 'host: shop.c1.eu-central-1.rds.amazonaws.com');
const TOKEN = '  password: { iam: true }\n  ssl: true\n';

testFaults([
  [
    'ssl.mode verify-ca with nobody to trust',
    `${HEAD}${SOURCE}  ssl: { mode: verify-ca }\n`,
    '7:16',
    'source.ssl.mode is verify-ca without source.ssl.ca: a public authority gives everybody a certificate.',
    'Give ca',
  ],
  ...['ca: ./ca.pem', 'server_name: db', 'cert: c, key: k', 'key_password: "${env:P}", cert: c, key: k'].map(
    (given) =>
      [
        `ssl.mode disable beside ${given}`,
        `${HEAD}${SOURCE}  ssl: { mode: disable, ${given} }\n`,
        '7:16',
        ' is given, and source.ssl.mode: disable means no TLS at all',
        'source.ssl: false',
      ] as const,
  ),
  [
    'ssl.server_name that nobody checks',
    `${HEAD}${TARGET}  ssl: { ca: c, server_name: db.internal }\n`,
    '7:17',
    'target.ssl.server_name is given, and no name is checked with target.ssl.mode: verify-ca.',
    'mode: verify-full',
  ],
  [
    'an IAM token in the clear',
    `${HEAD}${RDS_SOURCE}  password: { iam: true }\n`,
    '7:13',
    'source.password is an IAM token, and source.ssl is off: a token is taken over TLS only.',
    'ssl: { mode: verify-full, ca: rds }',
  ],
  [
    'an IAM token of no known region',
    `${HEAD}${SOURCE}${TOKEN}`,
    '7:13',
    'source.password is an IAM token, and source.host does not tell the region.',
    'region: eu-central-1',
  ],
  [
    'an IAM token for a server_name of no known region',
    `${HEAD}${RDS_SOURCE}  password: { iam: true }\n  ssl: { mode: verify-full, server_name: db.internal }\n`,
    '7:13',
    'source.password is an IAM token, and source.ssl.server_name does not tell the region.',
    'region: eu-central-1',
  ],
  [
    'an IAM token for slot_reader: stream',
    `${HEAD}${RDS_SOURCE}${TOKEN}  slot_reader: stream\n`,
    '9:16',
    'source.slot_reader is stream, a replication connection, which takes no IAM token.',
    'slot_reader: peek',
  ],
  [
    'an IAM token for tables without a key',
    `${HEAD}${RDS_SOURCE}${TOKEN}${TARGET}  primary_key_required: false\n`,
    '13:25',
    'the copy of a table without a key needs a replication connection',
    'FULL_TABLE',
  ],
]);

describe('password: { iam: true }', () => {
  test('on the source reads the slot by peek, and needs no more than that', () => {
    const { source } = readPipeline(`${HEAD}${RDS_SOURCE}${TOKEN}`, 'p');
    expect(source.password).toEqual({ from: 'iam', region: null });
    expect(source.slot_reader).toBe('peek');
  });

  test('on the target is no matter of how the slot is read', () => {
    const target = `${TARGET.replace('host: h', 'host: wh')}  password: { iam: true, region: us-gov-west-1 }\n  ssl: true\n`;
    expect(readPipeline(`${HEAD}${SOURCE}  slot_reader: stream\n${target}`, 'p').target.password).toEqual({
      from: 'iam',
      region: 'us-gov-west-1',
    });
  });

  test('where nothing follows the log, no slot is read', () => {
    const tables = 'pipeline: shop\ntables: [{ table: a.b, replication_method: FULL_TABLE }]\n';
    const file = `${tables}${RDS_SOURCE}${TOKEN}  slot_reader: stream\n${TARGET}  primary_key_required: false\n`;
    expect(readPipeline(file, 'p').source.slot_reader).toBe('stream');
  });

  test.each([
    ['shop.c1a2.eu-central-1.rds.amazonaws.com', 'eu-central-1'],
    ['shop.cluster-ro-c1a2.ap-southeast-2.rds.amazonaws.com', 'ap-southeast-2'],
    ['shop.proxy-c1a2.us-gov-west-1.rds.amazonaws.com', 'us-gov-west-1'],
    ['SHOP.C1A2.EU-WEST-3.RDS.AMAZONAWS.COM', 'eu-west-3'],
    ['shop.c1a2.rds.cn-north-1.amazonaws.com.cn', 'cn-north-1'],
    ['shop.c1a2.us-west-2.rds.amazonaws.com.evil.example', null],
    ['db.internal', null],
    ['10.0.0.7', null],
  ])('the region of %s is %s', (host, region) => {
    expect(iamRegion({ from: 'iam', region: null }, host)).toBe(region);
    expect(iamRegion({ from: 'iam', region: 'eu-north-1' }, host)).toBe('eu-north-1');
  });
});

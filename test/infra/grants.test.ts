/**
 * What each role may do, action by action. The list stands here once more, in full: a right that is added must be added in two places, by
 * somebody who has thought about it.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { rejectedObject } from '../../lib/validation/rejected.ts';
import { pipelineYaml, ROOT, resourceOf, resourcesOf, type Synthesized, synthesize } from './support.ts';

interface Statement {
  readonly Effect: string;
  readonly Action: string | readonly string[];
  readonly Resource: unknown;
  readonly Condition?: unknown;
}

const synthesized = synthesize();

const LEDGER_READ = ['dynamodb:GetItem Ledger', 'dynamodb:Query Ledger'];
const LEDGER_PUT = ['dynamodb:PutItem Ledger'];
const LEDGER_UPDATE = ['dynamodb:UpdateItem Ledger'];
const LEDGER_BATCH = ['dynamodb:BatchWriteItem Ledger'];
const RING_LOAD = ['sqs:SendMessage LoadQueue'];
const RING_EXTRACT = ['sqs:SendMessage ExtractQueue'];
const answer = (queue: string): string[] => [
  `sqs:ChangeMessageVisibility ${queue}`,
  `sqs:DeleteMessage ${queue}`,
  `sqs:GetQueueAttributes ${queue}`,
  `sqs:ReceiveMessage ${queue}`,
];
const log = (id: string): string[] => [`logs:CreateLogStream ${id}Logs`, `logs:PutLogEvents ${id}Logs`];
const stageWrite = (...folders: string[]): string[] => [
  ...folders.flatMap((objects) => [
    `s3:AbortMultipartUpload ${objects}`,
    `s3:GetObject ${objects}`,
    `s3:PutObject ${objects}`,
  ]),
  's3:ListBucket Stage',
];
const SOURCE_SECRET = ['secretsmanager:GetSecretValue secret:sluice/shop-source-??????'];
const TARGET_SECRET = ['secretsmanager:GetSecretValue secret:sluice/warehouse-??????'];

test.each([
  [
    'Drain',
    [
      ...log('Drain'),
      ...LEDGER_READ,
      ...LEDGER_PUT,
      ...LEDGER_UPDATE,
      ...LEDGER_BATCH,
      ...stageWrite('Stage/shop/cuts/*', 'Stage/shop/rejected/cuts/*'),
      's3:GetObject Stage/shop/rejected/chunks/*',
      ...RING_LOAD,
      ...RING_EXTRACT,
      ...SOURCE_SECRET,
    ],
  ],
  [
    'Extract',
    [
      ...log('Extract'),
      ...LEDGER_READ,
      ...LEDGER_PUT,
      ...LEDGER_UPDATE,
      ...LEDGER_BATCH,
      ...stageWrite('Stage/shop/chunks/*', 'Stage/shop/rejected/chunks/*'),
      ...RING_LOAD,
      ...RING_EXTRACT,
      ...answer('ExtractQueue'),
      ...SOURCE_SECRET,
      ...TARGET_SECRET,
    ],
  ],
  [
    'Load',
    [
      ...log('Load'),
      ...LEDGER_READ,
      ...LEDGER_PUT,
      ...LEDGER_UPDATE,
      ...LEDGER_BATCH,
      's3:AbortMultipartUpload Stage/shop/rejected/loads/*',
      's3:PutObject Stage/shop/rejected/loads/*',
      's3:GetObject Stage/shop/*',
      's3:ListBucket Stage',
      ...RING_LOAD,
      ...RING_EXTRACT,
      ...answer('LoadQueue'),
      ...TARGET_SECRET,
    ],
  ],
  [
    'Backfill',
    [
      ...log('Backfill'),
      ...LEDGER_READ,
      ...LEDGER_PUT,
      ...LEDGER_UPDATE,
      ...LEDGER_BATCH,
      ...RING_LOAD,
      ...RING_EXTRACT,
      ...SOURCE_SECRET,
    ],
  ],
  [
    'Operate',
    [
      ...log('Operate'),
      ...LEDGER_READ,
      ...LEDGER_PUT,
      ...LEDGER_UPDATE,
      ...LEDGER_BATCH,
      's3:GetObject Stage/shop/rejected/*',
      's3:ListBucket Stage',
      ...RING_LOAD,
      ...RING_EXTRACT,
    ],
  ],
  ['Window', ['lambda:InvokeFunction Drain']],
])('%s may do this and nothing else', (id, expected) => {
  expect(rightsOf(synthesized, id)).toEqual([...expected].sort());
});

/** Goal: what is written is what may be written. Method: the names are made in one function, whose calls are read here. */
test('objects of the stage are named as the grants say', () => {
  const source = readFileSync(join(ROOT, 'lib/pipeline.ts'), 'utf8');
  const folders = [...source.matchAll(/objectName\(pipeline, ['`](\w+)/g)].map(([, folder]) => folder);
  expect(new Set(folders)).toEqual(new Set(['chunks', 'cuts']));
  expect(source).toContain('return `${pipeline.pipeline}/${folder}/');
  expect(rejectedObject('shop/cuts/7')).toBe('shop/rejected/cuts/7');
});

test('roles have their own policies only: no managed policy, no permissions elsewhere', () => {
  const roles = Object.values(resourcesOf(synthesized.pipeline, 'AWS::IAM::Role'));
  expect(roles).toHaveLength(6);
  for (const { Properties } of roles) {
    expect(Properties.ManagedPolicyArns).toBeUndefined();
    expect(Properties.Policies).toBeUndefined();
  }
  expect(resourcesOf(synthesized.pipeline, 'AWS::Lambda::Permission')).toEqual({});
});

test('the scheduler is trusted for schedules of this account only', () => {
  const { AssumeRolePolicyDocument } = resourceOf(synthesized.pipeline, 'AWS::IAM::Role', 'WindowRole').Properties;
  const { Statement } = AssumeRolePolicyDocument as { Statement: unknown[] };
  expect(Statement).toMatchObject([
    {
      Principal: { Service: 'scheduler.amazonaws.com' },
      Condition: { StringEquals: { 'aws:SourceAccount': { Ref: 'AWS::AccountId' } } },
    },
  ]);
  expect(JSON.stringify(Statement)).toContain('schedule-group/default');
});

describe('with a VPC', () => {
  const inVpc = synthesize({
    context: { vpc: 'vpc-01234567', subnets: 'subnet-01234567', security_groups: 'sg-01234567' },
  });

  test.each(['Drain', 'Extract', 'Load', 'Backfill', 'Operate'])(
    '%s may have network interfaces, and nothing else in addition',
    (id) => {
      const before = new Set(rightsOf(synthesized, id));
      expect(rightsOf(inVpc, id).filter((right) => !before.has(right))).toEqual([
        'ec2:AssignPrivateIpAddresses *',
        'ec2:CreateNetworkInterface *',
        'ec2:DeleteNetworkInterface *',
        'ec2:DescribeNetworkInterfaces *',
        'ec2:DescribeSubnets *',
        'ec2:UnassignPrivateIpAddresses *',
      ]);
    },
  );
});

test('with a key of its own for the secrets, those that read secrets may decrypt by Secrets Manager alone', () => {
  const key = 'arn:aws:kms:eu-central-1:123456789012:key/0f1e2d3c';
  const withKey = synthesize({ context: { secrets_key: key } });
  const decrypting = ['Drain', 'Extract', 'Load', 'Backfill', 'Operate'].filter((id) =>
    rightsOf(withKey, id).includes(`kms:Decrypt ${key}`),
  );
  expect(decrypting).toEqual(['Drain', 'Extract', 'Load', 'Backfill']);
  const conditions = statementsOf(withKey, 'Drain').flatMap(({ Condition }) => Condition ?? []);
  expect(JSON.stringify(conditions)).toMatch(/^\[{"StringEquals":{"kms:ViaService":.*secretsmanager\..*}}\]$/);
});

describe('with IAM tokens', () => {
  const token = (more = '') => `password: { iam: true${more} }`;
  const withTokens = synthesize({
    yaml: pipelineYaml()
      .replace('password: { secret: sluice/shop-source, key: password }', token(', region: eu-west-3'))
      .replace('password: { secret: sluice/warehouse, key: password }', token(', region: us-east-1')),
  });
  const rights = (id: string): string[] => rightsOf(withTokens, id).filter((right) => right.startsWith('rds-db'));
  const source = 'rds-db:connect arn:<AWS::Partition>:rds-db:eu-west-3:<AWS::AccountId>:dbuser:*/sluice';
  const target = 'rds-db:connect arn:<AWS::Partition>:rds-db:us-east-1:<AWS::AccountId>:dbuser:*/loader';

  test.each([
    ['Drain', [source]],
    ['Extract', [source, target]],
    ['Load', [target]],
    ['Backfill', [source]],
    ['Operate', []],
  ])('%s may connect as the role of the databases that it connects to, and as no other', (id, expected) => {
    expect(rights(id)).toEqual(expected);
    expect(rightsOf(withTokens, id).filter((right) => right.startsWith('secretsmanager'))).toEqual([]);
  });

  test('a role whose name is a pattern to IAM is meant by its name', () => {
    const yaml = pipelineYaml()
      .replace('user: sluice', () => 'user: "a*?$"')
      .replace('password: { secret: sluice/shop-source, key: password }', token(', region: eu-west-3'));
    expect(rightsOf(synthesize({ yaml }), 'Drain')).toContain(
      'rds-db:connect arn:<AWS::Partition>:rds-db:eu-west-3:<AWS::AccountId>:dbuser:*/a${*}${?}${$}',
    );
  });
});

/** Every right of a role as `action resource`, sorted. */
function rightsOf(from: Synthesized, id: string): string[] {
  return statementsOf(from, id)
    .flatMap(({ Effect, Action, Resource }) => {
      expect(Effect).toBe('Allow');
      return [Action]
        .flat()
        .flatMap((action) => [Resource].flat().map((resource) => `${action} ${resourceName(resource)}`));
    })
    .sort();
}

function statementsOf({ pipeline }: Synthesized, id: string): readonly Statement[] {
  return Object.values(resourcesOf(pipeline, 'AWS::IAM::Policy'))
    .filter(({ Properties }) => (Properties.Roles as { Ref: string }[]).some(({ Ref }) => Ref.startsWith(`${id}Role`)))
    .flatMap(({ Properties }) => (Properties.PolicyDocument as { Statement: Statement[] }).Statement);
}

/** The template's way to name a resource, as a word: its id in this stack or in the other, or the end of its ARN. */
function resourceName(resource: unknown): string {
  if (typeof resource === 'string') return resource;
  const {
    'Fn::GetAtt': attribute,
    'Fn::ImportValue': imported,
    'Fn::Join': joined,
    Ref,
  } = resource as {
    'Fn::GetAtt'?: [string, string];
    'Fn::ImportValue'?: string;
    'Fn::Join'?: [string, unknown[]];
    Ref?: string;
  };
  if (Ref) return `<${Ref}>`;
  if (attribute) return attribute[0].replace(/[0-9A-F]{8}$/, '');
  if (imported) return /ExportsOutputFnGetAtt(\w+?)[0-9A-F]{8}Arn/.exec(imported)?.[1] ?? imported;
  const text = (joined?.[1] ?? []).map((part) => (typeof part === 'string' ? part : resourceName(part))).join('');
  return text.replace(/^.*:secret:/, 'secret:');
}

/** What must outlive every deployment is kept, encrypted, reachable by TLS alone, and stays the same resource. */
import { describe, expect, test } from 'vitest';
import { FUNCTION_LIMITS, type FunctionName } from '../../infra/aws/limits.ts';
import { pipelineYaml, resourceOf, resourcesOf, synthesize } from './support.ts';

const { state } = synthesize();

test('logical ids are a contract: another id would be another, empty resource', () => {
  const { Resources } = state.toJSON() as { Resources: Record<string, { Type: string }> };
  const kept = ['AWS::S3::Bucket', 'AWS::DynamoDB::Table', 'AWS::SQS::Queue'];
  const ids = Object.entries(Resources).filter(([, { Type }]) => kept.includes(Type));
  expect(Object.fromEntries(ids.map(([id, { Type }]) => [id, Type]))).toEqual({
    Stage0E8C2AF5: 'AWS::S3::Bucket',
    LedgerB7379752: 'AWS::DynamoDB::Table',
    LoadQueue7F77D490: 'AWS::SQS::Queue',
    LoadDlqB0EAB679: 'AWS::SQS::Queue',
    ExtractQueue83C1B7E4: 'AWS::SQS::Queue',
    ExtractDlq4F7EC3A2: 'AWS::SQS::Queue',
  });
});

describe('stage', () => {
  const stage = resourceOf(state, 'AWS::S3::Bucket', 'Stage');

  test('is encrypted and closed to the public', () => {
    expect(stage.Properties).toMatchObject({
      BucketEncryption: {
        ServerSideEncryptionConfiguration: [{ ServerSideEncryptionByDefault: { SSEAlgorithm: 'AES256' } }],
      },
      PublicAccessBlockConfiguration: {
        BlockPublicAcls: true,
        BlockPublicPolicy: true,
        IgnorePublicAcls: true,
        RestrictPublicBuckets: true,
      },
      OwnershipControls: { Rules: [{ ObjectOwnership: 'BucketOwnerEnforced' }] },
    });
  });

  test('is kept when the stack goes', () => {
    expect([stage.DeletionPolicy, stage.UpdateReplacePolicy]).toEqual(['Retain', 'Retain']);
  });

  test('expires objects after stage_retention_days, and forgets uploads that nobody finished', () => {
    const longer = synthesize({ yaml: pipelineYaml({ target: 'stage_retention_days: 30' }) });
    const days = [state, longer.state].map((template) => {
      const { Rules } = resourceOf(template, 'AWS::S3::Bucket', 'Stage').Properties.LifecycleConfiguration as {
        Rules: unknown[];
      };
      return Rules;
    });
    const abort = {
      Id: 'abort-uploads',
      Status: 'Enabled',
      AbortIncompleteMultipartUpload: { DaysAfterInitiation: 1 },
    };
    expect(days).toEqual([
      [{ Id: 'expire', Status: 'Enabled', ExpirationInDays: 14 }, abort],
      [{ Id: 'expire', Status: 'Enabled', ExpirationInDays: 30 }, abort],
    ]);
  });

  test('is denied to whoever comes without TLS 1.2', () => {
    expect(denials('AWS::S3::BucketPolicy', 'StagePolicy')).toEqual([
      { Action: 's3:*', Principal: { AWS: '*' }, Condition: { Bool: { 'aws:SecureTransport': 'false' } } },
      { Action: 's3:*', Principal: { AWS: '*' }, Condition: { NumericLessThan: { 's3:TlsVersion': 1.2 } } },
    ]);
  });
});

test('the ledger has the key of lib/ledger, recovery to any second, encryption, and cannot be deleted by mistake', () => {
  const ledger = resourceOf(state, 'AWS::DynamoDB::Table', 'Ledger');
  expect(ledger.Properties).toMatchObject({
    KeySchema: [
      { AttributeName: 'pk', KeyType: 'HASH' },
      { AttributeName: 'sk', KeyType: 'RANGE' },
    ],
    AttributeDefinitions: [
      { AttributeName: 'pk', AttributeType: 'S' },
      { AttributeName: 'sk', AttributeType: 'S' },
    ],
    BillingMode: 'PAY_PER_REQUEST',
    PointInTimeRecoverySpecification: { PointInTimeRecoveryEnabled: true },
    SSESpecification: { SSEEnabled: true },
    DeletionProtectionEnabled: true,
    TimeToLiveSpecification: { AttributeName: 'expires_at', Enabled: true },
  });
  expect([ledger.DeletionPolicy, ledger.UpdateReplacePolicy]).toEqual(['Retain', 'Retain']);
});

describe.each([
  ['Load', 'load'],
  ['Extract', 'extract'],
] as const)('doorbell %s', (prefix, consumer: FunctionName) => {
  const queue = resourceOf(state, 'AWS::SQS::Queue', `${prefix}Queue`);
  const dlq = resourceOf(state, 'AWS::SQS::Queue', `${prefix}Dlq`);

  test('is FIFO, has a FIFO queue for what fails, and both are encrypted', () => {
    expect(queue.Properties).toMatchObject({
      FifoQueue: true,
      SqsManagedSseEnabled: true,
      ContentBasedDeduplication: false,
    });
    expect(dlq.Properties).toMatchObject({
      FifoQueue: true,
      SqsManagedSseEnabled: true,
      MessageRetentionPeriod: 14 * 86_400,
    });
    const { deadLetterTargetArn, maxReceiveCount } = queue.Properties.RedrivePolicy as {
      deadLetterTargetArn: { 'Fn::GetAtt': [string, string] };
      maxReceiveCount: number;
    };
    const [target] = deadLetterTargetArn['Fn::GetAtt'];
    expect(resourcesOf(state, 'AWS::SQS::Queue')[target]).toEqual(dlq);
    expect(maxReceiveCount).toBeGreaterThanOrEqual(3);
  });

  test('hides a message for at least six timeouts of its function', () => {
    const timeout_s = FUNCTION_LIMITS[consumer].timeout.toSeconds();
    expect(queue.Properties.VisibilityTimeout).toBeGreaterThanOrEqual(6 * timeout_s);
  });

  test.each([`${prefix}QueuePolicy`, `${prefix}DlqPolicy`])('%s denies whoever comes without TLS', (policy) => {
    expect(denials('AWS::SQS::QueuePolicy', policy)).toEqual([
      { Action: 'sqs:*', Principal: { AWS: '*' }, Condition: { Bool: { 'aws:SecureTransport': 'false' } } },
    ]);
  });
});

/** The denying statements of a resource's policy, without what they are about; there are no others. */
function denials(type: string, id: string): unknown[] {
  const { Statement } = resourceOf(state, type, id).Properties.PolicyDocument as {
    Statement: Record<string, unknown>[];
  };
  return Statement.map(({ Effect, Action, Principal, Condition }) => {
    expect(Effect).toBe('Deny');
    return { Action, Principal, Condition };
  });
}

/** The functions and what wakes them: runtime, limits and the rules between them, retries, concurrency, logs, VPC. */
import { describe, expect, test } from 'vitest';
import { networkIdsOf } from '../../infra/aws/network.ts';
import { concurrencyOf } from '../../infra/aws/pipeline-stack.ts';
import { pipelineYaml, type Resource, resourceOf, resourcesOf, synthesize } from './support.ts';

const { state, pipeline } = synthesize();
const IDS = ['Drain', 'Extract', 'Load', 'Backfill', 'Operate'] as const;

interface FunctionProperties {
  readonly Timeout: number;
  readonly Environment: { readonly Variables: Readonly<Record<string, unknown>> };
  readonly ReservedConcurrentExecutions?: number;
  readonly VpcConfig?: unknown;
}

const functionOf = (id: string, template = pipeline): Resource => resourceOf(template, 'AWS::Lambda::Function', id);
const propertiesOf = (id: string, template = pipeline): FunctionProperties =>
  functionOf(id, template).Properties as unknown as FunctionProperties;

test('there are these functions and no other: nothing that CDK brings along for itself', () => {
  expect(Object.keys(resourcesOf(pipeline, 'AWS::Lambda::Function'))).toHaveLength(IDS.length);
  expect(IDS.map((id) => functionOf(id).Type)).toEqual(IDS.map(() => 'AWS::Lambda::Function'));
});

describe.each(IDS)('%s', (id) => {
  test('runs on nodejs24.x and arm64, without tracing, and logs JSON', () => {
    const { TracingConfig, ...properties } = functionOf(id).Properties;
    expect(properties).toMatchObject({
      Runtime: 'nodejs24.x',
      Architectures: ['arm64'],
      Handler: 'index.handler',
      LoggingConfig: { LogFormat: 'JSON', ApplicationLogLevel: 'INFO', SystemLogLevel: 'INFO' },
    });
    expect(TracingConfig).toBeUndefined();
  });

  test('keeps its logs for a month', () => {
    const logs = resourceOf(pipeline, 'AWS::Logs::LogGroup', `${id}Logs`);
    expect(logs.Properties.RetentionInDays).toBe(30);
  });

  test('knows where its pipeline, ledger, stage and queues are, and nothing else', () => {
    const { Variables } = propertiesOf(id).Environment;
    expect(Object.keys(Variables).sort()).toEqual([
      'SLUICE_BUCKET',
      'SLUICE_CONFIG',
      'SLUICE_EXTRACT_QUEUE_URL',
      'SLUICE_LEASE_MS',
      'SLUICE_LOAD_QUEUE_URL',
      'SLUICE_TABLE',
    ]);
    expect(Variables.SLUICE_CONFIG).toBe('/var/task/pipeline.json');
  });
});

describe('one slot, one reader', () => {
  test('drain alone has a reserved concurrency, of 1', () => {
    expect(IDS.map((id) => [id, propertiesOf(id).ReservedConcurrentExecutions])).toEqual([
      ['Drain', 1],
      ['Extract', undefined],
      ['Load', undefined],
      ['Backfill', undefined],
      ['Operate', undefined],
    ]);
  });

  test('the lease outlives a window', () => {
    const { Timeout, Environment } = propertiesOf('Drain');
    expect(Number(Environment.Variables.SLUICE_LEASE_MS)).toBeGreaterThan(Timeout * 1000);
  });

  test('a window that failed is not run again by Lambda or by Scheduler, and a late one not at all', () => {
    const invoke = Object.values(resourcesOf(pipeline, 'AWS::Lambda::EventInvokeConfig')).map(
      ({ Properties }) => Properties,
    );
    const [drain, ...others] = invoke.filter(({ FunctionName }) =>
      (FunctionName as { Ref: string }).Ref.startsWith('Drain'),
    );
    expect(drain).toMatchObject({ MaximumRetryAttempts: 0, MaximumEventAgeInSeconds: 60, Qualifier: '$LATEST' });
    expect(others).toEqual([]);
    expect(invoke.map(({ MaximumRetryAttempts }) => MaximumRetryAttempts)).toEqual([0, 0, 0]);
    const { RetryPolicy } = resourceOf(pipeline, 'AWS::Scheduler::Schedule', 'Window').Properties.Target as {
      RetryPolicy: unknown;
    };
    expect(RetryPolicy).toEqual({ MaximumRetryAttempts: 0, MaximumEventAgeInSeconds: 60 });
  });
});

describe.each(['Load', 'Extract'])('doorbell of %s', (id) => {
  const mapping = mappingOf(id);

  test('brings one message at a time, and takes the report of those that failed', () => {
    expect(mapping).toMatchObject({ BatchSize: 1, FunctionResponseTypes: ['ReportBatchItemFailures'] });
    expect(JSON.stringify(mapping.EventSourceArn)).toContain(`${id}Queue`);
  });

  test('hides the message for at least six timeouts of the function that it wakes', () => {
    const { VisibilityTimeout } = resourceOf(state, 'AWS::SQS::Queue', `${id}Queue`).Properties;
    expect(VisibilityTimeout).toBeGreaterThanOrEqual(6 * propertiesOf(id).Timeout);
  });
});

describe('loaders at once', () => {
  test.each([
    [0, 16, 16],
    [0, 40, 40],
    [-1, 7, 7],
    [5, 16, 5],
    [50, 20, 20],
    [1, 16, 2],
    [0, 1, 2],
  ])('with parallelism %i and at most %i: %i', (parallelism, max_parallelism, expected) => {
    expect(concurrencyOf({ parallelism, max_parallelism })).toBe(expected);
  });

  test("are the event sources' maximum concurrency", () => {
    const yaml = pipelineYaml({ target: 'parallelism: 5' });
    const mappings = Object.values(resourcesOf(synthesize({ yaml }).pipeline, 'AWS::Lambda::EventSourceMapping'));
    expect(mappings.map(({ Properties }) => Properties.ScalingConfig)).toEqual([
      { MaximumConcurrency: 5 },
      { MaximumConcurrency: 5 },
    ]);
  });
});

describe('VPC', () => {
  const ids = {
    vpc: 'vpc-0123456789abcdef0',
    subnets: 'subnet-0123456789abcdef0, subnet-0123456789abcdef1',
    security_groups: 'sg-0123456789abcdef0',
  };

  test('none without context', () => {
    expect(IDS.map((id) => propertiesOf(id).VpcConfig)).toEqual(IDS.map(() => undefined));
  });

  test('every function stands in the subnets and security groups of the context', () => {
    const { pipeline: template } = synthesize({ context: ids });
    for (const id of IDS) {
      expect(propertiesOf(id, template).VpcConfig).toEqual({
        SubnetIds: ['subnet-0123456789abcdef0', 'subnet-0123456789abcdef1'],
        SecurityGroupIds: ['sg-0123456789abcdef0'],
      });
    }
    expect(Object.keys(template.findResources('AWS::EC2::SecurityGroup'))).toEqual([]);
  });

  test('lists from cdk.json do as well as text with commas', () => {
    const lists = { ...ids, subnets: ids.subnets.split(', ') };
    expect(networkIdsOf((key) => lists[key as keyof typeof ids])).toEqual(
      networkIdsOf((key) => ids[key as keyof typeof ids]),
    );
  });

  test.each([
    [{ vpc: ids.vpc }, 'missing: subnets, security_groups'],
    [{ ...ids, security_groups: '' }, 'missing: security_groups'],
    [{ ...ids, subnets: 'sg-0123456789abcdef0' }, 'subnets holds "sg-0123456789abcdef0"'],
    [{ ...ids, vpc: 'vpc-01234567,vpc-89abcdef' }, 'more than one VPC'],
    [{ alarm_topic: 'ops' }, 'alarm_topic is no ARN of sns: ops'],
    [{ secrets_key: 'alias/aws/secretsmanager' }, 'secrets_key is no ARN of kms: alias/aws/secretsmanager'],
  ])('context %j is refused', (context, problem) => {
    expect(() => synthesize({ context })).toThrow(problem);
  });
});

function mappingOf(id: string): Readonly<Record<string, unknown>> {
  const found = Object.values(resourcesOf(pipeline, 'AWS::Lambda::EventSourceMapping'))
    .map(({ Properties }) => Properties)
    .filter(({ FunctionName }) => (FunctionName as { Ref: string }).Ref.startsWith(id));
  expect(found).toHaveLength(1);
  return found[0] ?? {};
}

/**
 * What does the work and can be made anew at any time: the five functions, what wakes them, and what watches them. Their state is
 * in the stateful stack.
 */
import { CfnOutput, RemovalPolicy, Stack, type StackProps, Validations } from 'aws-cdk-lib';
import { PolicyStatement, Role, ServicePrincipal } from 'aws-cdk-lib/aws-iam';
import {
  ApplicationLogLevel,
  Architecture,
  Function as LambdaFunction,
  LoggingFormat,
  RecursiveLoop,
  Runtime,
  SystemLogLevel,
  Tracing,
} from 'aws-cdk-lib/aws-lambda';
import { LogGroup, RetentionDays } from 'aws-cdk-lib/aws-logs';
import { Schedule, ScheduleTargetInput } from 'aws-cdk-lib/aws-scheduler';
import { LambdaInvoke } from 'aws-cdk-lib/aws-scheduler-targets';
import type { Construct } from 'constructs';
import type { TargetConfig } from '../../lib/config/schema.ts';
import { bundleOf, HANDLER, PIPELINE_PATH } from './bundle.ts';
import { type GrantTargets, RIGHTS, stageObjects, statementsOf, tokenUsersOf } from './grants.ts';
import {
  DRAIN_CONCURRENCY,
  FUNCTION_LIMITS,
  FUNCTION_NAMES,
  type FunctionName,
  LEASE,
  SOURCE_CONCURRENCY_MAX,
  SOURCE_CONCURRENCY_MIN,
  WINDOW_EVENT_AGE_MAX,
} from './limits.ts';
import { Monitoring } from './monitoring.ts';
import { type Network, type NetworkIds, networkOf } from './network.ts';
import type { DeployedPipeline } from './pipeline-file.ts';
import { expressionsOf, longestGap, tableExpressionsOf } from './schedule.ts';
import type { StatefulStack } from './stateful-stack.ts';

export interface PipelineStackProps extends StackProps {
  readonly deployed: DeployedPipeline;
  readonly state: StatefulStack;
  /** Directory that has `<function>.ts` for each function. */
  readonly functions_dir: string;
  /** Directory of the cloud assembly. */
  readonly assembly_dir: string;
  readonly network: NetworkIds | null;
  readonly alarm_topic_arn: string | null;
  readonly secrets_key_arn: string | null;
}

/** Ids of constructs are a contract (design §4): they are these names, and stay. */
const IDS = {
  drain: 'Drain',
  extract: 'Extract',
  load: 'Load',
  backfill: 'Backfill',
  operate: 'Operate',
} as const satisfies Record<FunctionName, string>;

const DESCRIPTIONS: Readonly<Record<FunctionName, string>> = {
  drain: 'One window: drains the slot into stage and ledger',
  extract: 'Plans and reads the chunks of an epoch',
  load: 'Applies staged changes and chunks to the target',
  backfill: 'Opens epochs on request',
  operate: 'Status and resume, on request',
};

export class PipelineStack extends Stack {
  readonly functions: Readonly<Record<FunctionName, LambdaFunction>>;

  constructor(scope: Construct, id: string, props: PipelineStackProps) {
    super(scope, id, props);
    const { pipeline } = props.deployed;
    const network = networkOf(this, props.network);
    const make = (name: FunctionName): LambdaFunction => sluiceFunction(this, name, network, props);
    this.functions = {
      drain: make('drain'),
      extract: make('extract'),
      load: make('load'),
      backfill: make('backfill'),
      operate: make('operate'),
    };
    scheduleWindows(this, this.functions.drain, props.deployed);
    for (const name of ['load', 'extract'] as const)
      answerDoorbell(this.functions[name], props.state[name].queue.queueArn, pipeline.target);
    new Monitoring(this, 'Monitoring', {
      pipeline: pipeline.pipeline,
      functions: this.functions,
      queues: props.state,
      gap_ms: longestGap(pipeline.schedule),
      topic_arn: props.alarm_topic_arn,
    });
    for (const name of FUNCTION_NAMES) {
      new CfnOutput(this, `${IDS[name]}Function`, {
        value: this.functions[name].functionName,
        description: DESCRIPTIONS[name],
      });
      new CfnOutput(this, `${IDS[name]}LogGroup`, { value: this.functions[name].logGroup.logGroupName });
    }
  }
}

function sluiceFunction(
  stack: Stack,
  name: FunctionName,
  network: Network | null,
  props: PipelineStackProps,
): LambdaFunction {
  const { state, deployed } = props;
  const limits = FUNCTION_LIMITS[name];
  const logs = new LogGroup(stack, `${IDS[name]}Logs`, {
    retention: RetentionDays.ONE_MONTH,
    removalPolicy: RemovalPolicy.DESTROY,
  });
  const role = new Role(stack, `${IDS[name]}Role`, {
    assumedBy: new ServicePrincipal('lambda.amazonaws.com'),
    description: `What ${name} of the pipeline ${deployed.pipeline.pipeline} may do`,
  });
  const { secrets, tokens } = deployed;
  const to: GrantTargets = {
    pipeline: deployed.pipeline.pipeline,
    state,
    logs,
    secrets,
    tokens,
    secrets_key_arn: props.secrets_key_arn,
    in_vpc: network !== null,
  };
  for (const statement of statementsOf(stack, name, to)) role.addToPolicy(statement);
  acknowledgeWildcards(stack, role, name, to);
  return new LambdaFunction(stack, IDS[name], {
    description: DESCRIPTIONS[name],
    runtime: Runtime.NODEJS_24_X,
    architecture: Architecture.ARM_64,
    handler: HANDLER,
    code: bundleOf({
      name,
      functions_dir: props.functions_dir,
      assembly_dir: props.assembly_dir,
      pipeline_json: deployed.json,
    }).code,
    role,
    memorySize: limits.memory_mb,
    timeout: limits.timeout,
    environment: {
      SLUICE_CONFIG: PIPELINE_PATH,
      SLUICE_TABLE: state.ledger.tableName,
      SLUICE_BUCKET: state.stage.bucketName,
      SLUICE_LOAD_QUEUE_URL: state.load.queue.queueUrl,
      SLUICE_EXTRACT_QUEUE_URL: state.extract.queue.queueUrl,
      SLUICE_LEASE_MS: String(LEASE.toMilliseconds()),
    },
    logGroup: logs,
    loggingFormat: LoggingFormat.JSON,
    applicationLogLevelV2: ApplicationLogLevel.INFO,
    systemLogLevelV2: SystemLogLevel.INFO,
    tracing: Tracing.DISABLED,
    // A loader that runs out of time rings for itself, and Lambda would take sixteen such rings for a runaway. It is none: each applies cuts.
    ...(name === 'load' ? { recursiveLoop: RecursiveLoop.ALLOW } : {}),
    ...network,
    ...(name === 'drain' ? { reservedConcurrentExecutions: DRAIN_CONCURRENCY } : {}),
    // A failed call is not made again behind the caller's back: the next window is drain's retry, a person the others'.
    ...(RIGHTS[name].answers === null ? { retryAttempts: 0 } : {}),
    ...(name === 'drain' ? { maxEventAge: WINDOW_EVENT_AGE_MAX } : {}),
  });
}

function scheduleWindows(stack: Stack, drain: LambdaFunction, { pipeline }: DeployedPipeline): void {
  const role = schedulerRole(stack, drain);
  const numbered = (name: string, i: number): string => (i === 0 ? name : `${name}${i + 1}`);
  const schedules = [
    ...expressionsOf(pipeline.schedule).map((schedule, i) => ({ schedule, id: numbered('Window', i), of: '' })),
    ...tableExpressionsOf(pipeline).map((schedule, i) => ({
      schedule,
      id: numbered('TableWindow', i),
      of: ', at the times of tables',
    })),
  ];
  for (const { schedule, id, of } of schedules) {
    new Schedule(stack, id, {
      schedule,
      description: `Windows of the pipeline ${pipeline.pipeline}${of}`,
      enabled: !pipeline.schedule.paused,
      target: new LambdaInvoke(drain, {
        // What the target would add is the right to every version of the function; there are none.
        role: role.withoutPolicyUpdates(),
        input: ScheduleTargetInput.fromObject({ kind: 'window', pipeline: pipeline.pipeline }),
        // The next tick is the retry.
        retryAttempts: 0,
        maxEventAge: WINDOW_EVENT_AGE_MAX,
      }),
    });
  }
}

function schedulerRole(stack: Stack, drain: LambdaFunction): Role {
  const group = stack.formatArn({ service: 'scheduler', resource: 'schedule-group', resourceName: 'default' });
  const role = new Role(stack, 'WindowRole', {
    assumedBy: new ServicePrincipal('scheduler.amazonaws.com', {
      conditions: { StringEquals: { 'aws:SourceAccount': stack.account, 'aws:SourceArn': group } },
    }),
    description: 'Starts windows',
  });
  role.addToPolicy(new PolicyStatement({ actions: ['lambda:InvokeFunction'], resources: [drain.functionArn] }));
  return role;
}

/** One message an invocation: a stream's bell is answered or not by itself, and one that fails holds up no other group. */
function answerDoorbell(fn: LambdaFunction, eventSourceArn: string, target: TargetConfig): void {
  fn.addEventSourceMapping('Doorbell', {
    eventSourceArn,
    batchSize: 1,
    reportBatchItemFailures: true,
    maxConcurrency: concurrencyOf(target),
  });
}

/**
 * Loaders at once by `parallelism`, within what AWS takes: never less than two. How many streams there are is known to nobody here, and FIFO
 * gives each stream one loader at most; a loader brings a core of its own. So 0 and -1 both come to `max_parallelism`.
 */
export function concurrencyOf(target: Pick<TargetConfig, 'parallelism' | 'max_parallelism'>): number {
  const wanted = target.parallelism > 0 ? Math.min(target.parallelism, target.max_parallelism) : target.max_parallelism;
  return Math.min(Math.max(wanted, SOURCE_CONCURRENCY_MIN), SOURCE_CONCURRENCY_MAX);
}

/** cdk-nag names a finding by the resource as the template has it: an import, for what is in the other stack. */
function acknowledgeWildcards(stack: Stack, role: Role, name: FunctionName, to: GrantTargets): void {
  const { stage } = RIGHTS[name];
  if (stage.length > 0) {
    const bucket = stack.resolve(to.state.exportValue(to.state.stage.bucketArn)) as { 'Fn::ImportValue': string };
    for (const folder of stage.flatMap(({ folders }) => folders)) {
      Validations.of(role).acknowledge({
        id: `AwsSolutions-IAM5[Resource::${bucket['Fn::ImportValue']}/${stageObjects(to.pipeline, folder)}]`,
        reason: "Objects of the stage get their names as they are written; the bucket is this pipeline's alone.",
      });
    }
  }
  for (const user of tokenUsersOf(stack, name, to)) {
    Validations.of(role).acknowledge({
      id: `AwsSolutions-IAM5[Resource::${findingText(stack.resolve(user))}]`,
      reason: "A database's id stands in its ARN and not in its host; its role is named.",
    });
  }
  if (to.in_vpc) {
    Validations.of(role).acknowledge({
      id: 'AwsSolutions-IAM5[Resource::*]',
      reason:
        'Lambda makes the network interfaces as this role, and EC2 has no resource to name for most of these actions.',
    });
  }
}

/** An ARN of the template as cdk-nag writes it. */
function findingText(arn: unknown): string {
  if (typeof arn === 'string') return arn.replaceAll('${', '<').replaceAll('}', '>');
  const { Ref, 'Fn::Join': joined } = arn as { Ref?: string; 'Fn::Join'?: [string, unknown[]] };
  return Ref === undefined ? (joined?.[1] ?? []).map(findingText).join('') : `<${Ref}>`;
}

/**
 * The stacks of one pipeline: `sluice-<pipeline>-state` keeps, `sluice-<pipeline>` works. Names are a contract: `--stack` and the runbook use them.
 */
import { type App, Tags, Validations } from 'aws-cdk-lib';
import { AwsSolutionsChecks } from 'cdk-nag';
import { SluiceError } from '../../lib/errors.ts';
import { networkIdsOf } from './network.ts';
import type { DeployedPipeline } from './pipeline-file.ts';
import { PipelineStack } from './pipeline-stack.ts';
import { StatefulStack } from './stateful-stack.ts';

export interface SluiceStacks {
  readonly state: StatefulStack;
  readonly pipeline: PipelineStack;
}

/**
 * Adds both stacks to the app. Context keys, all optional: `vpc`, `subnets`, `security_groups` (network.ts); `alarm_topic`, the ARN of the SNS
 * topic that alarms tell; `secrets_key`, the ARN of the KMS key of the secrets where it is not the account's own. Throws USAGE for a key
 * that is not well-formed, CONFIG_INVALID for a pipeline that cannot be deployed.
 */
export function addStacks(app: App, deployed: DeployedPipeline, functions_dir: string): SluiceStacks {
  const name = deployed.pipeline.pipeline;
  const context = (key: string): unknown => app.node.tryGetContext(key);
  const state = new StatefulStack(app, `sluice-${name}-state`, {
    description: `Sluice, pipeline ${name}: stage, ledger and doorbells. Keep: without them it cannot go on`,
    stage_retention_days: deployed.pipeline.target.stage_retention_days,
  });
  const pipeline = new PipelineStack(app, `sluice-${name}`, {
    description: `Sluice, pipeline ${name}: functions, schedule and alarms`,
    deployed,
    state,
    functions_dir,
    assembly_dir: app.outdir,
    network: networkIdsOf(context),
    alarm_topic_arn: arnOf('alarm_topic', 'sns', context),
    secrets_key_arn: arnOf('secrets_key', 'kms', context),
  });
  // What it costs can be told apart in the bill once the tag is activated there.
  Tags.of(app).add('sluice:pipeline', name);
  Validations.of(app).addPlugins(new AwsSolutionsChecks(app));
  return { state, pipeline };
}

function arnOf(key: string, service: string, context: (key: string) => unknown): string | null {
  const value = context(key);
  if (value === undefined || value === null) return null;
  const text = typeof value === 'string' ? value : JSON.stringify(value);
  if (!new RegExp(`^arn:aws[a-z-]*:${service}:[a-z0-9-]+:[0-9]{12}:.+$`).test(text)) {
    throw new SluiceError('USAGE', {
      problem: `The context key ${key} is no ARN of ${service}: ${text}`,
      remedy: `Give the whole ARN: -c ${key}=arn:aws:${service}:REGION:ACCOUNT:…`,
    });
  }
  return text;
}

/**
 * The CDK app, run by `cdk` (cdk.json): `cdk deploy --all -c config=pipeline.yaml`. Needs no account and no network to synthesize.
 */
import { resolve } from 'node:path';
import { App } from 'aws-cdk-lib';
import { SluiceError } from '../../lib/errors.ts';
import { readDeployedPipeline } from './pipeline-file.ts';
import { addStacks } from './stacks.ts';

const ROOT = resolve(import.meta.dirname, '../..');
/** So that `npm run synth` shows the stacks before there is a pipeline. */
const EXAMPLE = resolve(ROOT, 'examples/pipeline.yaml');

try {
  const app = new App();
  const config: unknown = app.node.tryGetContext('config');
  addStacks(app, readDeployedPipeline(typeof config === 'string' ? config : EXAMPLE), resolve(ROOT, 'functions'));
  app.synth();
} catch (error) {
  if (!(error instanceof SluiceError)) throw error;
  console.error(`${error.message}\n${error.remedy}`);
  process.exitCode = error.disposition === 'usage' ? 2 : 1;
}

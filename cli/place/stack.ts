/**
 * A deployed stack, as a command on another machine finds it: what its functions are told by their environment, by the outputs of its stateful half
 * (infra/aws/stateful-stack.ts). Region and credentials are the SDK's own settings.
 */
import { CloudFormationClient, DescribeStacksCommand } from '@aws-sdk/client-cloudformation';
import { clientOptions } from '../../functions/clients.ts';
import { awsFault } from '../../lib/aws-faults.ts';
import { SluiceError } from '../../lib/errors.ts';

/** Until an answer begins. */
const ANSWER_MS_MAX = 10_000;

/** The environment's variables by the outputs that they are read from. */
const OUTPUTS = {
  SLUICE_TABLE: 'LedgerTable',
  SLUICE_BUCKET: 'StageBucket',
  SLUICE_LOAD_QUEUE_URL: 'LoadQueueUrl',
  SLUICE_EXTRACT_QUEUE_URL: 'ExtractQueueUrl',
} as const;

export type StackEnvironment = Readonly<Record<keyof typeof OUTPUTS, string>>;

/** Of the stack `name`, which is `sluice-<pipeline>`. Throws USAGE where there is none, or none of this pipeline. */
export async function stackEnvironment(name: string, pipeline: string): Promise<StackEnvironment> {
  if (name !== `sluice-${pipeline}`) {
    throw new SluiceError('USAGE', {
      problem: `The stack ${name} is not that of the pipeline ${pipeline}.`,
      remedy: `Give its file with -c FILE, or --stack sluice-${pipeline}.`,
    });
  }
  const outputs = await outputsOf(`${name}-state`);
  const values = Object.entries(OUTPUTS).map(([variable, output]) => {
    const value = outputs.get(output);
    if (value !== undefined) return [variable, value] as const;
    throw new SluiceError('USAGE', {
      problem: `The stack ${name}-state has no output ${output}.`,
      remedy: 'Deploy it again, with the version of sluice that is used here.',
    });
  });
  return Object.fromEntries(values) as StackEnvironment;
}

async function outputsOf(stack: string): Promise<ReadonlyMap<string, string>> {
  const client = new CloudFormationClient(clientOptions(ANSWER_MS_MAX));
  try {
    const { Stacks: [found] = [] } = await client.send(new DescribeStacksCommand({ StackName: stack }));
    const outputs = found?.Outputs ?? [];
    return new Map(outputs.map(({ OutputKey = '', OutputValue = '' }) => [OutputKey, OutputValue]));
  } catch (error) {
    if (error instanceof Error && error.name === 'ValidationError') {
      throw new SluiceError('USAGE', {
        problem: `There is no stack ${stack} in this account and region.`,
        remedy:
          'Name the stack that has the functions, and set AWS_REGION and AWS_PROFILE as they were when it was deployed.',
      });
    }
    throw awsFault('CloudFormation', 'DescribeStacks', error);
  } finally {
    client.destroy();
  }
}

/**
 * What the functions are told by their environment: the stack sets it on AWS (infra/aws/pipeline-stack.ts), the local engine on one machine
 * (infra/local/environment.ts).
 */
import * as z from 'zod';
import { SluiceError } from '../lib/errors.ts';

const text = z.string().min(1);
/** Empty is unset, as it is for the SDK. */
const endpoint = z
  .string()
  .optional()
  .transform((url) => url || undefined);

const environmentSchema = z.object({
  /** Path of the pipeline file. */
  SLUICE_CONFIG: text,
  SLUICE_TABLE: text,
  SLUICE_BUCKET: text,
  SLUICE_LOAD_QUEUE_URL: text,
  SLUICE_EXTRACT_QUEUE_URL: text,
  /** How long a window's lease lasts without being renewed. */
  SLUICE_LEASE_MS: z.coerce.number().int().min(1000),
  /** Read by the SDK itself; looked at only because some clients need another option where there is an endpoint. */
  AWS_ENDPOINT_URL: endpoint,
  AWS_ENDPOINT_URL_S3: endpoint,
  AWS_ENDPOINT_URL_SQS: endpoint,
});

export type Environment = z.output<typeof environmentSchema>;

/** Throws USAGE for a variable that is missing or wrong. */
export function readEnvironment(env: Readonly<Record<string, string | undefined>>): Environment {
  const read = environmentSchema.safeParse(env);
  if (read.success) return read.data;
  const names = [...new Set(read.error.issues.map((issue) => issue.path.join('.')))];
  throw new SluiceError('USAGE', {
    problem: `The function's environment lacks ${names.join(', ')}, or has it wrong.`,
    remedy: 'The stack sets it: deploy it again.',
  });
}

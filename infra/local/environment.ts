/**
 * The environment that the functions see, as Lambda and the stack would set it (infra/aws/pipeline-stack.ts), but for the endpoints: the SDK reads
 * those itself, and nothing in functions/ or lib/ can tell the difference.
 */
import type { Resources } from './resources.ts';
import type { ServiceEndpoints } from './services.ts';

export type Environment = Readonly<Record<string, string>>;

const REGION = 'us-east-1';
/** Any of these means that the caller has credentials of his own, which Secrets Manager may need; the local servers take any. */
const CREDENTIALS = [
  'AWS_ACCESS_KEY_ID',
  'AWS_PROFILE',
  'AWS_WEB_IDENTITY_TOKEN_FILE',
  'AWS_CONTAINER_CREDENTIALS_RELATIVE_URI',
  'AWS_CONTAINER_CREDENTIALS_FULL_URI',
];

/** Locally a window that died is missed soon: its lease need not be longer than a function's run, because its holder renews it. */
const LEASE_MS = 15_000;

/** The caller's environment (the passwords that the pipeline file names are in it) with region and credentials that the SDK can work with. */
export function awsEnvironment(caller: Readonly<Record<string, string | undefined>>): Record<string, string> {
  const given = Object.fromEntries(
    Object.entries(caller).filter((entry): entry is [string, string] => entry[1] !== undefined),
  );
  const hasCredentials = CREDENTIALS.some((name) => given[name] !== undefined && given[name] !== '');
  return {
    ...given,
    AWS_REGION: given.AWS_REGION ?? given.AWS_DEFAULT_REGION ?? REGION,
    ...(hasCredentials ? {} : { AWS_ACCESS_KEY_ID: 'local', AWS_SECRET_ACCESS_KEY: 'local' }),
    AWS_EC2_METADATA_DISABLED: 'true',
  };
}

export function functionEnvironment(
  base: Environment,
  endpoints: ServiceEndpoints,
  resources: Resources,
  configPath: string,
): Environment {
  return {
    ...base,
    AWS_ENDPOINT_URL_S3: endpoints.s3,
    AWS_ENDPOINT_URL_SQS: endpoints.sqs,
    AWS_ENDPOINT_URL_DYNAMODB: endpoints.dynamodb,
    SLUICE_CONFIG: configPath,
    SLUICE_TABLE: resources.table,
    SLUICE_BUCKET: resources.bucket,
    SLUICE_LOAD_QUEUE_URL: resources.load.url,
    SLUICE_EXTRACT_QUEUE_URL: resources.extract.url,
    SLUICE_LEASE_MS: String(LEASE_MS),
  };
}

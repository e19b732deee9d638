/**
 * What an AWS SDK error means here: one pure mapping, used by every adapter.
 *
 * Facts hold the service, the operation, the error's name and its request id, never the request: a validation message may quote a key or
 * a value. Messages are kept only where AWS or the system wrote them about rights or the network. A SluiceError passes unchanged.
 */
import { SluiceError } from './errors.ts';

export type AwsService = 'CloudFormation' | 'DynamoDB' | 'S3' | 'SQS' | 'Secrets Manager' | 'RDS';

/** Names of errors that pass by themselves, over all of them (their API references, "Common Errors" and each operation's errors). */
const TRANSIENT_NAMES: ReadonlySet<string> = new Set([
  'AbortError',
  'BandwidthLimitExceeded',
  'InternalError',
  'InternalFailure',
  'InternalServerError',
  'KmsThrottled',
  'LimitExceededException',
  'OverLimit',
  'PriorRequestNotComplete',
  'ProvisionedThroughputExceededException',
  'ReplicatedWriteConflictException',
  'RequestLimitExceeded',
  'RequestThrottled',
  'RequestThrottledException',
  'RequestTimeout',
  'RequestTimeoutException',
  'ServiceUnavailable',
  'SlowDown',
  'ThrottledException',
  'Throttling',
  'ThrottlingException',
  'TimeoutError',
  'TooManyRequestsException',
  'TransactionInProgressException',
]);

/** What has arrived is not what was sent. The SDK does not send it again by itself. */
const DAMAGED_NAMES: ReadonlySet<string> = new Set([
  'BadDigest',
  'IncompleteBody',
  'InvalidDigest',
  'XAmzContentChecksumMismatch',
  'XAmzContentSHA256Mismatch',
]);

const MISSING_NAMES: ReadonlySet<string> = new Set([
  'AWS.SimpleQueueService.NonExistentQueue',
  'NoSuchBucket',
  'QueueDoesNotExist',
  'ResourceNotFoundException',
]);

const MISSING_RESOURCE: Readonly<Record<AwsService, string>> = {
  CloudFormation: 'such stack',
  DynamoDB: 'such table',
  S3: 'such bucket',
  SQS: 'such queue',
  'Secrets Manager': 'such secret',
  RDS: 'such database',
};

const DENIED_NAMES: ReadonlySet<string> = new Set([
  'AccessDenied',
  'AccessDeniedException',
  'AllAccessDisabled',
  'CredentialsProviderError',
  'ExpiredToken',
  'ExpiredTokenException',
  'IncompleteSignature',
  'InvalidAccessKeyId',
  'InvalidClientTokenId',
  'InvalidSecurity',
  'InvalidSignatureException',
  'KMS.AccessDeniedException',
  'KmsAccessDenied',
  'KmsDisabled',
  'KmsInvalidState',
  'KmsNotFound',
  'MissingAuthenticationToken',
  'MissingAuthenticationTokenException',
  'NotAuthorized',
  'OptInRequired',
  'RequestTimeTooSkewed',
  'SignatureDoesNotMatch',
  'UnrecognizedClientException',
]);

/** Errors of Node's sockets and resolver that another attempt may not meet. */
const NETWORK_CODES: ReadonlySet<string> = new Set([
  'EAI_AGAIN',
  'ECONNABORTED',
  'ECONNREFUSED',
  'ECONNRESET',
  'EHOSTUNREACH',
  'ENETUNREACH',
  'ENOTFOUND',
  'EPIPE',
  'ERR_STREAM_PREMATURE_CLOSE',
  'ETIMEDOUT',
]);

/** The fields that are looked at, of whatever was thrown. */
interface Seen {
  readonly name: string;
  readonly code: string;
  readonly message: string;
  readonly status: number;
  readonly request: string;
  readonly fromService: boolean;
}

/**
 * The SluiceError for what `client.send` threw: AWS_TRANSIENT (throttling, 5xx, timeouts, network), AWS_DENIED, AWS_MISSING (table, bucket
 * or queue is gone), and UNEXPECTED for everything else.
 */
export function awsFault(service: AwsService, operation: string, thrown: unknown): SluiceError {
  if (thrown instanceof SluiceError) return thrown;
  const seen = look(thrown);
  const code = codeOf(seen);
  if (code === 'AWS_MISSING') {
    return new SluiceError(code, { service, operation, resource: MISSING_RESOURCE[service] });
  }
  if (code !== null) return new SluiceError(code, { service, operation, reason: `${reasonOf(seen)}${seen.request}` });
  // An error that no service sent is a fault of ours: its stack is worth keeping, and it has seen no request.
  return seen.fromService
    ? new SluiceError('UNEXPECTED', { reason: `${service} refuses ${operation}: ${seen.name}${seen.request}` })
    : new SluiceError(
        'UNEXPECTED',
        // Errors of Node's own, of TLS too, say what they are by their code.
        { reason: `${service} ${operation}: ${[seen.name, seen.code].filter(Boolean).join(' ')}` },
        { cause: thrown },
      );
}

/** Whether a conditional write found its condition false. */
export function isConditionFailed(thrown: unknown): boolean {
  return thrown instanceof Error && thrown.name === 'ConditionalCheckFailedException';
}

/** Whether the request was changed or cut on its way: to be sent once more as it is. */
export function isDamagedRequest(thrown: unknown): boolean {
  return thrown instanceof Error && DAMAGED_NAMES.has(thrown.name);
}

function codeOf(seen: Seen): 'AWS_TRANSIENT' | 'AWS_DENIED' | 'AWS_MISSING' | null {
  if (MISSING_NAMES.has(seen.name)) return 'AWS_MISSING';
  if (TRANSIENT_NAMES.has(seen.name) || DAMAGED_NAMES.has(seen.name)) return 'AWS_TRANSIENT';
  if (NETWORK_CODES.has(seen.code)) return 'AWS_TRANSIENT';
  if (DENIED_NAMES.has(seen.name)) return 'AWS_DENIED';
  if (seen.status === 429 || seen.status >= 500) return 'AWS_TRANSIENT';
  if (seen.status === 401 || seen.status === 403) return 'AWS_DENIED';
  return null;
}

/** Rights and network errors explain themselves; their text names roles, resources, hosts and ports, and nothing of the request's body. */
function reasonOf(seen: Seen): string {
  if (NETWORK_CODES.has(seen.code)) return seen.message || seen.code;
  return DENIED_NAMES.has(seen.name) ? `${seen.name}: ${seen.message}` : seen.name;
}

function look(thrown: unknown): Seen {
  const error = typeof thrown === 'object' && thrown !== null ? (thrown as Record<string, unknown>) : {};
  const metadata =
    typeof error.$metadata === 'object' && error.$metadata !== null ? (error.$metadata as Record<string, unknown>) : {};
  const text = (value: unknown): string => (typeof value === 'string' ? value : '');
  const status = typeof metadata.httpStatusCode === 'number' ? metadata.httpStatusCode : 0;
  return {
    name: text(error.name) || 'unknown error',
    code: text(error.code),
    message: text(error.message),
    status,
    request: text(metadata.requestId) && ` (request ${text(metadata.requestId)})`,
    fromService: '$fault' in error || status > 0,
  };
}

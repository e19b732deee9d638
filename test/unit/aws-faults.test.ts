import { DynamoDBServiceException } from '@aws-sdk/client-dynamodb';
import { describe, expect, test } from 'vitest';
import { type AwsService, awsFault, isConditionFailed } from '../../lib/aws-faults.ts';
import { SluiceError } from '../../lib/errors.ts';

const SECRET = 'row value 4711';

/** An error as the SDK makes it of an answer. */
function answer(name: string, status: number): Error {
  return new DynamoDBServiceException({
    name,
    message: `about ${SECRET}`,
    $fault: status >= 500 ? 'server' : 'client',
    $metadata: { httpStatusCode: status, requestId: 'R1' },
  });
}

const broken = (code: string) => Object.assign(new Error(`connect ${code} 127.0.0.1:1`), { code });

describe('an AWS error', () => {
  test.each([
    ['ThrottlingException', 400, 'AWS_TRANSIENT'],
    ['ProvisionedThroughputExceededException', 400, 'AWS_TRANSIENT'],
    ['SlowDown', 503, 'AWS_TRANSIENT'],
    ['SomethingNew', 500, 'AWS_TRANSIENT'],
    ['SomethingNew', 429, 'AWS_TRANSIENT'],
    ['RequestTimeout', 400, 'AWS_TRANSIENT'],
    ['BadDigest', 400, 'AWS_TRANSIENT'],
    ['IncompleteBody', 400, 'AWS_TRANSIENT'],
    ['AccessDenied', 403, 'AWS_DENIED'],
    ['SomethingNew', 403, 'AWS_DENIED'],
    ['UnrecognizedClientException', 400, 'AWS_DENIED'],
    ['ExpiredTokenException', 400, 'AWS_DENIED'],
    ['NoSuchBucket', 404, 'AWS_MISSING'],
    ['QueueDoesNotExist', 400, 'AWS_MISSING'],
    ['ResourceNotFoundException', 400, 'AWS_MISSING'],
    ['ValidationException', 400, 'UNEXPECTED'],
    ['ConditionalCheckFailedException', 400, 'UNEXPECTED'],
  ])('%s with status %d is %s', (name, status, code) => {
    const fault = awsFault('DynamoDB', 'PutItem', answer(name, status));
    expect(fault.code).toBe(code);
    expect(fault.message).toContain('PutItem');
  });

  test.each(['ECONNRESET', 'ECONNREFUSED', 'ETIMEDOUT', 'EPIPE', 'ENOTFOUND', 'EAI_AGAIN'])(
    '%s is transient',
    (code) => {
      const fault = awsFault('S3', 'GetObject', broken(code));
      expect(fault).toMatchObject({ code: 'AWS_TRANSIENT', message: expect.stringContaining('127.0.0.1:1') });
    },
  );

  test('says nothing of the request: not in its message, its facts or its cause', () => {
    for (const name of ['ValidationException', 'ThrottlingException', 'SerializationException']) {
      const fault = awsFault('DynamoDB', 'PutItem', answer(name, 400));
      expect(JSON.stringify([fault.message, fault.facts, fault.remedy])).not.toContain(SECRET);
      expect(fault.cause).toBeUndefined();
      expect(fault.message).toMatch(new RegExp(`${name} \\(request R1\\)`));
    }
  });

  test('of rights keeps what AWS says: it names the role and the resource', () => {
    expect(awsFault('SQS', 'SendMessageBatch', answer('AccessDenied', 403)).message).toContain(SECRET);
  });

  test.each<[AwsService, string]>([
    ['DynamoDB', 'table'],
    ['S3', 'bucket'],
    ['SQS', 'queue'],
    ['Secrets Manager', 'secret'],
  ])('of %s that misses something says what: %s', (service, what) => {
    expect(awsFault(service, 'Do', answer('ResourceNotFoundException', 400)).message).toBe(
      `${service} has no such ${what} (Do).`,
    );
  });

  test('of our own making keeps its cause', () => {
    const bug = new TypeError('x is not a function');
    expect(awsFault('S3', 'PutObject', bug)).toMatchObject({ code: 'UNEXPECTED', cause: bug });
  });

  test.each([undefined, null, 'text', 7, {}])('that is %s is unexpected', (thrown) => {
    expect(awsFault('S3', 'PutObject', thrown).code).toBe('UNEXPECTED');
  });

  test('that is ours already stays', () => {
    const ours = new SluiceError('STAGE_MISSING', { object: 'o' });
    expect(awsFault('S3', 'GetObject', ours)).toBe(ours);
  });

  test('of a condition is told apart', () => {
    expect(isConditionFailed(answer('ConditionalCheckFailedException', 400))).toBe(true);
    expect(isConditionFailed(answer('ValidationException', 400))).toBe(false);
    expect(isConditionFailed('ConditionalCheckFailedException')).toBe(false);
  });
});

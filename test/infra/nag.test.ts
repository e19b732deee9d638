/** cdk-nag looks at both stacks with every option on, and finds nothing that nobody has acknowledged; and it does find things. */
import type { App } from 'aws-cdk-lib';
import { Bucket } from 'aws-cdk-lib/aws-s3';
import { expect, test } from 'vitest';
import { synthesize } from './support.ts';

const EVERYTHING = {
  vpc: 'vpc-0123456789abcdef0',
  subnets: 'subnet-0123456789abcdef0,subnet-0123456789abcdef1',
  security_groups: 'sg-0123456789abcdef0',
  alarm_topic: 'arn:aws:sns:eu-central-1:123456789012:ops',
  secrets_key: 'arn:aws:kms:eu-central-1:123456789012:key/0f1e2d3c',
};

test.each([{}, EVERYTHING])('nothing is found with the context %j', (context) => {
  expect(() => synthesize({ context })).not.toThrow();
});

test('a bucket that anybody may reach without TLS is found', () => {
  const change = (app: App): void => {
    const open = new Bucket(app.node.findChild('sluice-shop'), 'Open');
    expect(open.policy).toBeUndefined();
  };
  expect(() => synthesize({ change })).toThrow('AwsSolutions-S10');
});

test('what is acknowledged has a reason', () => {
  let acknowledged = 0;
  synthesize({
    context: EVERYTHING,
    change: (app) => {
      for (const { node } of app.node.findAll()) {
        for (const { type, data } of node.metadata.filter(({ type }) => type.includes('acknowledged'))) {
          for (const [id, reason] of Object.entries(data as Record<string, string>)) {
            acknowledged += 1;
            expect(`${type} ${id}: ${reason}`).toMatch(/: .{40,}\.$/);
          }
        }
      }
    },
  });
  expect(acknowledged).toBeGreaterThan(0);
});

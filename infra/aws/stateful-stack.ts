/**
 * What must outlive every deployment: stage (S3), ledger (DynamoDB), doorbells (SQS). A stack of its own, so that no change of the
 * functions can touch it. Its ids are a contract: another id is another resource, and the old one's content would be left behind
 * (test/infra/stateful-stack.test.ts holds them).
 */
import { CfnOutput, Duration, RemovalPolicy, Stack, type StackProps, Validations } from 'aws-cdk-lib';
import { AttributeType, BillingMode, Table, TableEncryption } from 'aws-cdk-lib/aws-dynamodb';
import { BlockPublicAccess, Bucket, BucketEncryption, ObjectOwnership } from 'aws-cdk-lib/aws-s3';
import { Queue, QueueEncryption } from 'aws-cdk-lib/aws-sqs';
import type { Construct } from 'constructs';
import { DLQ_RETENTION, type FunctionName, RECEIVES_MAX, UPLOAD_ABORT, visibilityOf } from './limits.ts';

export interface StatefulStackProps extends StackProps {
  /** `target.stage_retention_days` of the pipeline file. */
  readonly stage_retention_days: number;
}

export interface DoorbellQueue {
  readonly queue: Queue;
  readonly dlq: Queue;
}

export class StatefulStack extends Stack {
  readonly stage: Bucket;
  readonly ledger: Table;
  readonly load: DoorbellQueue;
  readonly extract: DoorbellQueue;

  constructor(scope: Construct, id: string, props: StatefulStackProps) {
    super(scope, id, { terminationProtection: true, ...props });
    this.stage = stageBucket(this, props.stage_retention_days);
    this.ledger = ledgerTable(this);
    this.load = doorbellQueue(this, 'Load', 'load');
    this.extract = doorbellQueue(this, 'Extract', 'extract');
    // For people and the runbook's commands; the other stack has exports of its own.
    const outputs = {
      StageBucket: this.stage.bucketName,
      LedgerTable: this.ledger.tableName,
      LoadQueueUrl: this.load.queue.queueUrl,
      LoadDlqUrl: this.load.dlq.queueUrl,
      ExtractQueueUrl: this.extract.queue.queueUrl,
      ExtractDlqUrl: this.extract.dlq.queueUrl,
    };
    for (const [id, value] of Object.entries(outputs)) new CfnOutput(this, id, { value });
  }
}

function stageBucket(scope: Construct, retention_days: number): Bucket {
  const bucket = new Bucket(scope, 'Stage', {
    encryption: BucketEncryption.S3_MANAGED,
    enforceSSL: true,
    minimumTLSVersion: 1.2,
    blockPublicAccess: BlockPublicAccess.BLOCK_ALL,
    objectOwnership: ObjectOwnership.BUCKET_OWNER_ENFORCED,
    // Names are never used twice, so there is never an older version to go back to.
    versioned: false,
    lifecycleRules: [
      { id: 'expire', expiration: Duration.days(retention_days) },
      { id: 'abort-uploads', abortIncompleteMultipartUploadAfter: UPLOAD_ABORT },
    ],
    removalPolicy: RemovalPolicy.RETAIN,
  });
  Validations.of(bucket).acknowledge({
    id: 'AwsSolutions-S1',
    reason:
      'The stage holds objects for days, read and written by this stack alone. Whoever must account for each access turns on CloudTrail data events, which say more than access logs.',
  });
  return bucket;
}

function ledgerTable(scope: Construct): Table {
  return new Table(scope, 'Ledger', {
    partitionKey: { name: 'pk', type: AttributeType.STRING },
    sortKey: { name: 'sk', type: AttributeType.STRING },
    billingMode: BillingMode.PAY_PER_REQUEST,
    // Run reports alone carry it.
    timeToLiveAttribute: 'expires_at',
    pointInTimeRecoverySpecification: { pointInTimeRecoveryEnabled: true },
    encryption: TableEncryption.AWS_MANAGED,
    deletionProtection: true,
    removalPolicy: RemovalPolicy.RETAIN,
  });
}

/** A FIFO queue and the queue for what it could not deliver. Both hold doorbells only (I9): losing one costs time. */
function doorbellQueue(scope: Construct, prefix: string, consumer: FunctionName): DoorbellQueue {
  const dlq = new Queue(scope, `${prefix}Dlq`, {
    fifo: true,
    encryption: QueueEncryption.SQS_MANAGED,
    enforceSSL: true,
    retentionPeriod: DLQ_RETENTION,
  });
  const queue = new Queue(scope, `${prefix}Queue`, {
    fifo: true,
    // Every ring says by its own id that it is a new one: two with the same text may be rings for different reasons.
    contentBasedDeduplication: false,
    encryption: QueueEncryption.SQS_MANAGED,
    enforceSSL: true,
    visibilityTimeout: visibilityOf(consumer),
    deadLetterQueue: { queue: dlq, maxReceiveCount: RECEIVES_MAX },
  });
  return { queue, dlq };
}

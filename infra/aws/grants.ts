/**
 * What each function may do, in one place and in full: this is what the roles hold, and test/infra/grants.test.ts compares the template with it
 * action by action. CDK's `grant…` methods are not used: they give more than these functions call.
 */
import { Arn, ArnFormat, Stack } from 'aws-cdk-lib';
import { PolicyStatement } from 'aws-cdk-lib/aws-iam';
import type { ILogGroup } from 'aws-cdk-lib/aws-logs';
import type { Construct } from 'constructs';
import type { FunctionName } from './limits.ts';
import type { Side, TokenUser } from './pipeline-file.ts';
import type { StatefulStack } from './stateful-stack.ts';

const LEDGER_READ = ['dynamodb:GetItem', 'dynamodb:Query'];
const LEDGER_PUT = ['dynamodb:PutItem'];
const LEDGER_UPDATE = ['dynamodb:UpdateItem'];
/** Of many items at once: the window removes old cuts, a plan writes its chunks, a request is taken out. A batch needs no right to single deletes. */
const LEDGER_BATCH = ['dynamodb:BatchWriteItem'];

const STAGE_PUT = ['s3:PutObject', 's3:AbortMultipartUpload'];
/** GetObject: after an answer that was lost, HeadObject tells whether the object is complete. */
const STAGE_WRITE = [...STAGE_PUT, 's3:GetObject'];
const STAGE_READ = ['s3:GetObject'];
/** Without it S3 answers 403 for an object that is not there, and one that has expired would look like a missing right. */
const STAGE_LIST = ['s3:ListBucket'];

const RING = ['sqs:SendMessage'];
/** What Lambda's event source asks of the function's role; and ChangeMessageVisibility, by which the function says when a failed bell rings again. */
const ANSWER = ['sqs:ReceiveMessage', 'sqs:DeleteMessage', 'sqs:GetQueueAttributes', 'sqs:ChangeMessageVisibility'];

type StageFolder = 'cuts/' | 'chunks/' | 'rejected/cuts/' | 'rejected/chunks/' | 'rejected/loads/' | 'rejected/' | '';

interface Rights {
  readonly ledger: readonly string[];
  /** On the stage's objects whose names begin with the pipeline's name and one of these folders (`objectName` in lib/pipeline.ts). */
  readonly stage: readonly { readonly actions: readonly string[]; readonly folders: readonly StageFolder[] }[];
  readonly rings: readonly ('load' | 'extract')[];
  readonly answers: 'load' | 'extract' | null;
  /** Databases that it connects to, and so whose secrets it reads. */
  readonly connects: readonly Side[];
}

export const RIGHTS: Readonly<Record<FunctionName, Rights>> = {
  drain: {
    ledger: [...LEDGER_READ, ...LEDGER_PUT, ...LEDGER_UPDATE, ...LEDGER_BATCH],
    // It reads which rows were left out, by itself and by repairs (lib/validation/rejected-keys.ts).
    stage: [
      { actions: STAGE_WRITE, folders: ['cuts/', 'rejected/cuts/'] },
      { actions: STAGE_READ, folders: ['rejected/chunks/'] },
    ],
    rings: ['load', 'extract'],
    answers: null,
    connects: ['source'],
  },
  extract: {
    ledger: [...LEDGER_READ, ...LEDGER_PUT, ...LEDGER_UPDATE, ...LEDGER_BATCH],
    stage: [{ actions: STAGE_WRITE, folders: ['chunks/', 'rejected/chunks/'] }],
    rings: ['load', 'extract'],
    answers: 'extract',
    connects: ['source', 'target'],
  },
  load: {
    ledger: [...LEDGER_READ, ...LEDGER_PUT, ...LEDGER_UPDATE, ...LEDGER_BATCH],
    // It puts aside what the target refuses (lib/load/quarantine.ts).
    stage: [
      { actions: STAGE_READ, folders: [''] },
      { actions: STAGE_PUT, folders: ['rejected/loads/'] },
    ],
    // At the end of an epoch it opens the next that waits.
    rings: ['load', 'extract'],
    answers: 'load',
    connects: ['target'],
  },
  backfill: {
    ledger: [...LEDGER_READ, ...LEDGER_PUT, ...LEDGER_UPDATE, ...LEDGER_BATCH],
    stage: [],
    rings: ['load', 'extract'],
    answers: null,
    // It looks at a condition on the source before it asks for anything.
    connects: ['source'],
  },
  operate: {
    // An epoch is written as a whole: that of a stream read by query is ended before it is resumed.
    ledger: [...LEDGER_READ, ...LEDGER_PUT, ...LEDGER_UPDATE, ...LEDGER_BATCH],
    // It shows rows that were put aside, and takes their keys from there.
    stage: [{ actions: STAGE_READ, folders: ['rejected/'] }],
    rings: ['load', 'extract'],
    answers: null,
    connects: [],
  },
};

/** Names of objects in the stage, as a pattern of IAM. */
export function stageObjects(pipeline: string, folder: string): string {
  return `${pipeline}/${folder}*`;
}

export interface GrantTargets {
  /** Name of the pipeline. */
  readonly pipeline: string;
  readonly state: StatefulStack;
  readonly logs: ILogGroup;
  /** Names or ARNs in Secrets Manager. */
  readonly secrets: Readonly<Record<Side, readonly string[]>>;
  /** Roles of databases that are connected to with IAM tokens. */
  readonly tokens: Readonly<Record<Side, TokenUser | null>>;
  /** ARN of the key that encrypts these secrets, where it is not the account's own `aws/secretsmanager`; null: it is. */
  readonly secrets_key_arn: string | null;
  readonly in_vpc: boolean;
}

/** The statements of one function's role. */
export function statementsOf(scope: Construct, name: FunctionName, to: GrantTargets): PolicyStatement[] {
  const rights = RIGHTS[name];
  const { state } = to;
  const statements = [
    allow(['logs:CreateLogStream', 'logs:PutLogEvents'], [to.logs.logGroupArn]),
    allow(rights.ledger, [state.ledger.tableArn]),
    ...rights.rings.map((queue) => allow(RING, [state[queue].queue.queueArn])),
  ];
  if (rights.answers) statements.push(allow(ANSWER, [state[rights.answers].queue.queueArn]));
  for (const { actions, folders } of rights.stage) {
    const objects = folders.map((folder) => state.stage.arnForObjects(stageObjects(to.pipeline, folder)));
    statements.push(allow(actions, objects));
  }
  if (rights.stage.length > 0) statements.push(allow(STAGE_LIST, [state.stage.bucketArn]));
  const secrets = [...new Set(rights.connects.flatMap((side) => to.secrets[side]))];
  if (secrets.length > 0) statements.push(...secretStatements(scope, secrets, to.secrets_key_arn));
  const users = tokenUsersOf(scope, name, to);
  if (users.length > 0) statements.push(allow(['rds-db:connect'], users));
  if (to.in_vpc) statements.push(vpcStatement());
  return statements;
}

/**
 * ARNs of the roles that the function connects as by IAM token. The middle part is an id of the instance, cluster or proxy that no host tells: any of this
 * account and region (https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/UsingWithRDS.IAMDBAuth.IAMPolicy.html).
 */
export function tokenUsersOf(scope: Construct, name: FunctionName, { tokens }: Pick<GrantTargets, 'tokens'>): string[] {
  const users = RIGHTS[name].connects.flatMap((side) => tokens[side] ?? []);
  const arns = users.map(({ user, region }) => {
    // What IAM reads as a pattern is escaped as its variables.
    const resourceName = `*/${user.replaceAll(/[*?$]/g, (special) => `\${${special}}`)}`;
    const parts = { service: 'rds-db', resource: 'dbuser', resourceName, region };
    return Arn.format({ ...parts, arnFormat: ArnFormat.COLON_RESOURCE_NAME }, Stack.of(scope));
  });
  return [...new Set(arns)];
}

function secretStatements(scope: Construct, secrets: readonly string[], key_arn: string | null): PolicyStatement[] {
  const statements = [
    allow(
      ['secretsmanager:GetSecretValue'],
      secrets.map((secret) => secretArn(scope, secret)),
    ),
  ];
  if (key_arn !== null) {
    const decrypt = allow(['kms:Decrypt'], [key_arn]);
    decrypt.addCondition('StringEquals', {
      'kms:ViaService': `secretsmanager.${Stack.of(scope).region}.amazonaws.com`,
    });
    statements.push(decrypt);
  }
  return statements;
}

/**
 * A secret's ARN ends in six characters that Secrets Manager chose; by name they are not known, and question marks stand for them
 * (https://docs.aws.amazon.com/secretsmanager/latest/userguide/auth-and-access_iam-policies.html).
 */
function secretArn(scope: Construct, secret: string): string {
  if (secret.startsWith('arn:')) return secret;
  const resourceName = `${secret}-??????`;
  return Arn.format(
    { service: 'secretsmanager', resource: 'secret', resourceName, arnFormat: ArnFormat.COLON_RESOURCE_NAME },
    Stack.of(scope),
  );
}

/** What Lambda does with the function's role to give it network interfaces (https://docs.aws.amazon.com/lambda/latest/dg/configuration-vpc.html); EC2 knows no resource for most of it. */
function vpcStatement(): PolicyStatement {
  return allow(
    [
      'ec2:CreateNetworkInterface',
      'ec2:DescribeNetworkInterfaces',
      'ec2:DescribeSubnets',
      'ec2:DeleteNetworkInterface',
      'ec2:AssignPrivateIpAddresses',
      'ec2:UnassignPrivateIpAddresses',
    ],
    ['*'],
  );
}

function allow(actions: readonly string[], resources: readonly string[]): PolicyStatement {
  return new PolicyStatement({ actions: [...actions], resources: [...resources] });
}

/**
 * The line between two real servers (line.ts) with lib's own adapters of S3, DynamoDB and SQS in the place of memory. Whatever a window or a bell throws is told, and
 * decides nothing here.
 */
import { DeleteMessageCommand, ReceiveMessageCommand } from '@aws-sdk/client-sqs';
import { asSluiceError, type SluiceError } from '../../lib/errors.ts';
import { parseExtractBell, parseLoadBell } from '../../lib/ledger/bells.ts';
import { sqsDoorbell } from '../../lib/ledger/doorbell.ts';
import { dynamoLedger } from '../../lib/ledger/dynamo.ts';
import { drain, extract, load } from '../../lib/pipeline.ts';
import { s3Stage } from '../../lib/stage/s3.ts';
import type { TestAws } from './aws.ts';
import type { Line } from './line.ts';

const WINDOW_MS = 60_000;

/** The clients that windows, copies and loads work with; those of `aws` itself hear what was rung. */
export type LineClients = Pick<TestAws, 'dynamo' | 's3' | 'sqs'>;

export interface AwsLine {
  readonly ports: () => ReturnType<Line['ports']>;
  /** Null: it ended well. */
  window(): Promise<SluiceError | null>;
  /** Answers what was rung, until nothing more is; a message that fails is not answered again. What failed. */
  pump(): Promise<readonly SluiceError[]>;
}

export function awsLine(line: Line, aws: TestAws, { dynamo, s3, sqs }: LineClients = aws): AwsLine {
  const { pipeline } = line;
  const name = pipeline.pipeline;
  const ports = (): ReturnType<Line['ports']> => {
    const own = line.ports();
    const { clock, log } = own;
    const queues = { load_queue_url: aws.load_queue_url, extract_queue_url: aws.extract_queue_url };
    return {
      ...own,
      ledger: dynamoLedger({ client: dynamo, table: aws.table, pipeline: name, clock }),
      stage: s3Stage({ client: s3, bucket: aws.bucket, log, stall_ms: 500 }),
      doorbell: sqsDoorbell({ client: sqs, pipeline: name, ...queues, clock }),
    };
  };
  const deadline = (): number => Date.now() + WINDOW_MS;
  const answers: readonly (readonly [string, (body: string) => Promise<unknown>])[] = [
    [aws.extract_queue_url, (body) => extract(ports(), pipeline, parseExtractBell(name, body))],
    [
      aws.load_queue_url,
      (body) => {
        const { consistency } = pipeline.target;
        return load(ports(), parseLoadBell(name, body), { deadline_ms: deadline(), consistency });
      },
    ],
  ];
  let runs = 0;
  return {
    ports,
    window: async () => {
      const window = { run: `run-${++runs}`, owner: 'one', lease_ms: WINDOW_MS, ring_all: true };
      try {
        const { error } = await drain(ports(), pipeline, { ...window, deadline_ms: deadline() });
        return error as SluiceError | null;
      } catch (thrown) {
        return asSluiceError(thrown);
      }
    },
    pump: async () => {
      const failed: SluiceError[] = [];
      for (const [queue, answer] of answers) {
        for (let heard = true; heard; ) {
          const receive = new ReceiveMessageCommand({ QueueUrl: queue, MaxNumberOfMessages: 10 });
          const { Messages = [] } = await aws.sqs.send(receive);
          heard = Messages.length > 0;
          for (const { Body = '', ReceiptHandle } of Messages) {
            await answer(Body).catch((thrown: unknown) => failed.push(asSluiceError(thrown)));
            await aws.sqs.send(new DeleteMessageCommand({ QueueUrl: queue, ReceiptHandle }));
          }
        }
      }
      return failed;
    },
  };
}

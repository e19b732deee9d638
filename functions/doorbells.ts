/**
 * Answers the doorbells of one SQS event, with partial batch failures
 * (https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-errorhandling.html): a message that was answered is done; one that failed by what may
 * pass comes again, later each time.
 */
import { ChangeMessageVisibilityCommand, type SQSClient } from '@aws-sdk/client-sqs';
import type { SQSBatchResponse } from 'aws-lambda';
import * as z from 'zod';
import { awsFault } from '../lib/aws-faults.ts';
import { asSluiceError, type SluiceError } from '../lib/errors.ts';
import type { Log } from '../lib/ports.ts';

/** What is used of an SQSEvent. */
export const doorbellEvent = z.object({
  Records: z.array(
    z.object({
      messageId: z.string().min(1),
      receiptHandle: z.string().min(1),
      body: z.string(),
      attributes: z.object({ ApproximateReceiveCount: z.coerce.number().int().min(1) }),
    }),
  ),
});

export type DoorbellEvent = z.output<typeof doorbellEvent>;

/** A lock or a deadlock is gone in seconds; what is not is worth less and less hurry. */
const RETRY_SECONDS_FIRST = 5;
const RETRY_FACTOR = 4;
const RETRY_SECONDS_MAX = 900;

/** Seconds until a message comes again after it has been received `receives` times; `random` in [0, 1) takes off up to a half. */
export function retrySeconds(receives: number, random: number): number {
  const full = Math.min(RETRY_SECONDS_FIRST * RETRY_FACTOR ** (receives - 1), RETRY_SECONDS_MAX);
  return Math.max(1, Math.round(full * (1 - random / 2)));
}

export interface DoorbellPorts {
  readonly sqs: SQSClient;
  readonly queue_url: string;
  readonly log: Log;
  readonly random: () => number;
}

/**
 * Calls `answer` with each message's body in turn. What it throws is not thrown on: a message that is no doorbell is forgotten, any other
 * is given back with a longer and longer delay, until SQS puts it aside.
 */
export async function answerDoorbells(
  ports: DoorbellPorts,
  event: DoorbellEvent,
  answer: (body: string) => Promise<void>,
): Promise<SQSBatchResponse> {
  const batchItemFailures: SQSBatchResponse['batchItemFailures'] = [];
  for (const { messageId, receiptHandle, body, attributes } of event.Records) {
    try {
      await answer(body);
    } catch (thrown) {
      const error = asSluiceError(thrown);
      if (error.code === 'BELL_INVALID') {
        ports.log.error('bell_invalid', { message: messageId, error });
        continue;
      }
      const receives = attributes.ApproximateReceiveCount;
      const retry_seconds = retrySeconds(receives, ports.random());
      logFailure(ports.log, error, { message: messageId, receives, retry_seconds });
      await delay(ports, receiptHandle, retry_seconds);
      batchItemFailures.push({ itemIdentifier: messageId });
    }
  }
  return { batchItemFailures };
}

function logFailure(log: Log, error: SluiceError, facts: Record<string, unknown>): void {
  if (error.disposition === 'retry') log.warn('bell_retried', { ...facts, error });
  else log.error('bell_failed', { ...facts, error });
}

/** Best effort: without it the message comes again after the queue's own visibility timeout. */
async function delay({ sqs, queue_url, log }: DoorbellPorts, receipt: string, seconds: number): Promise<void> {
  try {
    await sqs.send(
      new ChangeMessageVisibilityCommand({ QueueUrl: queue_url, ReceiptHandle: receipt, VisibilityTimeout: seconds }),
    );
  } catch (thrown) {
    log.warn('bell_not_delayed', { error: awsFault('SQS', 'ChangeMessageVisibility', thrown) });
  }
}

/**
 * What Lambda's event source mapping does for a FIFO queue with batch size 1, partial batch responses and a maximum concurrency
 * (https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-scaling.html): receives, calls, deletes what succeeded.
 *
 * SQS itself keeps a message group to one message in flight, counts receives, and moves what failed too often to the dead-letter queue. A message
 * that failed shows again after its visibility timeout, or after the one that its handler has set. While a message is worked on, its
 * visibility is renewed here, so that the queue's own timeout can be short: what was in hand when a sandbox died comes again soon.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import {
  ChangeMessageVisibilityCommand,
  DeleteMessageCommand,
  type Message,
  ReceiveMessageCommand,
  type SQSClient,
} from '@aws-sdk/client-sqs';
import type { SQSEvent, SQSRecord } from 'aws-lambda';
import * as z from 'zod';

export interface PollerOptions {
  readonly sqs: SQSClient;
  readonly queue: { readonly url: string; readonly arn: string };
  readonly region: string;
  /** The queue's visibility timeout. */
  readonly visibility_seconds: number;
  /** Invocations at once. */
  readonly concurrency: number;
  /** Calls the function; rejects when it throws or dies. */
  readonly invoke: (event: SQSEvent) => Promise<unknown>;
  /** An invocation or a call of SQS failed. The message comes again; the poller goes on. */
  readonly onError: (error: unknown) => void;
}

export interface Poller {
  /** Invocations that are running now. */
  readonly running: number;
  /** Receives nothing more; resolves when what is running has ended. */
  stop(): Promise<void>;
}

/** Shorter than SQS allows: some emulators learn only with the next call that a message is visible again. */
const LONG_POLL_SECONDS = 5;
/** Renewals within one visibility timeout: two may be lost. */
const RENEWALS = 3;
const ERROR_WAIT_MS = 1_000;

/** https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-errorhandling.html: nothing, or an empty list, means that all succeeded. */
const BatchResponse = z
  .object({ batchItemFailures: z.array(z.object({ itemIdentifier: z.string().min(1) })).nullish() })
  .nullish();

export function startPoller(options: PollerOptions): Poller {
  const stopping = new AbortController();
  const running = new Set<Promise<void>>();
  const poll = async (): Promise<void> => {
    while (!stopping.signal.aborted) {
      if (running.size >= options.concurrency) {
        await Promise.race(running);
        continue;
      }
      const message = await receive(options, stopping.signal);
      if (message === null) continue;
      const call: Promise<void> = handle(options, message)
        .catch(options.onError)
        .finally(() => running.delete(call));
      running.add(call);
    }
    await Promise.all(running);
  };
  const polling = poll();
  return {
    get running() {
      return running.size;
    },
    stop: async () => {
      stopping.abort();
      await polling;
    },
  };
}

async function receive(options: PollerOptions, signal: AbortSignal): Promise<Message | null> {
  const command = new ReceiveMessageCommand({
    QueueUrl: options.queue.url,
    MaxNumberOfMessages: 1,
    WaitTimeSeconds: LONG_POLL_SECONDS,
    MessageSystemAttributeNames: ['All'],
    MessageAttributeNames: ['All'],
  });
  try {
    const { Messages } = await options.sqs.send(command, { abortSignal: signal });
    return Messages?.[0] ?? null;
  } catch (thrown) {
    if (signal.aborted) return null;
    options.onError(thrown);
    await sleep(ERROR_WAIT_MS, undefined, { signal }).catch(() => undefined); // Cut short by the stop.
    return null;
  }
}

async function handle(options: PollerOptions, message: Message): Promise<void> {
  const { sqs, queue } = options;
  const which = { QueueUrl: queue.url, ReceiptHandle: message.ReceiptHandle };
  const renewing = setInterval(
    () => {
      sqs
        .send(new ChangeMessageVisibilityCommand({ ...which, VisibilityTimeout: options.visibility_seconds }))
        .catch(options.onError);
    },
    (options.visibility_seconds * 1_000) / RENEWALS,
  );
  let response: unknown;
  try {
    response = await options.invoke({ Records: [recordOf(message, options)] });
  } finally {
    clearInterval(renewing);
  }
  if (succeeded(response)) await sqs.send(new DeleteMessageCommand(which));
}

/** A response that is none, or that names another message, fails the batch, as Lambda has it: here that is the one message, in any case. */
function succeeded(response: unknown): boolean {
  const parsed = BatchResponse.safeParse(response);
  return parsed.success && (parsed.data?.batchItemFailures ?? []).length === 0;
}

/** https://docs.aws.amazon.com/lambda/latest/dg/with-sqs.html, the example of a FIFO queue. */
function recordOf(message: Message, { queue, region }: PollerOptions): SQSRecord {
  return {
    messageId: message.MessageId ?? '',
    receiptHandle: message.ReceiptHandle ?? '',
    body: message.Body ?? '',
    attributes: { ...message.Attributes } as unknown as SQSRecord['attributes'],
    messageAttributes: {},
    md5OfBody: message.MD5OfBody ?? '',
    eventSource: 'aws:sqs',
    eventSourceARN: queue.arn,
    awsRegion: region,
  };
}

/**
 * The doorbells in SQS: two FIFO queues, one for loads and one for extracts (I9).
 *
 * Each ring has a deduplication id of its own: SQS swallows a second message with the same id for five minutes, and a stream that is rung
 * again in that time is rung for a reason. Within one ring the id stays the same, so that trying again does not double it.
 */
import { randomUUID } from 'node:crypto';
import { SendMessageBatchCommand, type SQSClient } from '@aws-sdk/client-sqs';
import { awsFault } from '../aws-faults.ts';
import { SluiceError } from '../errors.ts';
import type { Clock, Doorbell, ExtractBell, LoadBell } from '../ports.ts';
import { bellBody, bellGroup, type Ring, ringBatches } from './bells.ts';

/** Attempts at the messages of a batch that SQS did not take, and the wait after the first; it doubles. */
export const RING_ATTEMPTS_MAX = 4;
const RING_WAIT_MS = 50;

export interface SqsDoorbellOptions {
  readonly client: SQSClient;
  readonly pipeline: string;
  readonly load_queue_url: string;
  readonly extract_queue_url: string;
  readonly clock: Clock;
}

/** The `Doorbell` port. Throws when a message was not taken; what was taken before stays. */
export function sqsDoorbell(options: SqsDoorbellOptions): Doorbell {
  const ring = async (queue_url: string, bells: readonly (LoadBell | ExtractBell)[]): Promise<void> => {
    const rings = bells.map((bell) => ({
      id: randomUUID(),
      body: bellBody(options.pipeline, bell),
      group: bellGroup(bell),
    }));
    for (const batch of ringBatches(rings)) await sendBatch(options, queue_url, batch);
  };
  return {
    ringLoad: (bells) => ring(options.load_queue_url, bells),
    ringExtract: (bells) => ring(options.extract_queue_url, bells),
  };
}

async function sendBatch(options: SqsDoorbellOptions, queue_url: string, batch: readonly Ring[]): Promise<void> {
  let left = batch;
  for (let attempt = 1; ; attempt += 1) {
    const failed = await send(options.client, queue_url, left);
    left = left.filter(({ id }) => failed.has(id));
    if (left.length === 0) return;
    const [reason] = failed.values();
    // What SQS calls the sender's fault stays one.
    const isOurs = left.some(({ id }) => failed.get(id)?.isOurs);
    if (isOurs) throw new SluiceError('UNEXPECTED', { reason: `SQS refuses a message: ${reason?.code}` });
    if (attempt === RING_ATTEMPTS_MAX) {
      const facts = {
        service: 'SQS',
        operation: 'SendMessageBatch',
        reason: `${reason?.code} for ${left.length} messages`,
      };
      throw new SluiceError('AWS_TRANSIENT', facts);
    }
    await options.clock.sleep(RING_WAIT_MS * 2 ** (attempt - 1));
  }
}

interface RingFailure {
  readonly code: string;
  readonly isOurs: boolean;
}

/** Sends one batch; the messages that were not taken, by their id. */
async function send(client: SQSClient, queue_url: string, batch: readonly Ring[]): Promise<Map<string, RingFailure>> {
  try {
    const answer = await client.send(
      new SendMessageBatchCommand({
        QueueUrl: queue_url,
        Entries: batch.map(({ id, body, group }) => ({
          Id: id,
          MessageBody: body,
          MessageGroupId: group,
          MessageDeduplicationId: id,
        })),
      }),
    );
    return new Map(
      (answer.Failed ?? []).map((entry) => [
        entry.Id ?? '',
        { code: entry.Code ?? 'no code', isOurs: entry.SenderFault === true },
      ]),
    );
  } catch (error) {
    throw awsFault('SQS', 'SendMessageBatch', error);
  }
}

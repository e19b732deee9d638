/** What servers on one machine never do: leave parts of a batch undone. */
import type { BatchWriteItemCommand, DynamoDBClient } from '@aws-sdk/client-dynamodb';
import { describe, expect, test } from 'vitest';
import { BATCH_ATTEMPTS_MAX, BATCH_ITEMS_MAX, LedgerTable } from '../../lib/ledger/table.ts';
import { HandClock } from '../support/ledger-nouns.ts';

const request = (sk: number) => ({ DeleteRequest: { Key: { pk: { S: 'p' }, sk: { S: String(sk) } } } });
const requests = Array.from({ length: BATCH_ITEMS_MAX + 5 }, (_, sk) => request(sk));

/** A table that leaves the last `undone(call)` requests of each call undone. */
function tableThat(undone: (call: number) => number) {
  const calls: unknown[][] = [];
  const client = {
    send: ({ input }: BatchWriteItemCommand) => {
      const sent = input.RequestItems?.t ?? [];
      calls.push(sent);
      const left = undone(calls.length);
      return Promise.resolve({ UnprocessedItems: left > 0 ? { t: sent.slice(-left) } : {} });
    },
  } as unknown as DynamoDBClient;
  const clock = new HandClock();
  return { calls, clock, table: new LedgerTable(client, 't', clock) };
}

describe('a batch', () => {
  test('is sent in order, 25 at a time', async () => {
    const { table, calls } = tableThat(() => 0);
    await table.writeAll(requests);
    expect(calls).toEqual([requests.slice(0, 25), requests.slice(25)]);
  });

  test('has what was left undone tried again, before the next is sent, with a growing wait', async () => {
    const { table, calls, clock } = tableThat((call) => 4 - call);
    await table.writeAll(requests);
    expect(calls).toEqual([
      requests.slice(0, 25),
      requests.slice(22, 25),
      requests.slice(23, 25),
      requests.slice(24, 25),
      requests.slice(25),
    ]);
    expect(clock.slept).toEqual([25, 50, 100]);
  });

  test('is given up when it stays undone', async () => {
    const { table, calls } = tableThat(() => 1);
    await expect(table.writeAll(requests)).rejects.toMatchObject({ code: 'AWS_TRANSIENT' });
    expect(calls).toHaveLength(BATCH_ATTEMPTS_MAX);
  });
});

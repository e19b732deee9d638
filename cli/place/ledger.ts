/**
 * Ledger and doorbells of a pipeline for the command itself: to show how it stands, and to act on what a person asks. The same adapters as in the
 * functions, over the clients of the local backend.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Backend } from '../../infra/local/backend.ts';
import { sqsDoorbell } from '../../lib/ledger/doorbell.ts';
import { dynamoLedger } from '../../lib/ledger/dynamo.ts';
import type { OperatePorts } from '../../lib/operate.ts';
import type { Clock } from '../../lib/ports.ts';

export const clock: Clock = {
  now: () => Date.now(),
  sleep: async (ms) => {
    await sleep(ms);
  },
};

/** What is logged is for a function's log; a command tells its results itself. */
const NO_LOG = { info: () => undefined, warn: () => undefined, error: () => undefined };

export function operatePorts({ clients, resources }: Backend, pipeline: string): OperatePorts {
  return {
    clock,
    log: NO_LOG,
    ledger: dynamoLedger({ client: clients.dynamodb, table: resources.table, pipeline, clock }),
    doorbell: sqsDoorbell({
      client: clients.sqs,
      pipeline,
      load_queue_url: resources.load.url,
      extract_queue_url: resources.extract.url,
      clock,
    }),
  };
}

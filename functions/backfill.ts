/** Asks for tables to be synchronised anew, on request: `{ kind: 'backfill', tables, reset: true }`. The next window begins it. */
import * as z from 'zod';
import { requestResets } from '../lib/operate.ts';
import { runtime } from './clients.ts';
import { edge } from './edge.ts';

const TABLES_MAX = 1_000;

const backfillEvent = z.strictObject({
  kind: z.literal('backfill'),
  /** Ids, names or globs. */
  tables: z.array(z.string().min(1)).min(1).max(TABLES_MAX),
  reset: z.literal(true),
});

export const handler = edge('backfill', backfillEvent, async ({ tables }) => ({
  streams: await requestResets(runtime().operate, tables),
}));

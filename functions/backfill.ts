/**
 * Rows to be read again, on request: `{ kind: 'backfill', tables, where }` beside the stream, `{ kind: 'backfill', tables, reset: true }` whole tables anew (the next
 * window begins that), `{ kind: 'cancel', tables }`.
 */
import * as z from 'zod';
import { cancelBackfills, requestBackfills } from '../lib/epoch/backfill.ts';
import { checkWhere, WHERE_BYTES_MAX } from '../lib/epoch/where.ts';
import { requestResets } from '../lib/operate.ts';
import { runtime } from './clients.ts';
import { edge } from './edge.ts';

const TABLES_MAX = 1_000;

/** Ids, names or globs. */
const tables = z.array(z.string().min(1)).min(1).max(TABLES_MAX);
const backfillEvent = z.union([
  z.strictObject({ kind: z.literal('backfill'), tables, reset: z.literal(true) }),
  z.strictObject({ kind: z.literal('backfill'), tables, where: z.string().min(1).max(WHERE_BYTES_MAX) }),
  z.strictObject({ kind: z.literal('cancel'), tables }),
]);

export const handler = edge('backfill', backfillEvent, async (event) => {
  const { ports, connector } = runtime();
  if (event.kind === 'cancel') return { streams: await cancelBackfills(ports, event.tables) };
  if ('reset' in event) return { streams: await requestResets(ports, event.tables) };
  const check = (table: Parameters<typeof checkWhere>[1], where: string) =>
    checkWhere(() => connector.connect('source'), table, where);
  return { streams: await requestBackfills(ports, event.tables, event.where, check) };
});

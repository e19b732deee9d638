/**
 * What a person asks of the pipeline: `{ kind: 'status' }`; `{ kind: 'resume', stream }` after a halt; `{ kind: 'resync' }` after the loss of the slot; `{ kind: 'rejects' }`,
 * and with `stream` their rows; `{ kind: 'load_rejects', stream }` and `{ kind: 'discard_rejects', stream }`.
 */
import * as z from 'zod';
import { type PipelineStatus, requestResync, resume, status } from '../lib/operate.ts';
import { discardRejects, firstRejects, listRejects, loadRejects } from '../lib/validation/rejects.ts';
import { runtime } from './clients.ts';
import { edge } from './edge.ts';

const operateEvent = z.discriminatedUnion('kind', [
  z.strictObject({ kind: z.literal('status') }),
  /** An id, a name or a glob. */
  z.strictObject({ kind: z.literal('resume'), stream: z.string().min(1) }),
  z.strictObject({ kind: z.literal('resync') }),
  z.strictObject({ kind: z.literal('rejects'), stream: z.string().min(1).optional() }),
  z.strictObject({ kind: z.enum(['load_rejects', 'discard_rejects']), stream: z.string().min(1) }),
]);

export const handler = edge(
  'operate',
  operateEvent,
  async (
    event,
  ): Promise<PipelineStatus | { readonly streams: readonly object[] } | { readonly rows: readonly object[] }> => {
    const { pipeline, ports } = runtime();
    switch (event.kind) {
      case 'status':
        return await status(ports, pipeline.pipeline);
      case 'resume':
        return { streams: await resume(ports, event.stream) };
      case 'resync':
        return { streams: await requestResync(ports) };
      case 'rejects':
        if (event.stream === undefined) return { streams: await listRejects(ports.ledger) };
        return await firstRejects(ports, event.stream);
      case 'load_rejects':
        return { streams: await loadRejects(ports, pipeline, event.stream) };
      case 'discard_rejects':
        return { streams: await discardRejects(ports, event.stream) };
      default:
        return event satisfies never;
    }
  },
);

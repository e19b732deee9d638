/** What a person asks of the pipeline: `{ kind: 'status' }`; `{ kind: 'resume', stream }` after a halt; `{ kind: 'resync' }` after the loss of the slot. */
import * as z from 'zod';
import { type PipelineStatus, type Resumed, requestResync, resume, status } from '../lib/operate.ts';
import { runtime } from './clients.ts';
import { edge } from './edge.ts';

const operateEvent = z.discriminatedUnion('kind', [
  z.strictObject({ kind: z.literal('status') }),
  /** An id, a name or a glob. */
  z.strictObject({ kind: z.literal('resume'), stream: z.string().min(1) }),
  z.strictObject({ kind: z.literal('resync') }),
]);

export const handler = edge(
  'operate',
  operateEvent,
  async (event): Promise<PipelineStatus | { readonly streams: readonly (Resumed | Omit<Resumed, 'resumed'>)[] }> => {
    const { pipeline, ports } = runtime();
    switch (event.kind) {
      case 'status':
        return await status(ports, pipeline.pipeline);
      case 'resume':
        return { streams: await resume(ports, event.stream) };
      case 'resync':
        return { streams: await requestResync(ports) };
      default:
        return event satisfies never;
    }
  },
);

/** What a person asks of the pipeline: `{ kind: 'status' }`, or `{ kind: 'resume', stream }` after a halt. */
import * as z from 'zod';
import { type PipelineStatus, type Resumed, resume, status } from '../lib/operate.ts';
import { runtime } from './clients.ts';
import { edge } from './edge.ts';

const operateEvent = z.discriminatedUnion('kind', [
  z.strictObject({ kind: z.literal('status') }),
  /** An id, a name or a glob. */
  z.strictObject({ kind: z.literal('resume'), stream: z.string().min(1) }),
]);

export const handler = edge(
  'operate',
  operateEvent,
  async (event): Promise<PipelineStatus | { readonly streams: readonly Resumed[] }> => {
    const { pipeline, operate: ports } = runtime();
    switch (event.kind) {
      case 'status':
        return await status(ports, pipeline.pipeline);
      case 'resume':
        return { streams: await resume(ports, event.stream) };
      default:
        return event satisfies never;
    }
  },
);

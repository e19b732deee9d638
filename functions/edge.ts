/**
 * The chain around every handler: the event is checked before anything is done, and whatever is thrown is logged as what it is, then
 * thrown on, so that Lambda counts it.
 */
import middy from '@middy/core';
import type { Context } from 'aws-lambda';
import * as z from 'zod';
import { asSluiceError, SluiceError } from '../lib/errors.ts';
import { printLine } from './clients.ts';
import { jsonLog } from './log.ts';

export type Edge<Result> = (event: unknown, context: Context) => Promise<Result>;

/** The handler `act` for events of `schema`. USAGE for an event that is none. */
export function edge<Event, Result>(
  name: string,
  schema: z.ZodType<Event>,
  act: (event: Event, context: Context) => Promise<Result>,
): Edge<Result> {
  // Deadlines are lib's own, with time left to end cleanly; middy's would cut in between.
  const chain = middy<unknown, Result>({ timeoutEarlyInMillis: 0 })
    .onError(({ error, context }) => {
      const fault = asSluiceError(error);
      jsonLog(printLine, { function: name }).error('invocation_failed', { request: context.awsRequestId, error: fault });
    })
    .handler(async (event: unknown, context: Context) => await act(parseEvent(name, schema, event), context));
  return async (event, context) => await chain(event, context);
}

function parseEvent<Event>(name: string, schema: z.ZodType<Event>, event: unknown): Event {
  const parsed = schema.safeParse(event);
  if (parsed.success) return parsed.data;
  const [issue] = parsed.error.issues;
  throw new SluiceError('USAGE', {
    problem: `The function ${name} does not understand its event: ${issue?.path.join('.') || 'it'}: ${issue?.message}`,
    remedy: 'Call it with the same version of sluice that was deployed.',
  });
}

/** Milliseconds since the Unix epoch at which work must end, so that `margin_ms` are left to end it cleanly. */
export function deadlineOf(context: Pick<Context, 'getRemainingTimeInMillis'>, margin_ms: number, now_ms: number): number {
  return now_ms + context.getRemainingTimeInMillis() - margin_ms;
}

/**
 * The chain around every handler: the event is checked before anything is done, and whatever is thrown is logged as what it is, then thrown
 * on, so that Lambda counts it and the caller reads what to do.
 */
import middyChain from '@middy/core';
import type { Context } from 'aws-lambda';
import type * as z from 'zod';
import { asSluiceError, SluiceError } from '../lib/errors.ts';
import { printLine } from './clients.ts';
import { jsonLog } from './log.ts';

export type Edge<Result> = (event: unknown, context: Context) => Promise<Result>;

/** The handler `act` for events of `schema`. Throws USAGE for an event that is none, and what `act` throws, as a ToldError. */
export function edge<Event, Result>(
  name: string,
  schema: z.ZodType<Event>,
  act: (event: Event, context: Context) => Promise<Result>,
): Edge<Result> {
  // Deadlines are lib's own, with time left to end cleanly; middy's would cut in between.
  const chain = middyChain<unknown, Result>({ timeoutEarlyInMillis: 0 })
    .onError((request) => {
      const error = asSluiceError(request.error);
      const log = jsonLog(printLine, { function: name });
      log.error('invocation_failed', { request: request.context.awsRequestId, error });
      request.error = new ToldError(error);
    })
    .handler(async (event: unknown, context: Context) => await act(parseEvent(name, schema, event), context));
  return async (event, context) => await chain(event, context);
}

/**
 * The same error, saying all of itself in its message: that, and the name, is what Lambda passes on to whoever called. It has no stack of its own;
 * an unexpected error's is in the log.
 */
class ToldError extends SluiceError {
  constructor(fault: SluiceError) {
    super(fault.code, fault.facts);
    this.message = `${fault.code}: ${fault.message} ${fault.remedy}`;
    this.stack = `${this.name}: ${this.message}`;
  }
}

function parseEvent<Event>(name: string, schema: z.ZodType<Event>, event: unknown): Event {
  const parsed = schema.safeParse(event);
  if (parsed.success) return parsed.data;
  const [issue] = parsed.error.issues;
  throw new SluiceError('USAGE', {
    problem: `The function ${name} does not understand its event: ${issue?.path.join('.') || 'event'}: ${issue?.message}.`,
    remedy: 'Call it with the version of sluice that was deployed.',
  });
}

/** Throws USAGE for an event that is meant for another pipeline. */
export function mustBeFor(pipeline: string, event: { readonly pipeline: string }): void {
  if (event.pipeline === pipeline) return;
  throw new SluiceError('USAGE', {
    problem: `This is pipeline ${pipeline}, and the event is for ${event.pipeline}.`,
    remedy: 'Call the functions of the stack of that pipeline.',
  });
}

/** Milliseconds since the Unix epoch at which work must end, so that `margin_ms` are left to end it cleanly. */
export function deadlineOf(
  context: Pick<Context, 'getRemainingTimeInMillis'>,
  margin_ms: number,
  now_ms: number,
): number {
  return now_ms + context.getRemainingTimeInMillis() - margin_ms;
}

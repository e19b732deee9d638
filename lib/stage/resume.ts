/**
 * A stream of a known number of bytes that survives broken connections: when a body breaks off, it is opened again at the byte reached.
 *
 * A loader that waits for locks reads slowly, and S3 closes connections that idle; a load of ten minutes must not begin again for that.
 * Bounded: attempts that bring no byte, and reopenings in all (I8).
 */
import { Readable } from 'node:stream';
import { awsFault } from '../aws-faults.ts';
import { SluiceError } from '../errors.ts';
import type { Log } from '../ports.ts';

/** Reopenings in a row that bring nothing. */
export const RESUMES_IDLE_MAX = 3;
/** Reopenings of one stream. */
export const RESUMES_MAX = 50;
/** A body that is waited for brings a byte in this time, or is opened again. What nobody reads meanwhile may stand still for as long as it likes. */
export const STALL_MS_MAX = 30_000;
/** Of one stream: with more, it is not the one connection that stands still. */
export const STALLS_MAX = 4;

export interface ResumingOptions {
  /** Opens the bytes from `skip` on. Throws a SluiceError. */
  readonly open: (skip: number, signal: AbortSignal) => Promise<Readable>;
  readonly bytes: number;
  readonly object: string;
  readonly log: Log;
  /** STALL_MS_MAX where it is not said. */
  readonly stall_ms?: number;
}

/** Resolves when the first body is open, so that a missing object is known at once. */
export async function resumingReadable(options: ResumingOptions): Promise<Readable> {
  const abort = new AbortController();
  const pieces = resumedPieces(options, await options.open(0, abort.signal), abort.signal);
  return new Readable({
    read() {
      void pieces.next().then(
        ({ done, value }) => this.push(done ? null : value),
        (error: Error) => this.destroy(error),
      );
    },
    destroy(error, done) {
      // Breaks the body that the generator may be waiting for, so that it ends by itself.
      abort.abort();
      done(error);
    },
  });
}

async function* resumedPieces(
  options: ResumingOptions,
  first: Readable,
  signal: AbortSignal,
): AsyncGenerator<Buffer, void, undefined> {
  let body = first;
  const stop = () => body.destroy();
  signal.addEventListener('abort', stop);
  let reached = 0;
  let resumes = 0;
  let idle = 0;
  let stalls = 0;
  const { stall_ms = STALL_MS_MAX } = options;
  try {
    for (;;) {
      const before = reached;
      let fault: SluiceError | null = null;
      try {
        for await (const piece of unstalled(body, stall_ms)) {
          reached += piece.length;
          yield piece;
        }
      } catch (error) {
        if (error instanceof Stall) stalls += 1;
        fault = error instanceof Stall ? broken(error.message) : awsFault('S3', 'GetObject', error);
        if (fault.code !== 'AWS_TRANSIENT') throw fault;
      }
      if (reached >= options.bytes || signal.aborted) return;
      fault ??= broken('the body ended early');
      idle = reached > before ? 0 : idle + 1;
      resumes += 1;
      if (idle >= RESUMES_IDLE_MAX || resumes > RESUMES_MAX || stalls >= STALLS_MAX) throw fault;
      options.log.info('stage_read_resumed', { object: options.object, reached, bytes: options.bytes, resumes });
      body = await options.open(reached, signal);
      if (signal.aborted) return;
    }
  } finally {
    signal.removeEventListener('abort', stop);
    body.destroy();
  }
}

class Stall extends Error {}

function broken(reason: string): SluiceError {
  return new SluiceError('AWS_TRANSIENT', { service: 'S3', operation: 'GetObject', reason });
}

/** The same pieces. Throws a Stall, and breaks the body, where the next one is waited for too long. */
async function* unstalled(body: Readable, stall_ms: number): AsyncGenerator<Buffer, void, undefined> {
  const stop = (): void => {
    body.destroy(new Stall(`the body stood still for ${stall_ms} ms`));
  };
  let timer = setTimeout(stop, stall_ms);
  try {
    for await (const piece of body as AsyncIterable<Buffer>) {
      clearTimeout(timer);
      yield piece;
      timer = setTimeout(stop, stall_ms);
    }
  } finally {
    clearTimeout(timer);
  }
}

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

export interface ResumingOptions {
  /** Opens the bytes from `skip` on. Throws a SluiceError. */
  readonly open: (skip: number, signal: AbortSignal) => Promise<Readable>;
  readonly bytes: number;
  readonly object: string;
  readonly log: Log;
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
  try {
    for (;;) {
      const before = reached;
      let fault: SluiceError | null = null;
      try {
        for await (const piece of body as AsyncIterable<Buffer>) {
          reached += piece.length;
          yield piece;
        }
      } catch (error) {
        fault = awsFault('S3', 'GetObject', error);
        if (fault.code !== 'AWS_TRANSIENT') throw fault;
      }
      if (reached >= options.bytes || signal.aborted) return;
      fault ??= new SluiceError('AWS_TRANSIENT', {
        service: 'S3',
        operation: 'GetObject',
        reason: 'the body ended early',
      });
      idle = reached > before ? 0 : idle + 1;
      resumes += 1;
      if (idle >= RESUMES_IDLE_MAX || resumes > RESUMES_MAX) throw fault;
      options.log.info('stage_read_resumed', { object: options.object, reached, bytes: options.bytes, resumes });
      body = await options.open(reached, signal);
      if (signal.aborted) return;
    }
  } finally {
    signal.removeEventListener('abort', stop);
    body.destroy();
  }
}

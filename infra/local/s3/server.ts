/**
 * An S3 server on loopback that keeps objects in files: the calls that Sluice makes, in the real protocol, for the real SDK clients
 * (https://docs.aws.amazon.com/AmazonS3/latest/API/). Buckets are addressed by path, as the SDK does where the endpoint is an IP address.
 * What it does not do it refuses (NotImplemented); signatures are not checked.
 *
 * Why not an emulator from npm: fauxqs 2.4 holds uploads in memory and joins them there. An object of 200 MB in parts of 8 MB took its process to
 * 536 MB, and reading 900 bytes of it to 744 MB; here both stay within a few MB (I8).
 */
import { randomUUID } from 'node:crypto';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { type LocalServer, listenOnLoopback } from '../loopback.ts';
import { S3Fault } from './fault.ts';
import { HANDLERS, operationOf } from './operations.ts';
import { S3Store } from './store.ts';
import { document } from './xml.ts';

/** One request, with the path and query taken apart. */
export interface S3Request {
  readonly bucket: string;
  readonly key: string;
  readonly query: URLSearchParams;
  readonly message: IncomingMessage;
}

export interface S3Answer {
  readonly status: number;
  readonly headers?: Readonly<Record<string, string | number>>;
  /** Text is XML. */
  readonly body?: string | AsyncIterable<Buffer>;
}

/** Opens the store in `directory` and serves it; `onError` hears of faults that are the server's own. */
export async function startS3(directory: string, onError: (error: unknown) => void): Promise<LocalServer> {
  const store = await S3Store.open(directory);
  const server = createServer((message, response) => {
    serve(store, message, response).catch(onError);
  });
  return await listenOnLoopback(server);
}

async function serve(store: S3Store, message: IncomingMessage, response: ServerResponse): Promise<void> {
  response.setHeader('x-amz-request-id', randomUUID());
  let answer: S3Answer;
  let failure: unknown;
  try {
    const request = takeApart(message);
    answer = await HANDLERS[operationOf(request)](store, request);
  } catch (thrown) {
    if (!(thrown instanceof S3Fault) && !message.destroyed) failure = thrown;
    answer = faultAnswer(thrown, message);
  }
  await send(answer, message, response);
  if (failure !== undefined) throw failure;
}

function takeApart(message: IncomingMessage): S3Request {
  // Not by `URL`: it would take the dots out of keys such as `a/../b`.
  const [path = '', query = ''] = (message.url ?? '').split('?', 2);
  const [, bucket = '', key = ''] = /^\/([^/]*)\/?(.*)$/s.exec(path) ?? [];
  try {
    return {
      bucket: decodeURIComponent(bucket),
      key: decodeURIComponent(key),
      query: new URLSearchParams(query),
      message,
    };
  } catch {
    throw new S3Fault('InvalidArgument', 'The path is not percent-encoded UTF-8.');
  }
}

function faultAnswer(thrown: unknown, message: IncomingMessage): S3Answer {
  const fault =
    thrown instanceof S3Fault
      ? thrown
      : new S3Fault('InternalError', 'We encountered an internal error. Please try again.');
  const body = document([
    'Error',
    [
      ['Code', fault.code],
      ['Message', fault.message],
      ['Resource', message.url ?? ''],
    ],
  ]);
  return { status: fault.status, body };
}

async function send(answer: S3Answer, message: IncomingMessage, response: ServerResponse): Promise<void> {
  if (message.destroyed && !message.complete) return; // The client has gone away in the middle of its request.
  const { status, headers = {}, body = '' } = answer;
  if (typeof body !== 'string') {
    response.writeHead(status, headers);
    await pipeline(Readable.from(body, { objectMode: false }), response).catch((thrown: NodeJS.ErrnoException) => {
      if (thrown.code !== 'ERR_STREAM_PREMATURE_CLOSE' && thrown.code !== 'ECONNRESET') throw thrown; // The reader has seen enough.
    });
    return;
  }
  // A request that was refused before its body was read: the connection cannot be used for another.
  if (!message.complete) response.setHeader('connection', 'close');
  const isXml = body !== '' && message.method !== 'HEAD';
  response.writeHead(status, {
    ...(isXml ? { 'content-type': 'application/xml' } : {}),
    ...(isXml || message.method !== 'HEAD' ? { 'content-length': isXml ? Buffer.byteLength(body) : 0 } : {}),
    ...headers,
  });
  response.end(isXml ? body : undefined);
  message.resume();
}

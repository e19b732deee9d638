/**
 * The body of an S3 request, as it comes from the socket: unwrapped from `aws-chunked`, and checked against the checksums that came with it.
 * Nothing is held but what the socket has just delivered (I8).
 *
 * https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-streaming-trailers.html: SDKs send a body whose length they know with its checksum in
 * a header, and a stream in chunks with the checksum behind the last one.
 */
import { createHash } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import { crc32 } from 'node:zlib';
import { S3Fault } from './fault.ts';

const LINE_BYTES_MAX = 8_192;
const TRAILERS_MAX = 16;

interface Digest {
  update(bytes: Buffer): void;
  base64(): string;
}

/** The checksums that are verified, by header or trailer. The SDK's default is CRC-32. */
const DIGESTS: Readonly<Record<string, () => Digest>> = {
  'content-md5': () => hashDigest('md5'),
  'x-amz-checksum-crc32': crc32Digest,
  'x-amz-checksum-sha1': () => hashDigest('sha1'),
  'x-amz-checksum-sha256': () => hashDigest('sha256'),
};

/** Bytes of the object or part. The last thing it does is to verify: BadDigest means that none of it may be kept. */
export async function* bodyOf(request: IncomingMessage): AsyncGenerator<Buffer> {
  const chunked = request.headers['content-encoding']?.includes('aws-chunked') ?? false;
  const names = declaredChecksums(request);
  const digests = names.map((name) => [name, digestFor(name)] as const);
  const trailers = new Map<string, string>();
  for await (const bytes of chunked ? unchunk(request, trailers) : (request as AsyncIterable<Buffer>)) {
    for (const [, digest] of digests) digest.update(bytes);
    yield bytes;
  }
  for (const [name, digest] of digests) {
    const expected = request.headers[name] ?? trailers.get(name);
    if (expected !== digest.base64()) {
      throw new S3Fault('BadDigest', `The ${name} you specified did not match what was received.`);
    }
  }
}

function declaredChecksums(request: IncomingMessage): string[] {
  const trailer = request.headers['x-amz-trailer'];
  const inTrailer = typeof trailer === 'string' ? trailer.split(',').map((name) => name.trim().toLowerCase()) : [];
  const inHeaders = Object.keys(request.headers).filter(
    (name) => name === 'content-md5' || /^x-amz-checksum-(?!mode$|algorithm$|type$)/.test(name),
  );
  return [...new Set([...inHeaders, ...inTrailer])];
}

function digestFor(name: string): Digest {
  const make = DIGESTS[name];
  if (make === undefined) throw new S3Fault('NotImplemented', `The local S3 server cannot verify ${name}.`);
  return make();
}

function hashDigest(algorithm: string): Digest {
  const hash = createHash(algorithm);
  return { update: (bytes) => hash.update(bytes), base64: () => hash.digest('base64') };
}

function crc32Digest(): Digest {
  let value = 0;
  return {
    update: (bytes) => {
      value = crc32(bytes, value);
    },
    base64: () => {
      const bytes = Buffer.alloc(4);
      bytes.writeUInt32BE(value);
      return bytes.toString('base64');
    },
  };
}

/**
 * Takes chunks apart: `hex-size[;chunk-signature=…]\r\n bytes \r\n`, the last of size 0, then trailer lines and an empty one. Signatures are not
 * checked: the server is reached over loopback only, and any credentials will do.
 */
export async function* unchunk(source: AsyncIterable<Buffer>, trailers: Map<string, string>): AsyncGenerator<Buffer> {
  const input = source[Symbol.asyncIterator]();
  let held: Buffer = Buffer.alloc(0);
  const more = async (): Promise<void> => {
    const next = await input.next();
    if (next.done) throw new S3Fault('IncompleteBody', 'The body ended within a chunk.');
    held = held.length === 0 ? next.value : Buffer.concat([held, next.value]);
  };
  const line = async (): Promise<string> => {
    let end = held.indexOf('\r\n');
    while (end < 0) {
      if (held.length > LINE_BYTES_MAX) throw new S3Fault('IncompleteBody', 'A chunk header has no end.');
      await more();
      end = held.indexOf('\r\n');
    }
    const text = held.toString('latin1', 0, end);
    held = held.subarray(end + 2);
    return text;
  };

  for (let left = chunkBytes(await line()); left > 0; left = chunkBytes(await line())) {
    while (left > 0) {
      if (held.length === 0) await more();
      const piece = held.subarray(0, left);
      held = held.subarray(piece.length);
      left -= piece.length;
      yield piece;
    }
    if ((await line()) !== '') throw new S3Fault('IncompleteBody', 'A chunk is longer than its header says.');
  }
  for (let text = await line(); text !== ''; text = await line()) {
    const colon = text.indexOf(':');
    if (colon < 0 || trailers.size === TRAILERS_MAX) throw new S3Fault('IncompleteBody', 'The trailers are malformed.');
    trailers.set(text.slice(0, colon).trim().toLowerCase(), text.slice(colon + 1).trim());
  }
}

function chunkBytes(header: string): number {
  const [, hex] = /^([0-9a-fA-F]{1,12})(?:;|$)/.exec(header) ?? [];
  if (hex === undefined) throw new S3Fault('IncompleteBody', 'A chunk header is malformed.');
  return Number.parseInt(hex, 16);
}

/** The S3 calls that the local server answers: which one a request is, and what each does to the store. */
import { text } from 'node:stream/consumers';
import { bodyOf } from './body.ts';
import { S3Fault } from './fault.ts';
import { listObjects } from './listing.ts';
import type { S3Answer, S3Request } from './server.ts';
import { type ObjectAttributes, PART_NUMBER_MAX, type S3Store, type StoredObject } from './store.ts';
import { document, type Element, listOf } from './xml.ts';

type Handler = (store: S3Store, request: S3Request) => Promise<S3Answer> | S3Answer;

/** A list of 10,000 parts or 1,000 keys is smaller. */
const XML_BYTES_MAX = 4 * 1024 * 1024;
const DELETED_MAX = 1_000;
const PART_BYTES_MAX = 5 * 1024 ** 3;

/** By operation, as AWS names them. */
export const HANDLERS = {
  ListBuckets: (store) => {
    const buckets: Element[] = store.buckets().map((name) => ['Bucket', [['Name', name]]]);
    return xml(['ListAllMyBucketsResult', [['Buckets', buckets]]]);
  },
  CreateBucket: (store, { bucket }) => {
    store.createBucket(bucket);
    return { status: 200, headers: { location: `/${bucket}` } };
  },
  HeadBucket: (store, { bucket }) => {
    store.mustHave(bucket);
    return { status: 200, headers: { 'x-amz-bucket-region': 'us-east-1' } };
  },
  DeleteBucket: (store, { bucket }) => {
    store.deleteBucket(bucket);
    return { status: 204 };
  },
  ListObjectsV2: async (store, { bucket, query }) => xml(await listObjects(store, bucket, query)),
  PutObject: async (store, request) => {
    const { bucket, key } = request;
    const object = await store.put(bucket, key, attributesOf(request), isOnlyIfAbsent(request), bodyWithin(request));
    return { status: 200, headers: { etag: quoted(object.etag) } };
  },
  GetObject: async (store, { bucket, key, message }) => {
    const object = await store.head(bucket, key);
    const range = rangeOf(message.headers.range, object.bytes);
    if (range === null)
      return { status: 200, headers: headersOf(object), body: store.read(object, 0, object.bytes - 1) };
    const [start, end] = range;
    return {
      status: 206,
      headers: {
        ...headersOf(object),
        'content-length': end - start + 1,
        'content-range': `bytes ${start}-${end}/${object.bytes}`,
      },
      body: store.read(object, start, end),
    };
  },
  HeadObject: async (store, { bucket, key }) => ({ status: 200, headers: headersOf(await store.head(bucket, key)) }),
  DeleteObject: async (store, { bucket, key }) => {
    await store.delete(bucket, key);
    return { status: 204 };
  },
  DeleteObjects: async (store, request) => {
    store.mustHave(request.bucket);
    const body = await xmlBody(request);
    const keys = listOf(body, 'Object', ['Key']).map(({ Key }) => Key);
    if (keys.length === 0 || keys.length > DELETED_MAX)
      throw new S3Fault('MalformedXML', `Name 1 to ${DELETED_MAX} keys.`);
    for (const key of keys) await store.delete(request.bucket, key);
    const quiet = /<Quiet>\s*true\s*<\/Quiet>/.test(body);
    return xml(['DeleteResult', quiet ? [] : keys.map((key) => ['Deleted', [['Key', key]]])]);
  },
  CreateMultipartUpload: async (store, request) => {
    const { bucket, key } = request;
    const id = await store.createUpload(bucket, key, attributesOf(request));
    return xml([
      'InitiateMultipartUploadResult',
      [
        ['Bucket', bucket],
        ['Key', key],
        ['UploadId', id],
      ],
    ]);
  },
  UploadPart: async (store, request) => {
    const { bucket, key, query } = request;
    const number = Number(query.get('partNumber'));
    if (!Number.isInteger(number) || number < 1 || number > PART_NUMBER_MAX) {
      throw new S3Fault('InvalidArgument', `Part number must be an integer between 1 and ${PART_NUMBER_MAX}.`);
    }
    const etag = await store.putPart(uploadIdOf(request), bucket, key, number, bodyWithin(request));
    return { status: 200, headers: { etag: quoted(etag) } };
  },
  CompleteMultipartUpload: async (store, request) => {
    const { bucket, key } = request;
    const parts = listOf(await xmlBody(request), 'Part', ['PartNumber', 'ETag']).map(({ PartNumber, ETag }) => ({
      number: Number(PartNumber),
      etag: ETag.replaceAll('"', ''),
    }));
    const object = await store.completeUpload(uploadIdOf(request), bucket, key, parts, isOnlyIfAbsent(request));
    return xml([
      'CompleteMultipartUploadResult',
      [
        ['Location', `/${bucket}/${key}`],
        ['Bucket', bucket],
        ['Key', key],
        ['ETag', quoted(object.etag)],
      ],
    ]);
  },
  AbortMultipartUpload: async (store, request) => {
    await store.abortUpload(uploadIdOf(request), request.bucket, request.key);
    return { status: 204 };
  },
} as const satisfies Record<string, Handler>;

export type Operation = keyof typeof HANDLERS;

/** Parameters that choose an operation, or that the SDK adds and that change nothing. Any other means a call that is not answered here. */
const KNOWN_PARAMETERS = new Set(
  'list-type prefix delimiter max-keys continuation-token start-after encoding-type fetch-owner delete uploads uploadId partNumber x-id'.split(
    ' ',
  ),
);
const REFUSED_HEADERS: Readonly<Record<string, readonly string[]>> = {
  PUT: ['x-amz-copy-source', 'if-match'],
  POST: ['if-match'],
  GET: ['if-match', 'if-none-match', 'if-modified-since', 'if-unmodified-since'],
  HEAD: ['if-match', 'if-none-match', 'if-modified-since', 'if-unmodified-since'],
  DELETE: ['if-match'],
};

/** The operation that a request means, by method, place and parameters. */
export function operationOf({ bucket, key, query, message }: S3Request): Operation {
  const strange =
    [...query.keys()].find((name) => !KNOWN_PARAMETERS.has(name)) ??
    REFUSED_HEADERS[message.method ?? '']?.find((name) => name in message.headers);
  if (strange !== undefined)
    throw new S3Fault('NotImplemented', `The local S3 server does not do what ${strange} asks.`);
  const method = message.method ?? '';
  const place = bucket === '' ? 'service' : key === '' ? 'bucket' : 'object';
  const asked = ['delete', 'uploads', 'uploadId', 'list-type'].find((name) => query.has(name)) ?? '';
  const operation = OPERATIONS[`${method} ${place} ${asked}`.trim()];
  if (operation === undefined)
    throw new S3Fault('NotImplemented', `The local S3 server has no ${method} of this kind.`);
  return operation;
}

const OPERATIONS: Readonly<Record<string, Operation>> = {
  'GET service': 'ListBuckets',
  'PUT bucket': 'CreateBucket',
  'HEAD bucket': 'HeadBucket',
  'DELETE bucket': 'DeleteBucket',
  'GET bucket list-type': 'ListObjectsV2',
  'POST bucket delete': 'DeleteObjects',
  'PUT object': 'PutObject',
  'GET object': 'GetObject',
  'HEAD object': 'HeadObject',
  'DELETE object': 'DeleteObject',
  'POST object uploads': 'CreateMultipartUpload',
  'PUT object uploadId': 'UploadPart',
  'POST object uploadId': 'CompleteMultipartUpload',
  'DELETE object uploadId': 'AbortMultipartUpload',
};

function xml(root: Element): S3Answer {
  return { status: 200, body: document(root) };
}

function quoted(etag: string): string {
  return `"${etag}"`;
}

function uploadIdOf({ query }: S3Request): string {
  return query.get('uploadId') ?? '';
}

function isOnlyIfAbsent({ message }: S3Request): boolean {
  const condition = message.headers['if-none-match'];
  if (condition === undefined) return false;
  if (condition === '*') return true;
  throw new S3Fault('NotImplemented', 'The local S3 server knows If-None-Match only as *.');
}

function attributesOf({ message }: S3Request): ObjectAttributes {
  const metadata = Object.entries(message.headers)
    .filter(([name]) => name.startsWith('x-amz-meta-'))
    .map(([name, value]) => [name.slice('x-amz-meta-'.length), String(value)]);
  return {
    content_type: message.headers['content-type'] ?? 'application/octet-stream',
    metadata: Object.fromEntries(metadata) as Record<string, string>,
  };
}

function headersOf(object: StoredObject): Record<string, string | number> {
  return {
    'content-length': object.bytes,
    'content-type': object.content_type,
    etag: quoted(object.etag),
    'last-modified': new Date(object.modified_at_ms).toUTCString(),
    'accept-ranges': 'bytes',
    ...Object.fromEntries(Object.entries(object.metadata).map(([name, value]) => [`x-amz-meta-${name}`, value])),
  };
}

/** Both ends inclusive; null: the whole object, which is also S3's answer to a header that it cannot read, several ranges among them. */
export function rangeOf(header: string | undefined, bytes: number): readonly [start: number, end: number] | null {
  const [, first = '', last = ''] = /^bytes=(\d*)-(\d*)$/.exec(header ?? '') ?? [];
  if (first === '' && last === '') return null;
  if (first !== '' && last !== '' && Number(last) < Number(first)) return null;
  const start = first === '' ? Math.max(bytes - Number(last), 0) : Number(first);
  const end = first === '' || last === '' ? bytes - 1 : Math.min(Number(last), bytes - 1);
  if (start > end) throw new S3Fault('InvalidRange', 'The requested range is not satisfiable.');
  return [start, end];
}

async function* bodyWithin({ message }: S3Request): AsyncGenerator<Buffer> {
  let bytes = 0;
  for await (const piece of bodyOf(message)) {
    bytes += piece.length;
    if (bytes > PART_BYTES_MAX)
      throw new S3Fault('EntityTooLarge', 'Your proposed upload exceeds the maximum allowed size.');
    yield piece;
  }
}

async function xmlBody({ message }: S3Request): Promise<string> {
  if (Number(message.headers['content-length'] ?? 0) > XML_BYTES_MAX)
    throw new S3Fault('MalformedXML', 'The request body is too long.');
  return await text(bodyOf(message));
}

/** ListObjectsV2: https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListObjectsV2.html */
import { S3Fault } from './fault.ts';
import type { S3Store } from './store.ts';
import type { Element } from './xml.ts';

const KEYS_MAX = 1_000;

/**
 * One page. Each page walks the names below the prefix anew, so that there is nothing to keep between pages; the token is the last key, or common
 * prefix, of the page before.
 */
export async function listObjects(store: S3Store, bucket: string, query: URLSearchParams): Promise<Element> {
  if (query.has('encoding-type'))
    throw new S3Fault('NotImplemented', 'The local S3 server does not encode keys in listings.');
  const prefix = query.get('prefix') ?? '';
  const delimiter = query.get('delimiter') ?? '';
  const max = Math.min(Number(query.get('max-keys') ?? KEYS_MAX), KEYS_MAX);
  if (!Number.isInteger(max) || max < 0) throw new S3Fault('InvalidArgument', 'max-keys must be a whole number.');
  const token = query.get('continuation-token');
  const after = token === null ? (query.get('start-after') ?? '') : Buffer.from(token, 'base64url').toString();

  const entries = [...new Set(store.keys(bucket, prefix).map((key) => entryOf(key, prefix, delimiter)))].filter(
    (entry) => compareKeys(entry, after) > 0,
  );
  const page = entries.slice(0, max);
  const last = page.at(-1);
  const isTruncated = entries.length > page.length && last !== undefined;
  const isPrefix = (entry: string): boolean => delimiter !== '' && entry.slice(prefix.length).endsWith(delimiter);
  const contents: Element[] = [];
  for (const key of page.filter((entry) => !isPrefix(entry))) contents.push(...(await contentsOf(store, bucket, key)));
  return [
    'ListBucketResult',
    [
      ['Name', bucket],
      ['Prefix', prefix],
      ...(delimiter === '' ? [] : ([['Delimiter', delimiter]] as const)),
      ['MaxKeys', max],
      ['KeyCount', page.length],
      ['IsTruncated', isTruncated],
      ...(isTruncated ? ([['NextContinuationToken', Buffer.from(last).toString('base64url')]] as const) : []),
      ...contents,
      ...page.filter(isPrefix).map((entry): Element => ['CommonPrefixes', [['Prefix', entry]]]),
    ],
  ];
}

/** The key, or what it shares with others up to the first delimiter after the prefix. */
function entryOf(key: string, prefix: string, delimiter: string): string {
  const end = delimiter === '' ? -1 : key.indexOf(delimiter, prefix.length);
  return end < 0 ? key : key.slice(0, end + delimiter.length);
}

function compareKeys(a: string, b: string): number {
  return Buffer.compare(Buffer.from(a), Buffer.from(b));
}

/** Nothing for an object that has been deleted meanwhile. */
async function contentsOf(store: S3Store, bucket: string, key: string): Promise<Element[]> {
  const object = await store.head(bucket, key).catch((thrown: unknown) => {
    if (thrown instanceof S3Fault && thrown.code === 'NoSuchKey') return null;
    throw thrown;
  });
  if (object === null) return [];
  const contents: Element[] = [
    ['Key', key],
    ['LastModified', new Date(object.modified_at_ms).toISOString()],
    ['ETag', `"${object.etag}"`],
    ['Size', object.bytes],
    ['StorageClass', 'STANDARD'],
  ];
  return [['Contents', contents]];
}

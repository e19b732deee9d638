/**
 * A stream's id: what names it in the ledger, in object names, as message group of its doorbells, and on the command line.
 */
import { createHash } from 'node:crypto';
import type { TableName } from '../shape.ts';
import { displayName } from '../shape.ts';

const SLUG_MAX = 40;
const HASH_DIGITS = 8;

/**
 * Readable, and safe as an SQS message group, an S3 key and a DynamoDB key: the name reduced to `[a-z0-9_.-]` and cut, then part of the
 * SHA-256 of schema, zero byte, table, which tells apart what the reduction made equal. It depends on the name alone, so that a stream keeps its
 * id whatever else is selected.
 */
export function streamId(name: TableName): string {
  const slug = displayName(name)
    .toLowerCase()
    .replaceAll(/[^a-z0-9_.-]/gu, '_')
    .slice(0, SLUG_MAX);
  const hash = createHash('sha256').update(`${name.schema}\0${name.table}`, 'utf8').digest('hex').slice(0, HASH_DIGITS);
  return `${slug}-${hash}`;
}

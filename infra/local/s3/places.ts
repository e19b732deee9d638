/**
 * Where the objects of a bucket lie on disk. A key's `/` becomes a directory, so that a person can look around; every object is a directory too,
 * because it must appear with all its parts in one rename:
 *
 *     orders/7/Data  →  +orders/+7/=%44ata
 *
 * The marks keep `a` and `a/b` apart. Upper case is escaped, so that keys which differ only in case stay apart on every file system.
 */
import { S3Fault } from './fault.ts';

const KEY_BYTES_MAX = 1_024;
/** A file name has 255 bytes on every file system in use. */
const NAME_BYTES_MAX = 255;
const PLAIN = /[^a-z0-9._-]/gu;

/** The path of a key's object below its bucket, in names. */
export function placeOf(key: string): string[] {
  if (key === '' || Buffer.byteLength(key) > KEY_BYTES_MAX)
    throw new S3Fault('KeyTooLongError', 'Your key is too long, or empty.');
  const segments = key.split('/');
  return segments.map((segment, index) => {
    const name = `${index === segments.length - 1 ? '=' : '+'}${escapeSegment(segment)}`;
    if (name.length > NAME_BYTES_MAX)
      throw new S3Fault('KeyTooLongError', 'A part of your key between slashes is too long for a file name.');
    return name;
  });
}

/** The reverse, for a listing: the text that a directory (`+a` → `a/`) or object (`=a` → `a`) adds to a key; null for what is neither. */
export function keyPieceOf(name: string): string | null {
  const segment = decodeURIComponent(name.slice(1));
  if (name.startsWith('+')) return `${segment}/`;
  return name.startsWith('=') ? segment : null;
}

function escapeSegment(segment: string): string {
  return segment.replaceAll(PLAIN, (character) =>
    [...Buffer.from(character)].map((byte) => `%${byte.toString(16).padStart(2, '0').toUpperCase()}`).join(''),
  );
}

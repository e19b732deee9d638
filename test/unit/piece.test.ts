/** Text of giant values in packed pieces (piece.ts), and the messages of many megabytes that are taken apart without being put together. */
import { createHash, randomBytes } from 'node:crypto';
import { describe, expect, test } from 'vitest';
import { escapedPieces } from '../../lib/cut/copy-text.ts';
import { compactGiant } from '../../lib/decode/giant.ts';
import { compactGiantJson } from '../../lib/decode/wal2json-giant.ts';
import { bytesOf, headOf, isPacked, joined, Packer, type Piece } from '../../lib/piece.ts';
import { FrameSplitter, withoutHead, XLOG_DATA_HEADER_BYTES } from '../../lib/slot/wire.ts';

const MIB = 1024 * 1024;
/** Less than in the product, which makes no other difference. */
const PACKED_BYTES_MIN = 2 * MIB;
/** What a socket hands over at a time. */
const CHUNK_BYTES = 64 * 1024;

function packed(text: Buffer): Piece[] {
  const packer = new Packer();
  for (let at = 0; at < text.length; at += CHUNK_BYTES) {
    const chunk = Buffer.from(text.subarray(at, at + CHUNK_BYTES));
    packer.push(chunk);
    chunk.fill('!'); // What was pushed may be used for something else.
  }
  return packer.end();
}

/** Of these digits a byte has four bits of news. */
const digits = (bytes: number): Buffer => Buffer.from(randomBytes(bytes / 2).toString('hex'), 'latin1');

describe('packed text', () => {
  test.each([
    ['nothing', Buffer.alloc(0), 0],
    ['a byte', Buffer.from('x'), 1],
    ['hexadecimal digits', digits(2 * MIB + 8), 3],
    ['what cannot be compressed', randomBytes(MIB + 3), 2],
  ])('%s comes back as it was', (_, text, count) => {
    const pieces = packed(text);
    expect(pieces).toHaveLength(count);
    expect(bytesOf(pieces)).toBe(text.length);
    expect(joined(pieces).equals(text)).toBe(true);
    expect(headOf(pieces, 100).equals(text.subarray(0, 100))).toBe(true);
  });

  test('what was unpacked is the caller’s own', () => {
    for (const text of [digits(1000), randomBytes(1000)]) {
      const pieces = packed(text);
      joined(pieces);
      for (const piece of pieces) if (isPacked(piece)) piece.text().fill(0);
      expect(joined(pieces).equals(text)).toBe(true);
    }
  });

  test('is escaped when it is unpacked', () => {
    const text = Buffer.from('a\tb\\c\nd'.repeat(50_000));
    const escaped = escapedPieces(packed(text));
    expect(escaped.every(isPacked)).toBe(true);
    expect(joined(escaped).toString()).toBe('a\\tb\\\\c\\nd'.repeat(50_000));
  });
});

/** A copy message as a replication connection brings it, by chunks; what the splitter hands on. */
function received(message: Buffer): readonly Piece[] {
  const payload = Buffer.concat([Buffer.alloc(XLOG_DATA_HEADER_BYTES, 'w'), message]);
  const header = Buffer.from('d....', 'latin1');
  header.writeUInt32BE(4 + payload.length, 1);
  const bytes = Buffer.concat([header, payload]);
  const splitter = new FrameSplitter(PACKED_BYTES_MIN);
  let got: readonly Piece[] | null = null;
  for (let at = 0; at < bytes.length; at += CHUNK_BYTES) {
    const chunk = Buffer.from(bytes.subarray(at, at + CHUNK_BYTES));
    splitter.feed(chunk, 0, (_type, _bytes, _start, _end, pieces) => {
      got = pieces;
      return true;
    });
  }
  if (got === null) throw new Error('no giant came');
  return withoutHead(got, XLOG_DATA_HEADER_BYTES);
}

/** Values of megabytes are compared by it: a list of numbers is a slow thing to compare. */
const digestOf = (text: Buffer | string): string => createHash('md5').update(text).digest('hex');
const isGiant = ({ length }: Buffer | string): boolean => length > 1000;
const held = (pieces: readonly Piece[]): number =>
  pieces.filter((piece) => !isPacked(piece)).reduce((sum, { length }) => sum + length, 0);

describe('a message of many megabytes', () => {
  test('is packed as it arrives, but for its head; one a byte smaller is not', () => {
    for (const less of [0, XLOG_DATA_HEADER_BYTES + 1]) {
      const message = digits(PACKED_BYTES_MIN).subarray(less);
      const pieces = received(message);
      expect(joined(pieces).equals(message)).toBe(true);
      expect(held(pieces)).toBe(less === 0 ? CHUNK_BYTES - XLOG_DATA_HEADER_BYTES : message.length);
    }
  });

  test('of pgoutput gives its values, wherever they begin and end in the pieces', () => {
    const values = [digits(MIB), Buffer.from('small'), digits(100_000), randomBytes(70_000), digits(MIB + 2)];
    const tuple = values.flatMap((value) => {
      const head = Buffer.from('t....', 'latin1');
      head.writeUInt32BE(value.length, 1);
      return [head, value];
    });
    const count = Buffer.alloc(2);
    count.writeInt16BE(values.length);
    const message = Buffer.concat([Buffer.from('I\0\0\0\x07N', 'latin1'), count, ...tuple]);
    const { bytes, giants } = compactGiant(received(message));
    expect(giants.map((pieces) => digestOf(joined(pieces)))).toEqual(values.filter(isGiant).map(digestOf));
    expect(bytes).toHaveLength(6 + 2 + 5 * values.length + 'small'.length);
    // The head of the message stays as it came.
    expect(giants.reduce((sum, pieces) => sum + held(pieces), 0)).toBeLessThanOrEqual(CHUNK_BYTES);
  });

  test('of wal2json likewise, without its escapes', () => {
    const values = [
      '"\\\t\n\u0001é'.repeat(100_000),
      'short "text"\n',
      digits(2 * MIB).toString('latin1'),
      '\\'.repeat(200_000),
    ];
    const message = Buffer.from(
      JSON.stringify({ action: 'I', columns: values.map((value) => ({ name: 'c', value })) }),
    );
    const { bytes, giants } = compactGiantJson(received(message));
    expect(giants.map((pieces) => digestOf(joined(pieces)))).toEqual(values.filter(isGiant).map(digestOf));
    expect(bytes.toString()).toContain(JSON.stringify(values[1]));
    expect(bytes.length).toBeLessThan(500);
    expect(giants.reduce((sum, pieces) => sum + held(pieces), 0)).toBeLessThanOrEqual(CHUNK_BYTES);
  });
});

import { describe, expect, test } from 'vitest';
import { unchunk } from '../../infra/local/s3/body.ts';
import { S3Fault } from '../../infra/local/s3/fault.ts';
import { rangeOf } from '../../infra/local/s3/operations.ts';
import { keyPieceOf, placeOf } from '../../infra/local/s3/places.ts';
import { document, listOf } from '../../infra/local/s3/xml.ts';

async function* pieces(bytes: Buffer, cuts: readonly number[]): AsyncGenerator<Buffer> {
  let from = 0;
  for (const cut of [...cuts, bytes.length]) {
    yield bytes.subarray(from, cut);
    from = cut;
  }
}

async function unchunked(
  bytes: Buffer,
  cuts: readonly number[],
): Promise<{ body: string; trailers: Map<string, string> }> {
  const trailers = new Map<string, string>();
  const body: Buffer[] = [];
  for await (const piece of unchunk(pieces(bytes, cuts), trailers)) body.push(piece);
  return { body: Buffer.concat(body).toString(), trailers };
}

describe('aws-chunked', () => {
  const signature = 'chunk-signature=0123456789abcdef';
  const wire = Buffer.from(
    `5;${signature}\r\nhello\r\n1\r\n\r\r\n00C\r\n 0\r\nworld\r\n!\r\n0\r\nx-amz-checksum-crc32:AAAAAA==\r\nX-Amz-Trailer-Signature: s\r\n\r\n`,
  );

  test('is taken apart wherever the socket cuts it', async () => {
    for (let first = 0; first <= wire.length; first++) {
      for (const second of [first, first + 1, first + 7, wire.length - 1].filter(
        (cut) => cut >= first && cut <= wire.length,
      )) {
        const { body, trailers } = await unchunked(wire, [first, second]);
        expect(body).toBe('hello\r 0\r\nworld\r\n!');
        expect(Object.fromEntries(trailers)).toEqual({
          'x-amz-checksum-crc32': 'AAAAAA==',
          'x-amz-trailer-signature': 's',
        });
      }
    }
  });

  test('that ends early is refused, wherever it ends', async () => {
    for (let end = 0; end < wire.length; end++) {
      await expect(unchunked(wire.subarray(0, end), [])).rejects.toMatchObject({ code: 'IncompleteBody' });
    }
  });

  test.each([
    ['a size that is none', 'x\r\nhello\r\n0\r\n\r\n'],
    ['a negative size', '-1\r\n\r\n0\r\n\r\n'],
    ['a chunk that is longer than it says', '2\r\nhello\r\n0\r\n\r\n'],
    ['a header without end', 'a'.repeat(20_000)],
    ['a trailer without a name', '0\r\nno colon\r\n\r\n'],
    [
      'trailers without end',
      `0\r\n${'a:b\r\n'.repeat(1)}${Array.from({ length: 50 }, (_, i) => `t${i}:v\r\n`).join('')}\r\n`,
    ],
  ])('with %s is refused', async (_, text) => {
    await expect(unchunked(Buffer.from(text), [])).rejects.toBeInstanceOf(S3Fault);
  });
});

test.each([
  [undefined, null],
  ['bytes=0-0', [0, 0]],
  ['bytes=2-5', [2, 5]],
  ['bytes=2-', [2, 9]],
  ['bytes=-3', [7, 9]],
  ['bytes=-30', [0, 9]],
  ['bytes=9-100', [9, 9]],
  ['bytes=5-2', null],
  ['bytes=-', null],
  ['bytes=0-1,3-4', null],
  ['lines=1-2', null],
])('the range %s of ten bytes', (header, expected) => {
  expect(rangeOf(header, 10)).toEqual(expected);
});

test.each(['bytes=10-', 'bytes=10-20', 'bytes=-0'])('the range %s of ten bytes cannot be satisfied', (header) => {
  expect(() => rangeOf(header, 10)).toThrow(expect.objectContaining({ code: 'InvalidRange' }));
});

describe('the place of a key', () => {
  const keys = [
    'a',
    'a/',
    '/a',
    '//',
    'a/b',
    'A',
    '.',
    '..',
    '../..',
    'ünï',
    '🦔',
    '%41',
    '=',
    '+',
    'a b\n',
    'x'.repeat(254),
  ];

  test('is another for every key, with names that are plain, and leads back to it', () => {
    const places = keys.map((key) => placeOf(key));
    expect(new Set(places.map((place) => place.join('/'))).size).toBe(keys.length);
    for (const [i, place] of places.entries()) {
      for (const name of place) expect(name).toMatch(/^[=+][a-z0-9._%A-F-]*$/);
      expect(place.map(keyPieceOf).join('')).toBe(keys[i]);
    }
  });

  test('is never one that a directory of another key has', () => {
    for (const key of keys)
      expect(
        placeOf(key)
          .slice(0, -1)
          .every((name) => name.startsWith('+')),
      ).toBe(true);
    for (const key of keys) expect(placeOf(key).at(-1)).toMatch(/^=/);
  });

  test.each(['', 'x'.repeat(1_025), 'x'.repeat(255), `a/${'Ü'.repeat(50)}`])(
    'is refused where there is none',
    (key) => {
      expect(() => placeOf(key)).toThrow(expect.objectContaining({ code: 'KeyTooLongError' }));
    },
  );
});

test('XML goes out escaped, and lists come in unescaped', () => {
  const text = document([
    'Result',
    [
      ['Key', `<&>"'\r`],
      ['Size', 7],
    ],
  ]);
  expect(text).toContain("<Key>&lt;&amp;&gt;&quot;'&#13;</Key><Size>7</Size>");
  expect(listOf('<D><O><Key>a&amp;&#x41;&#66;&lt;</Key></O><O><Key>b</Key><V>1</V></O></D>', 'O', ['Key'])).toEqual([
    { Key: 'a&AB<' },
    { Key: 'b' },
  ]);
  expect(() => listOf('<O><V>1</V></O>', 'O', ['Key'])).toThrow(expect.objectContaining({ code: 'MalformedXML' }));
});

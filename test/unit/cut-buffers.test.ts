/** The buffers of a cut: lines gathered into pieces (Lines), the arena they lie in, and the time at the end of a deletion. */
import { describe, expect, test } from 'vitest';
import { Arena } from '../../lib/cut/arena.ts';
import { DeletionTimes, timestampText } from '../../lib/cut/deletion-times.ts';
import { Lines } from '../../lib/cut/lines.ts';
import { joined } from '../../lib/piece.ts';

const KIB = 1024;
const text = (lines: Lines): string => joined(lines.pieces()).toString();

describe('lines', () => {
  const bytes = Buffer.from('a1\nb22\nc333\n');

  test('nothing gives no pieces', () => {
    const lines = new Lines();
    expect([lines.count, lines.pieces()]).toEqual([0, []]);
  });

  test('in their order, from several buffers, neighbours or not', () => {
    const lines = new Lines();
    const other = Buffer.from('other\n');
    lines.add(bytes, 7, 12);
    lines.add(bytes, 0, 3);
    lines.add(bytes, 3, 7);
    lines.add(other, 0, 6);
    // Where the run before ends, but in another buffer.
    lines.add(bytes, 6, 7);
    expect(lines.count).toBe(5);
    expect(text(lines)).toBe('c333\na1\nb22\nother\n\n');
  });

  test('tails stand behind their lines', () => {
    const lines = new Lines();
    lines.add(bytes, 0, 3);
    lines.addWithTail(bytes, 3, 6, Buffer.from('!\n'));
    lines.addWithTail(bytes, 7, 11, Buffer.from('?\n'));
    lines.add(bytes, 0, 3);
    expect(lines.count).toBe(4);
    expect(text(lines)).toBe('a1\nb22!\nc333?\na1\n');
  });

  test('a long run is a view, short ones are copies that outlive a change of the buffer', () => {
    const long = Buffer.alloc(40 * KIB, 'x');
    const lines = new Lines();
    lines.add(bytes, 0, 3);
    lines.add(long, 0, 10 * KIB);
    lines.add(long, 10 * KIB, 16 * KIB);
    lines.add(bytes, 3, 7);
    const pieces = lines.pieces();
    expect(pieces.map(({ length }) => length)).toEqual([3, 16 * KIB, 4]);
    expect((pieces[1] as Buffer).buffer).toBe(long.buffer);
    expect((pieces[0] as Buffer).buffer).not.toBe(bytes.buffer);
  });

  test('more short lines than a page holds', () => {
    const lines = new Lines();
    const expected: string[] = [];
    for (let i = 0; i < 100_000; i++) {
      const [from, to] = i % 2 ? [0, 3] : [3, 7];
      lines.add(bytes, from, to);
      expected.push(bytes.toString('latin1', from, to));
    }
    expect(text(lines)).toBe(expected.join(''));
    expect(lines.pieces().length).toBeLessThan(5);
  });

  test('a line in pieces is one line, wherever its pieces come from', () => {
    const lines = new Lines();
    const long = Buffer.alloc(20 * KIB, 'y');
    lines.add(bytes, 0, 3);
    lines.addPieces([Buffer.from('k\t'), long, Buffer.alloc(0), Buffer.from('\n')]);
    lines.add(bytes, 3, 7);
    expect(lines.count).toBe(3);
    expect(text(lines)).toBe(`a1\nk\t${long.toString()}\nb22\n`);
    expect(lines.pieces()).toContain(long);
  });
});

describe('arena', () => {
  const put = (arena: Arena, line: string): void => {
    arena.reserve(line.length);
    arena.commit(arena.used + arena.bytes.write(line, arena.used));
  };

  test('what is reserved and not taken is free; nothing is taken before it is needed', () => {
    const arena = new Arena(10);
    expect(arena.bytes).toHaveLength(0);
    arena.reserve(1);
    expect([arena.used, arena.bytes.length]).toEqual([0, 10]);
    put(arena, 'abc');
    expect([arena.used, arena.bytes.toString('latin1', 0, 3)]).toEqual([3, 'abc']);
  });

  test('it grows for a line that is larger than what is left, and keeps what it has', () => {
    const arena = new Arena(10);
    put(arena, '0123456789');
    expect(arena.bytes).toHaveLength(10);
    put(arena, 'x'.repeat(100));
    put(arena, 'y'.repeat(1000));
    expect(arena.bytes.toString('latin1', 0, arena.used)).toBe(`0123456789${'x'.repeat(100)}${'y'.repeat(1000)}`);
  });

  test('emptied, it keeps its capacity and no more', () => {
    const arena = new Arena(10);
    put(arena, 'abc');
    const { bytes } = arena;
    arena.reset();
    expect([arena.used, arena.bytes === bytes]).toEqual([0, true]);
    put(arena, 'x'.repeat(100));
    arena.reset();
    put(arena, 'abc');
    expect([arena.used, arena.bytes.length]).toEqual([3, 10]);
  });
});

describe('the time of a deletion', () => {
  test.each([
    [0, '1970-01-01 00:00:00.000000+00'],
    [1, '1970-01-01 00:00:00.000001+00'],
    [999_999, '1970-01-01 00:00:00.999999+00'],
    [1_000, '1970-01-01 00:00:00.001000+00'],
    [-1, '1969-12-31 23:59:59.999999+00'],
    [Date.UTC(2026, 1, 28, 23, 59, 59) * 1000 + 123_456, '2026-02-28 23:59:59.123456+00'],
    [Date.UTC(2000, 1, 29) * 1000 + 7, '2000-02-29 00:00:00.000007+00'],
  ])('%i µs', (at_us, expected) => {
    expect(timestampText(at_us)).toBe(expected);
  });

  test('is the end of a line, and made anew for another time', () => {
    const times = new DeletionTimes();
    const first = times.tail(1);
    expect(first.toString()).toBe('\t1970-01-01 00:00:00.000001+00\n');
    expect(times.tail(1)).toBe(first);
    expect(times.tail(2).toString()).toBe('\t1970-01-01 00:00:00.000002+00\n');
    expect(times.tail(1).toString()).toBe(first.toString());
  });
});

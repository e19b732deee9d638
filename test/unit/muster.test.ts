/** Which streams a load moves together: by where they stand, and nothing else. */
import { describe, expect, test } from 'vitest';
import { JOIN_CUTS_MAX, muster, type Standing } from '../../lib/load/muster.ts';

const standing = (streams: Readonly<Record<string, number>>, together: readonly string[]): Standing[] =>
  Object.entries(streams).map(([stream, applied_cut]) => ({
    stream,
    applied_cut,
    together: together.includes(stream),
  }));

const mustered = (streams: Readonly<Record<string, number>>, together: readonly string[] = []) => {
  const found = muster(standing(streams, together));
  return (
    found && {
      place: found.place,
      from: found.from,
      members: found.members.map(({ stream }) => stream),
      behind: found.behind.map(({ stream }) => stream),
    }
  );
};

describe('muster (consistency: transaction)', () => {
  test('nobody', () => expect(mustered({})).toBe(null));

  test('those that have moved together say where they meet, also where another is ahead', () => {
    expect(mustered({ a: 100, b: 100, ahead: 5_000 }, ['a', 'b'])).toEqual({
      place: 100,
      from: 100,
      members: ['a', 'b', 'ahead'],
      behind: [],
    });
  });

  test('where none has, the one that is furthest', () => {
    expect(mustered({ a: 120, b: 130 })).toEqual({ place: 130, from: 120, members: ['a', 'b'], behind: [] });
  });

  test.each([
    ['a little behind is brought up with them', JOIN_CUTS_MAX, ['a', 'late'], []],
    ['a cut more comes up alone', JOIN_CUTS_MAX + 1, ['a'], ['late']],
  ])('one that is %s', (_name, cuts, members, behind) => {
    const found = mustered({ a: 1_000, late: 1_000 - cuts }, ['a']);
    expect(found).toMatchObject({ place: 1_000, members, behind });
    expect(found?.from).toBe(members.length > 1 ? 1_000 - cuts : 1_000);
  });

  test('one that moved with them before it halted is behind like any other', () => {
    expect(mustered({ a: 900, b: 900, resumed: 100 }, ['a', 'b', 'resumed'])).toEqual({
      place: 900,
      from: 900,
      members: ['a', 'b'],
      behind: ['resumed'],
    });
  });
});

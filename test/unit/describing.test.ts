/** When the catalog is asked, and what each share is told. */
import { describe, expect, test } from 'vitest';
import type { Share } from '../../lib/cut/share.ts';
import type { SourceType, TableDescription } from '../../lib/shape.ts';
import { Describing } from '../../lib/window/describing.ts';

const ENUM = 16_500;
const NAMED = 16_501;

function share(oid: number, message: number, { newest = true, type_oid = 25 } = {}): Share {
  const columns = [
    { name: 'id', type_oid: 20, type_modifier: -1 },
    { name: 'v', type_oid, type_modifier: -1 },
  ];
  return {
    stream: `s${oid}`,
    operation: 'changes',
    shape: { columns, key: [0] },
    relation: { oid, message, newest },
    blocks: [],
  };
}

function describing() {
  const asked: (readonly [tables: readonly number[], types: readonly number[]])[] = [];
  const labels = ['a'];
  let looks = 0;
  const source = {
    describe: (tables: readonly number[], types: readonly number[]) => {
      asked.push([tables, types]);
      looks++;
      const table = (oid: number): TableDescription => ({ oid, filenode: String(looks), columns: [] });
      const type = (oid: number): SourceType =>
        oid === ENUM
          ? { kind: 'enum', schema: 'public', name: 'mood', labels: [...labels] }
          : { kind: 'named', schema: 'public', name: 'citext', extension: 'citext' };
      return Promise.resolve({
        tables: new Map(tables.filter((oid) => oid !== 404).map((oid) => [oid, table(oid)])),
        types: new Map(types.map((oid) => [oid, type(oid)])),
      });
    },
  };
  return { asked, labels, describing: new Describing(source) };
}

describe('the catalog', () => {
  test('is asked once for each description that the log has of a table, in one query for all tables', async () => {
    const { asked, describing: it } = describing();
    await it.describe([share(1, 1), share(2, 2), share(1, 1)]);
    expect(asked).toEqual([[[1, 2], []]]);
    await it.describe([share(1, 1), share(2, 2)]);
    expect(asked).toHaveLength(1);
    const [again, same] = await it.describe([share(1, 3), share(2, 2)]);
    expect(asked.slice(1)).toEqual([[[1], []]]);
    expect([again?.described?.filenode, same?.described?.filenode]).toEqual(['2', '1']);
  });

  test('nothing is asked where there is nothing to describe', async () => {
    const { asked, describing: it } = describing();
    expect(await it.describe([])).toEqual([]);
    expect(asked).toEqual([]);
  });

  test('a share before a newer description of its table is told so; one whose table is gone is told nothing', async () => {
    const { describing: it } = describing();
    const shares = await it.describe([share(1, 1, { newest: false }), share(1, 2), share(404, 3)]);
    expect(shares.map(({ described }) => described?.current ?? null)).toEqual([false, true, null]);
  });

  test('a type that may have got labels is asked for again at each cut that has it; one that has no parts is not', async () => {
    const { asked, labels, describing: it } = describing();
    await it.describe([share(1, 1, { type_oid: ENUM }), share(2, 2, { type_oid: NAMED })]);
    labels.push('b');
    const [one, other] = await it.describe([share(1, 1, { type_oid: ENUM }), share(2, 2, { type_oid: NAMED })]);
    expect(asked).toEqual([
      [
        [1, 2],
        [ENUM, NAMED],
      ],
      [[], [ENUM]],
    ]);
    expect(one?.shape.columns[1]?.type).toMatchObject({ labels: ['a', 'b'] });
    expect(other?.shape.columns[1]?.type).toMatchObject({ kind: 'named' });
    expect(one?.shape.columns[0]).not.toHaveProperty('type');
  });
});

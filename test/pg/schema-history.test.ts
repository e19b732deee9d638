/**
 * Theorem: whatever is done to the rows and to the shape of a table, in whatever transactions, with windows in between that may die anywhere, the target
 * ends with the source's columns, types and rows, and no stream waits for a person (but for ROWS_UNKNOWN, which a reset mends).
 *
 * Method: random histories (test/support/schema-history.ts) between two real servers. SLUICE_PROPERTY_SECONDS is the budget: it may run for an hour.
 */

import * as fc from 'fast-check';
import type pg from 'pg';
import { afterAll, beforeAll, expect } from 'vitest';
import { columnsOf, tableText } from '../support/compare.ts';
import { type FreshLine, freshLine } from '../support/fresh-line.ts';
import { startPostgres, type TestPostgres } from '../support/postgres.ts';
import { property } from '../support/property.ts';
import { DRAWN_SQL, DrawnTable, type HistoryStep, histories } from '../support/schema-history.ts';

const TABLE = { schema: 'drawn', table: 'Odd "name"' };
/** A dead process may be followed by another that dies. */
const LIVES_MAX = 5;

let source: TestPostgres;
let target: TestPostgres;

beforeAll(async () => {
  [source, target] = await Promise.all([startPostgres(), startPostgres()]);
});
afterAll(async () => {
  await Promise.all([source?.stop(), target?.stop()]);
});

/** Runs `work`; where the process dies in it, another comes after it. */
async function survive({ line }: FreshLine, work: () => Promise<unknown>): Promise<void> {
  for (let lives = 0; lives < LIVES_MAX; lives++) {
    try {
      await work();
      return;
    } catch (error) {
      if (!line.world.isDead) throw error;
      line.restart();
    }
  }
  throw new Error('it dies again and again');
}

/** ROWS_UNKNOWN is an honest answer: the log did not have what was asked of it. A reset mends it, as its remedy says. */
async function settle(made: FreshLine): Promise<void> {
  const { line } = made;
  try {
    await made.settle();
  } catch (error) {
    if (!(error instanceof Error) || !error.message.startsWith('ROWS_UNKNOWN')) throw error;
    for (const [stream, bookmark] of line.durable.bookmarks) {
      line.durable.bookmarks.set(stream, { ...bookmark, reset_requested: true });
    }
    await made.settle();
  }
}

async function textOf(client: pg.Client) {
  const columns = await columnsOf(client, TABLE);
  return { columns, types: await typesOf(client) };
}

async function typesOf(client: pg.Client): Promise<Record<string, string>> {
  const { rows } = await client.query<{ name: string; type: string }>(
    `SELECT attname AS name, format_type(atttypid, atttypmod) AS type FROM pg_attribute
      WHERE attrelid = $1::regclass AND attnum > 0 AND NOT attisdropped AND attname NOT LIKE '\\_sdc\\_%'`,
    [`drawn."${TABLE.table.replaceAll('"', '""')}"`],
  );
  return Object.fromEntries(rows.map(({ name, type }) => [name, type]));
}

async function expectEqual(from: pg.Client, to: pg.Client, drops: boolean): Promise<void> {
  const { columns, types } = await textOf(from);
  const replica = await textOf(to);
  // Old values that a new type cannot hold are kept beside it.
  const followed = Object.entries(replica.types).filter(([name]) => !/_\d{8}_\d{4}/.test(name));
  if (drops) expect(Object.fromEntries(followed)).toEqual(types);
  else expect(replica.types).toMatchObject(types);
  expect(await tableText(to, TABLE, columns)).toEqual(await tableText(from, TABLE, columns));
}

function capturesNext({ line }: FreshLine): boolean {
  const bookmarks = [...line.durable.bookmarks.values()];
  return bookmarks.length === 0 || bookmarks.some(({ reset_requested }) => reset_requested);
}

interface History {
  readonly types: readonly number[];
  readonly steps: readonly HistoryStep[];
  /** `on_drop_column: drop`, or keep. */
  readonly drops: boolean;
  /** How its windows read the slot, in turns. */
  readonly readers: readonly ('stream' | 'peek')[];
}

async function run({ types, steps, drops, readers }: History): Promise<void> {
  let windows = 0;
  const nextReader = (): string => `slot_reader: ${readers[windows++ % readers.length]}`;
  await using made = await freshLine({ source, target }, DRAWN_SQL, {
    tables: '[drawn.*]',
    source: nextReader(),
    target: `on_drop_column: ${drops ? 'drop' : 'keep'}`,
  });
  const { line, from, to } = made;
  const table = new DrawnTable(from, TABLE.table);
  await table.make(types);
  const compare = async (): Promise<void> => {
    await table.end();
    line.configure({ source: nextReader() });
    await survive(made, () => settle(made));
    await expectEqual(from, to, drops);
  };
  try {
    for (const step of steps) {
      await table.take(step);
      if (process.env.SLUICE_DEBUG) console.info(step.kind, table.said.at(-1));
      if (step.kind === 'window') {
        // A capture waits for whoever writes to the table, and that is this test.
        if (capturesNext(made)) await table.end();
        line.configure({ source: nextReader() });
        await survive(made, () => line.window());
      }
      if (step.kind === 'settle') await compare();
      if (step.kind === 'restart') {
        line.world.crashAt = line.world.changes + 1 + (step.a % 30);
        line.world.crashWhen = step.b % 2 === 0 ? 'before' : 'after';
      }
    }
    await compare();
  } catch (error) {
    const said = table.said.map((sql) => `  ${sql}`).join('\n');
    throw new Error(`${error instanceof Error ? error.message : String(error)}\nafter:\n${said}`, { cause: error });
  }
}

/** A history takes a second or two on a quiet machine, and many times that on a busy one. */
const SECONDS = 15;

property(
  'any history of rows and shapes ends equal, by either slot_reader and by both in turns',
  fc.record({
    types: fc.array(fc.nat(99), { maxLength: 6 }),
    steps: histories,
    drops: fc.boolean(),
    readers: fc.constantFrom(['stream'] as const, ['peek'] as const, ['stream', 'peek'] as const),
  }),
  run,
  SECONDS,
);

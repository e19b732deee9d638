/** The command with source.slot_reader: peek, on a source that has no walsender to give: a first sync, what is written later, and doctor before both. */
import { expect, test } from 'vitest';
import { columnsOf, tableText } from '../support/compare.ts';
import { startPostgres } from '../support/postgres.ts';
import { workplace } from '../support/sluice.ts';

test('source.slot_reader: peek, sluice run', async () => {
  await using source = await startPostgres({ settings: { max_wal_senders: '0' } });
  await using target = await startPostgres();
  const [from, to] = [await source.connect(), await target.connect()];
  await from.query(`CREATE SCHEMA shop; CREATE TABLE shop.orders (id int PRIMARY KEY, note text);
    INSERT INTO shop.orders SELECT i, 'note ' || i FROM generate_series(1, 1000) i`);
  const equal = async (): Promise<void> => {
    const name = { schema: 'shop', table: 'orders' };
    const columns = await columnsOf(from, name);
    expect(await tableText(to, name, columns)).toEqual(await tableText(from, name, columns));
  };
  await using stream = await workplace(source, target, { tables: '[shop.*]', pipeline: 'by-stream' });
  const refused = await stream.command('doctor').ended;
  expect([refused.code, refused.out + refused.err]).toEqual([1, expect.stringContaining('WAL senders')]);

  await using place = await workplace(source, target, { tables: '[shop.*]', source: '  slot_reader: peek' });
  const healthy = await place.command('doctor').ended;
  expect(healthy.code, healthy.out + healthy.err).toBe(0);
  const first = await place.run('--until-caught-up').ended;
  expect(first.code, first.out + first.err).toBe(0);
  await equal();
  await from.query(
    `UPDATE shop.orders SET note = repeat('x', id) WHERE id % 3 = 0; DELETE FROM shop.orders WHERE id % 7 = 0`,
  );
  const second = await place.run('--until-caught-up').ended;
  expect(second.code, second.out + second.err).toBe(0);
  await equal();
  await Promise.all([from.end(), to.end()]);
});

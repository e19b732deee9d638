/** The oracle of the soak sees what it is for: a row that is missing, one that is there twice, a value that differs in nothing but its text, a column that is not there. */
import { expect, test } from 'vitest';
import { compareTables } from '../soak/compare.ts';
import { startPostgres } from '../support/postgres.ts';

test('tables are compared row by row, as text, with how often each row is there', async () => {
  await using server = await startPostgres();
  const [source, target] = [await server.connect(), await server.connect('template1')];
  const tables = ['same', 'missing', 'doubled', 'text', 'columns'].map((table) => ({ schema: 'public', table }));
  for (const client of [source, target]) {
    await client.query(`CREATE TABLE same (id int, v numeric, _sdc_batched_at timestamptz);
      CREATE TABLE missing (id int); CREATE TABLE doubled (id int); CREATE TABLE text (id int, v numeric); CREATE TABLE columns (id int);
      INSERT INTO same VALUES (1, 1.0), (2, NULL); INSERT INTO missing VALUES (1); INSERT INTO doubled VALUES (1), (1);
      INSERT INTO text VALUES (1, 1.0)`);
  }
  expect((await compareTables(source, target, tables)).differences).toEqual([]);

  await target.query(`UPDATE public.same SET _sdc_batched_at = now(); DELETE FROM public.missing; INSERT INTO public.doubled VALUES (1);
    UPDATE public.text SET v = 1.00; ALTER TABLE public.columns DROP COLUMN id`);
  const { rows, differences } = await compareTables(source, target, tables);
  expect(rows).toBe(6);
  expect(differences).toEqual([
    expect.objectContaining({ table: 'public.missing', rows: 1, only_source: ['(1)'], only_target: [] }),
    expect.objectContaining({ table: 'public.doubled', rows: 1, only_source: [], only_target: ['(1)'] }),
    expect.objectContaining({ table: 'public.text', rows: 2, only_source: ['(1,1.0)'], only_target: ['(1,1.00)'] }),
    expect.objectContaining({ table: 'public.columns', problem: 'the target lacks id' }),
  ]);
  await Promise.all([source.end(), target.end()]);
});

/** What functions read at a cold start: the same pipeline as the command's, and no value of a file that is broken. */
import { expect, test } from 'vitest';
import { readPipeline } from '../../lib/config/read.ts';
import { readShippedPipeline } from '../../lib/config/shipped.ts';

const FILE = {
  pipeline: 'shop',
  source: { host: 'db', user: 'u', password: '${env:P}', database: 'd' },
  tables: ['public.*'],
  target: { host: 'wh', user: 'u', password: '${env:P}', database: 'd' },
};

test('is the pipeline that the command reads', () => {
  const text = JSON.stringify(FILE);
  expect(readShippedPipeline(text, 'shop.json')).toEqual(readPipeline(text, 'shop.json'));
});

test('every fault is told at once', () => {
  const text = JSON.stringify({ ...FILE, pipeline: '', target: { ...FILE.target, batch_size: 1 } });
  expect(() => readShippedPipeline(text, 'shop.json')).toThrow(/shop\.json:\n {2}.*pipeline.*\n {2}.*batch_size/);
});

test.for(['', '[]', 'null', '7', '{"password": "hunter2"'])('%s is no pipeline file, and is not quoted', (text) => {
  const read = (): unknown => readShippedPipeline(text, 'shop.json');
  expect(read).toThrow(/shop\.json is no JSON object/);
  expect(read).not.toThrow(/hunter2/);
});

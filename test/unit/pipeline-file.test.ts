/**
 * A command's pipeline file: read with its place, or one clear error.
 */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { readPipelineFile } from '../../cli/pipeline-file.ts';

let directory: string;

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'sluice-file-'));
});

afterAll(() => rm(directory, { recursive: true, force: true }));

test('comes with its text and its directory', async () => {
  const text = 'pipeline: shop\ntables: [public.*]\n';
  const path = join(directory, 'pipeline.yaml');
  await writeFile(path, text);
  expect(await readPipelineFile(path)).toMatchObject({ pipeline: { pipeline: 'shop' }, text, directory });
});

test('with a byte order mark is read as without', async () => {
  const path = join(directory, 'bom.yaml');
  await writeFile(path, '\uFEFFpipeline: shop\ntables: [public.*]\n');
  expect((await readPipelineFile(path)).pipeline.pipeline).toBe('shop');
});

test('that is not there, or a directory, is an error of usage', async () => {
  const missing = join(directory, 'missing.yaml');
  await expect(readPipelineFile(missing)).rejects.toMatchObject({
    code: 'USAGE',
    message: `The pipeline file ${missing} is not there.`,
    remedy: expect.stringContaining('-c FILE') as string,
  });
  await expect(readPipelineFile(directory)).rejects.toMatchObject({
    code: 'USAGE',
    message: expect.stringContaining('is a directory') as string,
  });
});

test('that is wrong names its path in the error', async () => {
  const path = join(directory, 'wrong.yaml');
  await writeFile(path, 'pipeline: shop\ntables: [public.*]\nsuorce: {}\n');
  await expect(readPipelineFile(path)).rejects.toMatchObject({
    code: 'CONFIG_INVALID',
    message: `The pipeline file is not valid: ${path}:3:1  suorce is not an option.`,
    remedy: 'Did you mean source?',
  });
});

/**
 * The pipeline file that a command is given by `-c FILE`.
 */
import { readFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import { readPipeline } from '../lib/config/read.ts';
import type { Pipeline } from '../lib/config/schema.ts';
import { namesSchemas, withSchemas } from '../lib/config/schema-files.ts';
import { SluiceError } from '../lib/errors.ts';

export interface PipelineFile {
  readonly pipeline: Pipeline;
  /** The file as it is, for those who pass it on. */
  readonly text: string;
  /** Absolute; paths in the file are relative to it. */
  readonly directory: string;
}

const REASONS: Readonly<Record<string, string>> = {
  ENOENT: 'is not there',
  EISDIR: 'is a directory',
  EACCES: 'may not be read by this user',
};

/** Throws USAGE for a file that cannot be read, CONFIG_INVALID for what is wrong in it. */
export async function readPipelineFile(path: string): Promise<PipelineFile> {
  const text = await readPipelineText(path);
  const directory = resolve(dirname(path));
  return { pipeline: await withItsSchemas(readPipeline(text, path), text, path, directory), text, directory };
}

/** What tables.json_schema names, read and looked at. */
async function withItsSchemas(pipeline: Pipeline, text: string, path: string, directory: string): Promise<Pipeline> {
  if (!namesSchemas(pipeline)) return pipeline;
  const { ajvCompiler } = await import('../lib/validation/ajv-compiler.ts');
  const read = (file: string): string => {
    try {
      return readFileSync(resolve(directory, file), 'utf8');
    } catch (error) {
      const code = (error as NodeJS.ErrnoException).code ?? 'unknown error';
      throw new Error(`it ${REASONS[code] ?? `cannot be read (${code})`}`, { cause: error });
    }
  };
  return withSchemas(pipeline, { text, fileName: path, read, compile: ajvCompiler.compile });
}

/** Throws USAGE for a file that cannot be read. */
export async function readPipelineText(path: string): Promise<string> {
  try {
    return await readFile(path, 'utf8');
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code ?? 'unknown error';
    const remedy = 'Name the pipeline file with -c FILE; `sluice init URL` writes one.';
    const problem = `The pipeline file ${path} ${REASONS[code] ?? `cannot be read (${code})`}.`;
    throw new SluiceError('USAGE', { problem, remedy }, { cause: error });
  }
}

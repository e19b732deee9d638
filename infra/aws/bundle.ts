/**
 * One function's code: its entry in `functions/` with everything that it imports in one file, and beside it the pipeline file as JSON. What it imports
 * only when a pipeline asks for it (`import()`) has files of its own, which others do not pay for.
 *
 * esbuild is called here and not through NodejsFunction: in this process instead of by a shell for each function, with the pipeline written
 * in the same step, and with a list of what went in, which the tests look at. The AWS SDK is bundled: what runs is what the lockfile says,
 * and one file loads faster than the copy that the runtime brings.
 */
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Code } from 'aws-cdk-lib/aws-lambda';
import { buildSync, type Metafile } from 'esbuild';
import type { FunctionName } from './limits.ts';

export const PIPELINE_FILE = 'pipeline.json';
/** Where Lambda unpacks the code (https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html, LAMBDA_TASK_ROOT). */
export const PIPELINE_PATH = `/var/task/${PIPELINE_FILE}`;
export const HANDLER = 'index.handler';

/** pg is CommonJS and requires Node's own modules, which an ES module has no `require` for. */
const REQUIRE_BANNER = "import { createRequire } from 'node:module'; const require = createRequire(import.meta.url);";

export interface BundleRequest {
  readonly name: FunctionName;
  /** Directory with `<name>.ts`. */
  readonly functions_dir: string;
  /** Directory of the cloud assembly; the bundle is built below it, so that it lives and goes with the assembly. */
  readonly assembly_dir: string;
  /** The pipeline file as JSON text: no secret, see pipeline-file.ts. */
  readonly pipeline_json: string;
}

export interface Bundle {
  readonly code: Code;
  readonly directory: string;
  readonly metafile: Metafile;
}

/** Builds the bundle. Throws esbuild's BuildFailure, which lists what it could not resolve. */
export function bundleOf(request: BundleRequest): Bundle {
  const directory = join(request.assembly_dir, 'bundles', request.name);
  rmSync(directory, { recursive: true, force: true });
  mkdirSync(directory, { recursive: true });
  const { metafile } = buildSync({
    entryPoints: { index: join(request.functions_dir, `${request.name}.ts`) },
    outdir: directory,
    outExtension: { '.js': '.mjs' },
    bundle: true,
    splitting: true,
    platform: 'node',
    target: 'node24',
    format: 'esm',
    mainFields: ['module', 'main'],
    banner: { js: REQUIRE_BANNER },
    // What pg and ssh2 try to load and do without: it is made by a compiler, and is not there.
    external: ['pg-native', 'cpu-features'],
    // Faster ciphers of ssh2 that a compiler would have to make; it does without.
    loader: { '.node': 'empty' },
    minify: true,
    legalComments: 'none',
    metafile: true,
    logLevel: 'silent',
  });
  writeFileSync(join(directory, PIPELINE_FILE), request.pipeline_json);
  return { code: Code.fromAsset(directory), directory, metafile };
}

/** Bytes of the entry and of all that it imports at its start, which `import()` does not: what a cold start reads. */
export function startBytes({ metafile }: Pick<Bundle, 'metafile'>): number {
  const entry = Object.entries(metafile.outputs).find(([, { entryPoint }]) => entryPoint?.includes('functions/'));
  const files = new Set<string>();
  const add = (file: string): void => {
    if (files.has(file)) return;
    files.add(file);
    for (const { path, kind } of metafile.outputs[file]?.imports ?? []) if (kind === 'import-statement') add(path);
  };
  if (entry) add(entry[0]);
  return [...files].reduce((sum, file) => sum + (metafile.outputs[file]?.bytes ?? 0), 0);
}

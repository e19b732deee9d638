/**
 * What a cold start reads and does before the first event: the bundle as the stack uploads it, and the time that Node takes to import it.
 */
import { execFile } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { bundleOf, PIPELINE_FILE, startBytes } from '../../infra/aws/bundle.ts';
import { readDeployedPipeline } from '../../infra/aws/pipeline-file.ts';
import { type Figure, median } from './figures.ts';

const FUNCTIONS = ['drain', 'extract', 'load'] as const;
const IMPORTS = 9;

export async function coldStart(): Promise<Figure[]> {
  const assembly_dir = await mkdtemp(join(tmpdir(), 'sluice-bench-'));
  const at = (path: string): string => fileURLToPath(new URL(path, import.meta.url));
  process.env.SOURCE_PASSWORD = 'unused';
  process.env.TARGET_PASSWORD = 'unused';
  const { json: pipeline_json } = readDeployedPipeline(at('../../examples/pipeline.yaml'));
  const figures: Figure[] = [];
  for (const name of FUNCTIONS) {
    const bundle = bundleOf({ name, functions_dir: at('../../functions'), assembly_dir, pipeline_json });
    const times: number[] = [];
    for (let i = 0; i < IMPORTS; i++) times.push(await importMs(bundle.directory));
    figures.push({ work: 'cold start', who: `${name}: bundle`, value: startBytes(bundle) / 1000, unit: 'KB' });
    figures.push({ work: 'cold start', who: `${name}: import`, value: median(times), unit: 'ms' });
  }
  await rm(assembly_dir, { recursive: true });
  return figures;
}

async function importMs(directory: string): Promise<number> {
  const module = JSON.stringify(join(directory, 'index.mjs'));
  const code = `const began = performance.now(); await import(${module}); console.log(performance.now() - began); process.exit()`;
  const { stdout } = await promisify(execFile)(process.execPath, ['--input-type=module', '-e', code], {
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
  return Number(stdout.trim());
}

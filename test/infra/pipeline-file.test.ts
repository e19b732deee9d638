/** What a pipeline file becomes when it is deployed; and that no secret gets into what is uploaded. */
import { readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { type DeployedPipeline, readDeployedPipeline } from '../../infra/aws/pipeline-file.ts';
import { readPipeline } from '../../lib/config/read.ts';
import { EXAMPLE, pipelineYaml, synthesize, temporaryDirectory } from './support.ts';

const CERTIFICATE = '-----BEGIN CERTIFICATE-----\nMIIBszCCAVmgAwIBAgIU\n-----END CERTIFICATE-----\n';
const directory = temporaryDirectory();
writeFileSync(join(directory, 'ca.pem'), CERTIFICATE);
writeFileSync(join(directory, 'client.key'), 'canary-private-key');

function read(yaml: string): DeployedPipeline {
  const file = join(directory, 'pipeline.yaml');
  writeFileSync(file, yaml);
  return readDeployedPipeline(file);
}

test('the functions read the same pipeline as the synthesis did', () => {
  const { pipeline, json } = readDeployedPipeline(EXAMPLE);
  expect(readPipeline(json, 'pipeline.json')).toEqual(pipeline);
});

test('comments stay behind', () => {
  const { json } = read(`# canary-comment\n${pipelineYaml()}`);
  expect(json).not.toContain('canary-comment');
});

test('secrets are listed by side, each once', () => {
  const yaml = pipelineYaml({
    target:
      'ssl: { cert: { secret: shop/client, key: cert }, key: { secret: shop/client, key: key }, key_password: { secret: shop/other } }',
  }).replace('  ssl: true\n  schema_mapping', '  schema_mapping');
  expect(read(yaml).secrets).toEqual({
    source: ['sluice/shop-source'],
    target: ['sluice/warehouse', 'shop/client', 'shop/other'],
  });
});

test('the salt of hashes is a secret of those who read the source, and never of the environment', () => {
  expect(read(`${pipelineYaml()}\nmask_salt: { secret: shop/salt }\n`).secrets.source).toEqual([
    'sluice/shop-source',
    'shop/salt',
  ]);
  expect(() => read(`${pipelineYaml()}\nmask_salt: \${env:SALT}\n`)).toThrow(/mask_salt comes from the environment/u);
});

test('the text of a certificate goes where its path stood', () => {
  const { pipeline, json } = read(pipelineYaml().replace('ssl: true', 'ssl: { mode: verify-full, ca: ./ca.pem }'));
  expect(pipeline.source.ssl.ca).toEqual({ from: 'file', path: './ca.pem' });
  expect(readPipeline(json, 'pipeline.json').source.ssl.ca).toEqual({ from: 'text', pem: CERTIFICATE });
});

describe('is refused', () => {
  const password = 'password: { secret: sluice/shop-source, key: password }';

  test.each([
    [
      'a password from the environment',
      pipelineYaml().replace(password, 'password: ${env:SOURCE_PASSWORD}'),
      'SOURCE_PASSWORD',
    ],
    [
      'a certificate from the environment',
      pipelineYaml().replace('ssl: true', 'ssl: { ca: "${env:CA}" }'),
      'source.ssl.ca',
    ],
    [
      'a private key in a file',
      pipelineYaml().replace('ssl: true', 'ssl: { cert: ./ca.pem, key: ./client.key }'),
      'source.ssl.key',
    ],
    ['a certificate that is not there', pipelineYaml().replace('ssl: true', 'ssl: { ca: ./none.pem }'), 'none.pem'],
    ['a side without a host', pipelineYaml().replace(/target:(\n {2}.*|\n)*/, 'target: {}\n\n'), 'target.host'],
    ['a fault in the file', pipelineYaml().replace('plugin', 'plugn').replace('host:', 'hots:'), 'hots'],
  ])('%s', (_, yaml, named) => {
    expect(() => read(yaml)).toThrow(named);
  });

  test('a file that is not there', () => {
    expect(() => readDeployedPipeline(join(directory, 'none.yaml'))).toThrow('ENOENT');
  });
});

/** Goal: what a deployment uploads for others to read holds no secret. Method: secrets are everywhere where one could be picked up; then every file is read. */
test('no secret is in the cloud assembly', () => {
  const canary = 'canary-3f9c1e';
  process.env.SOURCE_PASSWORD = canary;
  process.env.PGPASSWORD = canary;
  try {
    const yaml = `# ${canary}\n${pipelineYaml()}`;
    const { directory: assembly } = synthesize({ yaml });
    const files = readdirSync(assembly, { recursive: true, encoding: 'utf8' })
      .map((name) => join(assembly, name))
      .filter((file) => statSync(file).isFile());
    expect(files.some((file) => file.endsWith('.template.json'))).toBe(true);
    expect(files.some((file) => file.endsWith('pipeline.json'))).toBe(true);
    expect(files.filter((file) => readFileSync(file, 'utf8').includes(canary))).toEqual([]);
  } finally {
    delete process.env.SOURCE_PASSWORD;
    delete process.env.PGPASSWORD;
  }
});

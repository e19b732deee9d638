/** What a pipeline file becomes when it is deployed; and that no secret gets into what is uploaded. */
import { readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { type DeployedPipeline, readDeployedPipeline } from '../../infra/aws/pipeline-file.ts';
import { readPipeline } from '../../lib/config/read.ts';
import { EXAMPLE, pipelineYaml, synthesize, temporaryDirectory } from './support.ts';

const CERTIFICATE = '-----BEGIN CERTIFICATE-----\nMIIBszCCAVmgAwIBAgIU\n-----END CERTIFICATE-----\n';
const HOST_KEY = `SHA256:${'a'.repeat(43)}`;
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

test('the key of an SSH tunnel and its passphrase are secrets of the side', () => {
  const tunnel = `ssh: { host: b, user: u, private_key: { secret: shop/bastion, key: key }, passphrase: { secret: shop/pass }, host_key: "${HOST_KEY}" }`;
  const { secrets } = read(pipelineYaml({ target: tunnel }));
  expect(secrets.target).toEqual(['sluice/warehouse', 'shop/bastion', 'shop/pass']);
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

test("ca: rds stays a word: its text is in the functions' own code", () => {
  const { pipeline, json } = read(pipelineYaml().replace('ssl: true', 'ssl: { mode: verify-full, ca: rds }'));
  expect(pipeline.source.ssl.ca).toEqual({ from: 'rds' });
  expect(json).not.toContain('BEGIN CERTIFICATE');
  expect(readPipeline(json, 'pipeline.json')).toEqual(pipeline);
});

test('who connects with IAM tokens is told by side, with the region that the host tells', () => {
  const { tokens, secrets } = read(
    pipelineYaml()
      .replace('host: shop-db.internal', 'host: shop.c1.eu-west-3.rds.amazonaws.com')
      .replace('password: { secret: sluice/shop-source, key: password }', 'password: { iam: true }'),
  );
  expect(tokens).toEqual({ source: { user: 'sluice', region: 'eu-west-3' }, target: null });
  expect(secrets).toEqual({ source: [], target: ['sluice/warehouse'] });
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
    [
      'the private key of a tunnel in a file',
      pipelineYaml().replace(
        'ssl: true',
        `ssh: { host: b, user: u, private_key: ./client.key, host_key: "${HOST_KEY}" }`,
      ),
      'source.ssh.private_key',
    ],
    [
      'its passphrase from the environment',
      pipelineYaml().replace(
        'ssl: true',
        `ssh: { host: b, user: u, private_key: { secret: b }, passphrase: "\${env:PASS}", host_key: "${HOST_KEY}" }`,
      ),
      'source.ssh.passphrase',
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

test('a JSON Schema goes where the name of its file stood (tables.json_schema); one that is none is refused', () => {
  writeFileSync(join(directory, 'orders.json'), '{ "properties": { "qty": { "minimum": 0 } } }');
  const yaml = pipelineYaml({ target: 'validate_records: true' }).replace(
    /^tables:\n/mu,
    'tables:\n  - { table: public.checked, json_schema: orders.json }\n',
  );
  const { json } = read(yaml);
  expect(readPipeline(json, 'pipeline.json').tables[0]?.json_schema).toEqual({ properties: { qty: { minimum: 0 } } });
  writeFileSync(join(directory, 'orders.json'), '{ "properties": { "qty": { "minimun": 0 } } }');
  expect(() => read(yaml)).toThrow(/pipeline\.yaml:\d+:\d+ .*json_schema \(orders\.json\): .*minimun/u);
});

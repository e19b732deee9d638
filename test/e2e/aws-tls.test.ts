/**
 * Goal: NODE_TLS_REJECT_UNAUTHORIZED=0, which people set for some other program, makes nobody who answers AWS. Method: the functions' own clients, as functions/clients.ts
 * makes them, against a server that no authority vouches for; that it does answer is shown with one that the process does trust.
 */
import { once } from 'node:events';
import { createServer, get, type Server } from 'node:https';
import type { AddressInfo } from 'node:net';
import { getCACertificates, setDefaultCACertificates } from 'node:tls';
import { afterAll, beforeAll, expect, test, vi } from 'vitest';
import { stackEnvironment } from '../../cli/place/stack.ts';
import { runtimeOf } from '../../functions/clients.ts';
import { readPipeline } from '../../lib/config/read.ts';
import { makeAuthority } from '../support/certificates.ts';

const PIPELINE = `
pipeline: apart
source: { host: source.test, user: u, database: d, password: { secret: apart/source } }
target: { host: target.test, user: u, database: d, password: { secret: apart/target } }
tables: [public.*]
`;

/** Node's (OpenSSL's X509_V_ERR_…) for an authority that nobody knows. */
const UNVERIFIED = 'UNABLE_TO_VERIFY_LEAF_SIGNATURE';

let server: Server;
let endpoint: string;
let authority_pem: string;
let heard = 0;

beforeAll(async () => {
  const authority = await makeAuthority('nobody');
  const { cert, key } = await authority.issue('aws', { names: ['localhost'], addresses: ['127.0.0.1'] });
  authority_pem = authority.cert;
  server = createServer({ cert, key }, (_request, response) => {
    heard++;
    response.writeHead(400, { 'content-type': 'application/x-amz-json-1.0' });
    response.end('{"__type":"AccessDeniedException","message":"heard"}');
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  endpoint = `https://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const environment = {
    NODE_TLS_REJECT_UNAUTHORIZED: '0',
    AWS_ENDPOINT_URL: endpoint,
    AWS_REGION: 'us-east-1',
    AWS_ACCESS_KEY_ID: 'test',
    AWS_SECRET_ACCESS_KEY: 'test',
  };
  for (const [name, value] of Object.entries(environment)) vi.stubEnv(name, value);
});

afterAll(() => {
  vi.unstubAllEnvs();
  server?.closeAllConnections();
  server?.close();
});

/** One call of each client that there is. */
function calls(): Readonly<Record<string, () => Promise<unknown>>> {
  const { ports, connector } = runtimeOf(
    {
      ...process.env,
      SLUICE_CONFIG: 'pipeline.yaml',
      SLUICE_TABLE: 'ledger',
      SLUICE_BUCKET: 'stage',
      SLUICE_LOAD_QUEUE_URL: `${endpoint}/1/load.fifo`,
      SLUICE_EXTRACT_QUEUE_URL: `${endpoint}/1/extract.fifo`,
      SLUICE_LEASE_MS: '60000',
    },
    readPipeline(PIPELINE, 'pipeline.yaml'),
    () => {},
  );
  return {
    DynamoDB: () => ports.ledger.rejects(null),
    S3: () => ports.stage.read('apart/cuts/1', [0, 1]),
    SQS: () => ports.doorbell.ringLoad([{ kind: 'cuts', stream: 'public.t', cut: 1 }]),
    'Secrets Manager': () => connector.connect('source'),
    CloudFormation: () => stackEnvironment('sluice-apart', 'apart'),
  };
}

test('NODE_TLS_REJECT_UNAUTHORIZED does not make anybody who answers AWS', async () => {
  // It is in force here: who asks without a word about it is answered.
  const request = get(endpoint);
  await once(request, 'response');
  request.destroy();
  expect(heard).toBe(1);

  for (const [service, call] of Object.entries(calls())) {
    const error: unknown = await call().then(
      () => null,
      (thrown: unknown) => thrown,
    );
    expect(error, service).toMatchObject({ message: expect.stringContaining(UNVERIFIED) });
    expect(heard, service).toBe(1);
  }

  const before = getCACertificates('default');
  setDefaultCACertificates([...before, authority_pem]);
  try {
    for (const [service, call] of Object.entries(calls())) {
      const heard_before = heard;
      await expect(call(), service).rejects.toMatchObject({ message: expect.not.stringContaining(UNVERIFIED) });
      expect(heard, service).toBeGreaterThan(heard_before);
    }
  } finally {
    setDefaultCACertificates(before);
  }
});

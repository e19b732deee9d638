/** The part of a function's bundle that only pipelines with `ssh` load: it works as it is uploaded, without what a compiler would have to make. */
import { createServer } from 'node:net';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { expect, test } from 'vitest';
import { bundleOf } from '../../infra/aws/bundle.ts';
import { readDeployedPipeline } from '../../infra/aws/pipeline-file.ts';
import type * as tunnelModule from '../../lib/postgres/tunnel.ts';
import { keyPair, startSshServer } from '../support/ssh-server.ts';
import { EXAMPLE, ROOT, temporaryDirectory } from './support.ts';

test('a tunnel opens from the bundle, and carries bytes both ways', async () => {
  const { json } = readDeployedPipeline(EXAMPLE);
  const { metafile } = bundleOf({
    name: 'load',
    functions_dir: join(ROOT, 'functions'),
    assembly_dir: temporaryDirectory(),
    pipeline_json: json,
  });
  const part = Object.entries(metafile.outputs).find(([, { entryPoint }]) => entryPoint === 'lib/postgres/tunnel.ts');
  if (!part) throw new Error('the tunnel has no part of its own');
  const { openTunnel } = (await import(pathToFileURL(join(process.cwd(), part[0])).href)) as typeof tunnelModule;

  const echo = createServer((socket) => socket.pipe(socket));
  await new Promise<void>((done) => echo.listen(0, '127.0.0.1', done));
  const address = echo.address();
  if (address === null || typeof address === 'string') throw new Error('a server without a port');
  const key = keyPair();
  await using ssh = await startSshServer({
    authorized: key.public,
    hosts: () => ({ 'db.internal:5432': { host: '127.0.0.1', port: address.port } }),
  });
  const [host_key = ''] = ssh.fingerprints;
  const { host, port } = ssh;
  const to = { host, port, user: 'tunnel', private_key: key.private, passphrase: null, host_key };
  const connection = {
    host: 'db.internal',
    port: 5432,
    user: 'u',
    password: null,
    database: 'd',
    connect_timeout_seconds: 10,
    application_name: 'test',
  };
  const tunnel = await openTunnel({ side: 'target', connection }, to);
  const said = Buffer.alloc(300_000, 'sluice');
  tunnel.end(said);
  const heard: Buffer[] = [];
  for await (const chunk of tunnel) heard.push(chunk as Buffer);
  expect(Buffer.concat(heard).equals(said)).toBe(true);
  await expect.poll(() => ssh.connections).toEqual({ open: 0, made: 1 });
  await new Promise((done) => echo.close(done));
});

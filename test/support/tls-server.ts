/**
 * A PostgreSQL server with TLS whose roles differ in how they may connect, and whose certificate a test may change.
 *
 *   secure     over TLS only, with a password
 *   demanding  over TLS only, with a password and a certificate of an authority that the server trusts
 *   certified  over TLS only, with a certificate whose CN is this name; no password
 *   tokens     over TLS only, and never as a walsender: as Amazon RDS takes those with IAM tokens, but that it looks at none
 */
import { X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import { chmod, chown, writeFile } from 'node:fs/promises';
import { connect as connectTcp } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { connect as connectTls } from 'node:tls';
import type { Authority, Issued } from './certificates.ts';
import { startPostgres, type TestPostgres } from './postgres.ts';

export const TLS_PASSWORD = 'open sesame';

type Shown = Pick<Issued, 'cert' | 'key'>;

export interface TlsServer extends AsyncDisposable {
  readonly server: TestPostgres;
  /** Whom the server shows itself as from now on. */
  show(certificate: Shown): Promise<void>;
  /** What the server knows of its connections by these application names: each with its TLS and the subject of the client's certificate. */
  sessions(application_name: string): Promise<readonly TlsSession[]>;
}

export interface TlsSession {
  readonly backend: string;
  readonly ssl: boolean;
  readonly client: string | null;
}

const ROLES = ['secure', 'demanding', 'certified', 'tokens'] as const;
const HBA = ['all', 'replication']
  .flatMap((database) => [
    `hostssl ${database} certified all cert`,
    `hostssl ${database} demanding all scram-sha-256 clientcert=verify-ca`,
    `hostssl ${database} secure all scram-sha-256`,
    `host ${database} postgres all scram-sha-256`,
  ])
  .concat('hostssl all tokens all trust')
  .join('\n');
const RELOAD_WAIT_MS = 10_000;
const POLL_MS = 20;
/** https://www.postgresql.org/docs/current/protocol-message-formats.html */
const SSL_REQUEST = Buffer.from([0, 0, 0, 8, 4, 210, 22, 47]);
const YES = 'S'.charCodeAt(0);

/** Trusts clients of `authority`, and shows `certificate`. */
export async function startTlsServer(
  authority: Pick<Authority, 'cert'>,
  certificate: Shown,
  settings: Readonly<Record<string, string>> = {},
): Promise<TlsServer> {
  const server = await startPostgres({ hba: HBA, settings });
  const put = async (name: string, text: string): Promise<void> => {
    const path = join(server.dataDirectory, name);
    await writeFile(path, text);
    await chmod(path, 0o600);
    await chown(path, server.account.uid, server.account.gid);
  };
  const admin = await server.connect();
  const show: TlsServer['show'] = async ({ cert, key }) => {
    await put('server.crt', cert);
    await put('server.key', key);
    await admin.query('SELECT pg_reload_conf()');
    // The postmaster reads the files in its own time.
    const wanted = new X509Certificate(cert).fingerprint256;
    for (let waited_ms = 0; (await shownBy(server)) !== wanted; waited_ms += POLL_MS) {
      if (waited_ms > RELOAD_WAIT_MS) throw new Error('the server does not show its new certificate');
      await sleep(POLL_MS);
    }
  };
  await put('clients.crt', authority.cert);
  for (const role of ROLES) await admin.query(`CREATE ROLE ${role} LOGIN REPLICATION PASSWORD '${TLS_PASSWORD}'`);
  await admin.query("ALTER SYSTEM SET ssl_ca_file = 'clients.crt'");
  await admin.query('ALTER SYSTEM SET ssl = on');
  await show(certificate);
  return {
    server,
    show,
    sessions: async (application_name) => {
      const { rows } = await admin.query<TlsSession>(
        `SELECT a.backend_type AS backend, s.ssl, s.client_dn AS client FROM pg_stat_activity a JOIN pg_stat_ssl s USING (pid)
          WHERE a.application_name = $1 ORDER BY a.backend_start`,
        [application_name],
      );
      return rows;
    },
    [Symbol.asyncDispose]: async () => {
      await admin.end();
      await server.stop();
    },
  };
}

/** Fingerprint of the certificate that the server shows; null: it does no TLS yet. */
async function shownBy({ host, port }: TestPostgres): Promise<string | null> {
  const socket = connectTcp(port, host);
  socket.on('error', () => undefined);
  try {
    socket.write(SSL_REQUEST);
    const [answer] = (await once(socket, 'data')) as [Buffer];
    if (answer[0] !== YES) return null;
    const secured = connectTls({ socket, rejectUnauthorized: false });
    secured.on('error', () => undefined);
    await once(secured, 'secureConnect');
    return secured.getPeerX509Certificate()?.fingerprint256 ?? null;
  } finally {
    socket.destroy();
  }
}

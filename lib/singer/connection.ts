/**
 * The connection of a tap or a target as an option of `source` or `target`: address, role, TLS, timeout. Spellings of singer-io, PipelineWise (transferwise),
 * Macrometa, Meltano and datamill-co. Pure.
 */
import { SSL_MODES } from '../config/connection.ts';
import type { Section } from './section.ts';
import { Settings, wrong } from './settings.ts';

/** datamill-co's target writes its settings with this before them. */
const PREFIX = 'postgres_';
const PORT = 5432;
/** What libpq has between none and required asks the server, and promises nothing. */
const NO_PROMISE = ['allow', 'prefer'];

/** Writes the connection; resolves with the database's name. Throws USAGE where address or role are missing. */
export function addConnection(section: Section, settings: Settings, file: string): string {
  const text = (...names: readonly string[]): string | null =>
    settings.text(...names, ...names.map((name) => `${PREFIX}${name}`));
  const needed = (value: string | null, what: string): string => {
    if (value === null) throw wrong(file, `has no ${what}.`);
    return value;
  };
  const database = needed(text('dbname', 'database'), 'dbname');
  section.set('host', needed(text('host', 'hostname'), 'host'));
  const port = settings.whole('port', `${PREFIX}port`) ?? PORT;
  if (port !== PORT) section.set('port', port);
  section.set('user', needed(text('user', 'username'), 'user'));
  if (text('password') !== null) section.set('password', section.secret('PASSWORD'));
  section.set('database', database);
  section.set('connect_timeout_seconds', settings.whole('connect_timeout', 'connect_timeout_seconds'));
  section.set('ssl', sslOf(section, settings, text));
  addTunnel(section, tunnelSettings(settings, file));
  return database;
}

/** Null: the default, which is none. */
function sslOf(
  section: Section,
  settings: Settings,
  text: (...names: readonly string[]) => string | null,
): boolean | Readonly<Record<string, string | null>> | null {
  const said = text('sslmode', 'ssl_mode');
  const wanted = settings.flag('ssl', 'ssl_enable') === true;
  // Meltano writes its defaults for all that follows, and these two say whether that holds.
  const isOff = settings.flag('ssl_enable') === false;
  const hasClient = settings.flag('ssl_client_certificate_enable') !== false;
  const ca = text('ssl_root_ca_cert', 'sslrootcert', 'ssl_certificate_authority');
  const client = [
    text('ssl_client_certificate', 'sslcert'),
    text('ssl_client_key', 'sslkey', 'ssl_client_private_key'),
  ];
  const [cert = null, key = null] = hasClient ? client : [];
  const hasPassphrase = settings.has('ssl_client_password', 'sslpassword');
  if (isOff) return null;
  if (said !== null && NO_PROMISE.includes(said)) {
    section.remark(
      `sslmode ${said} promises nothing, and there is no such mode here: TLS is off. Set ssl: true where the server has it.`,
    );
  }
  const mode = SSL_MODES.find((known) => known === said) ?? null;
  if (said !== null && mode === null && !NO_PROMISE.includes(said)) {
    section.remark('sslmode is left out: it is none of disable, require, verify-ca and verify-full.');
  }
  if (mode === 'disable') {
    if (wanted || ca !== null)
      section.remark('sslmode disable beside other settings of TLS: TLS is off. Set ssl to what is meant.');
    return false;
  }
  if (!wanted && mode === null) return null;
  if (ca === null && cert === null && (mode === null || mode === 'require')) return true;
  return {
    // As in libpq: with authorities, `require` checks the chain.
    mode: mode === 'require' ? null : mode,
    ca: ca && pem(ca),
    cert: cert && pem(cert),
    key: key === null ? null : isPem(key) ? section.secret('CLIENT_KEY') : key,
    key_password: hasPassphrase ? section.secret('CLIENT_KEY_PASSWORD') : null,
  };
}

function isPem(text: string): boolean {
  return text.startsWith('-----BEGIN ');
}

/** A PEM text whose line breaks a form has made spaces has them again; a path stays what it is. */
function pem(text: string): string {
  if (!isPem(text) || text.includes('\n')) return text;
  return text.replaceAll(/(-----[A-Z0-9 ]+-----)|( +)/g, (_, label?: string) => label ?? '\n');
}

/** Meltano has the tunnel's settings as an object of their own. */
function tunnelSettings(settings: Settings, file: string): Settings {
  const own = settings.map('ssh_tunnel');
  if (Object.keys(own).length === 0) return settings;
  const { enable = false, host, port, username, private_key, private_key_password } = own;
  return new Settings(
    {
      use_ssh_tunnel: enable,
      ssh_host: host,
      ssh_port: port,
      ssh_username: username,
      ssh_private_key: private_key,
      ssh_private_key_password: private_key_password,
    },
    file,
  );
}

/** The key of the host must be known: without it there is no tunnel. */
function addTunnel(section: Section, settings: Settings): void {
  const host = settings.text('ssh_jump_server', 'ssh_host', 'ssh_tunnel_host');
  const port = settings.whole('ssh_jump_server_port', 'ssh_port') ?? 22;
  const user = settings.text('ssh_username', 'ssh_user');
  const path = settings.text('ssh_private_key_path', 'ssh_pkey', 'ssh_private_key');
  const hasPassphrase = settings.has('ssh_private_key_password');
  const isWanted = settings.flag('use_ssh_tunnel', 'ssh_tunnel_enable') ?? host !== null;
  if (!isWanted || host === null) return;
  const variable = (name: string): string => `\${env:${section.side.toUpperCase()}_SSH_${name}}`;
  const key = path === null || isPem(path) ? variable('KEY') : path;
  const passphrase = hasPassphrase ? `, passphrase: ${variable('PASSPHRASE')}` : '';
  section.note(`The tunnel, without which this connection goes straight to host. Fill in the fingerprint:`);
  section.note(
    `ssh: { host: ${host}, port: ${port}, user: ${user ?? 'USER'}, private_key: ${key}${passphrase}, host_key: "SHA256:FINGERPRINT" }`,
  );
  section.remark(
    `the SSH tunnel stands in a comment, because its host's key must be pinned: ask for it with ssh-keyscan -p ${port} ${host} | ssh-keygen -lf -`,
  );
}

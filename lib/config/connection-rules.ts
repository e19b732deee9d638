/**
 * What the options of one connection must say together, for source and target alike. Part of the rules of a file (`rules.ts`).
 */
import type { SslConfig } from './connection.ts';
import type { Path } from './document.ts';
import type { Finding } from './explain.ts';
import { iamRegion } from './iam.ts';
import type { PipelineFile } from './schema.ts';

type Source = PipelineFile['source'];
type Target = PipelineFile['target'];

/** Options that mean nothing without a server to connect to. */
const NEEDS_HOST = ['user', 'password', 'database', 'ssh'] as const;

/** Findings about the connection of `side`. */
export function connectionFindings(side: 'source' | 'target', given: Source | Target | undefined): Finding[] {
  if (!given) return [];
  return [
    ...hostFindings(side, given),
    ...clientCertificateFindings(side, given.ssl),
    ...trustFindings(side, given.ssl),
    ...iamFindings(side, given),
  ];
}

function finding(path: Path, part: Finding['part'], problem: string, remedy: string): Finding {
  return { path, part, problem, remedy };
}

function hostFindings(side: string, given: Source | Target): Finding[] {
  const findings: Finding[] = [];
  const present = NEEDS_HOST.filter((key) => given[key] !== undefined && given[key] !== null);
  if (given.host === null && present.length > 0) {
    const problem = `${side}.host is missing beside ${present.map((key) => `${side}.${key}`).join(', ')}.`;
    findings.push(
      finding([side], 'key', problem, 'Add it; or remove the others for an embedded PostgreSQL (local engine only).'),
    );
  }
  for (const key of ['user', 'database'] as const) {
    if (given.host !== null && given[key] === undefined) {
      findings.push(finding([side], 'key', `${side}.${key} is missing beside ${side}.host.`, `Add it: ${key}: NAME`));
    }
  }
  return findings;
}

function clientCertificateFindings(side: string, { cert, key, key_password }: SslConfig): Finding[] {
  const findings: Finding[] = [];
  if ((cert === null) !== (key === null)) {
    const [there, lacking] = cert === null ? ['key', 'cert'] : ['cert', 'key'];
    const problem = `${side}.ssl.${there} is given without ${side}.ssl.${lacking}.`;
    findings.push(
      finding([side, 'ssl', there], 'key', problem, 'Give both: a client certificate and its private key.'),
    );
  }
  if (key_password !== null && key === null) {
    const problem = `${side}.ssl.key_password is given without ${side}.ssl.key.`;
    findings.push(finding([side, 'ssl', 'key_password'], 'key', problem, 'Give the key, or remove the passphrase.'));
  }
  return findings;
}

/** What means nothing without TLS. */
const NEEDS_TLS = ['ca', 'cert', 'key', 'key_password', 'server_name'] as const;

/** Nothing may look safer than it is. */
function trustFindings(side: string, ssl: SslConfig): Finding[] {
  const { mode, ca, server_name } = ssl;
  if (mode === 'disable') {
    const [given] = NEEDS_TLS.filter((key) => ssl[key] !== null);
    if (given === undefined) return [];
    const problem = `${side}.ssl.${given} is given, and ${side}.ssl.mode: disable means no TLS at all: anybody on the way reads and changes what passes.`;
    const remedy = `Set mode: ${ca === null ? 'require' : 'verify-full'}; or, where nobody can listen on the way, set ${side}.ssl: false.`;
    return [finding([side, 'ssl', 'mode'], 'value', problem, remedy)];
  }
  const findings: Finding[] = [];
  if (mode === 'verify-ca' && ca === null) {
    // libpq refuses it as well: https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNECT-SSLROOTCERT
    const problem = `${side}.ssl.mode is verify-ca without ${side}.ssl.ca: a public authority gives everybody a certificate.`;
    findings.push(
      finding([side, 'ssl', 'mode'], 'value', problem, 'Give ca, the certificate of your authority; or verify-full.'),
    );
  }
  if (server_name !== null && mode !== 'verify-full') {
    const problem = `${side}.ssl.server_name is given, and no name is checked with ${side}.ssl.mode: ${mode}.`;
    findings.push(
      finding([side, 'ssl', 'server_name'], 'key', problem, 'Set mode: verify-full, or remove server_name.'),
    );
  }
  return findings;
}

function iamFindings(side: string, { password, host, ssl }: Source | Target): Finding[] {
  if (password?.from !== 'iam') return [];
  const findings: Finding[] = [];
  if (ssl.mode === 'disable') {
    const problem = `${side}.password is an IAM token, and ${side}.ssl is off: a token is taken over TLS only.`;
    findings.push(
      finding([side, 'password'], 'value', problem, 'Add it, for example ssl: { mode: verify-full, ca: rds }'),
    );
  }
  if (host !== null && iamRegion(password, ssl.server_name ?? host) === null) {
    const problem = `${side}.password is an IAM token, and ${side}.${ssl.server_name === null ? 'host' : 'ssl.server_name'} does not tell the region.`;
    findings.push(
      finding(
        [side, 'password'],
        'value',
        problem,
        'Name it, for example password: { iam: true, region: eu-central-1 }',
      ),
    );
  }
  return findings;
}

/** What a walsender would be needed for, which takes no IAM token (`functions/postgres.ts`). */
export function walsenderFindings({ source, target, tables }: Partial<PipelineFile>): Finding[] {
  const logged = tables?.some((entry) => entry.replication_method === 'LOG_BASED') ?? false;
  if (source?.password?.from !== 'iam' || !logged) return [];
  const findings: Finding[] = [];
  if (source.slot_reader === 'stream') {
    const problem = 'source.slot_reader is stream, a replication connection, which takes no IAM token.';
    findings.push(
      finding(
        ['source', 'slot_reader'],
        'value',
        problem,
        'Set slot_reader: peek, or give source.password a password.',
      ),
    );
  }
  if (target?.primary_key_required === false) {
    const problem =
      'target.primary_key_required is false, and the copy of a table without a key needs a replication connection, which takes no IAM token.';
    findings.push(
      finding(
        ['target', 'primary_key_required'],
        'value',
        problem,
        'Remove it, follow such tables by FULL_TABLE in a pipeline of their own, or give source.password a password.',
      ),
    );
  }
  return findings;
}

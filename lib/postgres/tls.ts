/**
 * TLS of a connection as libpq means it, and its faults told apart. Pure.
 *
 * What is asked for is what happens, or there is no connection: nothing falls back to less (https://www.postgresql.org/docs/current/libpq-ssl.html).
 * Faults are told by the codes of Node and OpenSSL; a reason holds names of certificates, which are public, and never a key or a passphrase.
 */
import tls from 'node:tls';

/** `ca`, `cert` and `key` are PEM text. */
export interface Tls {
  readonly mode: 'disable' | 'require' | 'verify-ca' | 'verify-full';
  readonly ca: string | null;
  readonly cert: string | null;
  readonly key: string | null;
  readonly key_password: string | null;
  /** Name that the certificate must carry under verify-full, where it is not `host`. */
  readonly server_name: string | null;
}

/** Whose TLS it is: `ssl` is what the file says of it. */
export interface TlsPlace {
  readonly side: 'source' | 'target';
  readonly host: string;
  readonly ssl: Tls | null | undefined;
}

/** Why TLS failed, and what to do. */
export interface TlsFault {
  readonly reason: string;
  readonly remedy: string;
}

/** Options of Node's TLS; false: none. */
export function tlsOptions(host: string, ssl: Tls | null | undefined): tls.ConnectionOptions | false {
  if (!ssl || ssl.mode === 'disable') return false;
  // As in libpq, `require` with an authority given means that the authority is checked.
  const mode = ssl.mode === 'require' && ssl.ca !== null ? 'verify-ca' : ssl.mode;
  return {
    // Given in any case: what is left out, Node takes from NODE_TLS_REJECT_UNAUTHORIZED and --tls-min-v1.0. As in libpq, 1.2 is the least.
    minVersion: 'TLSv1.2',
    rejectUnauthorized: mode !== 'require',
    ...(ssl.ca === null ? {} : { ca: ssl.ca }),
    ...(ssl.cert === null ? {} : { cert: ssl.cert }),
    ...(ssl.key === null ? {} : { key: ssl.key }),
    ...(ssl.key_password === null ? {} : { passphrase: ssl.key_password }),
    // Sent to the server as well where `host` is an address; `pg` sends a name as it is.
    ...(ssl.server_name === null ? {} : { servername: ssl.server_name }),
    checkServerIdentity:
      mode === 'verify-full'
        ? (_host, certificate) => tls.checkServerIdentity(ssl.server_name ?? host, certificate)
        : () => undefined,
  };
}

/** Certificates and handshakes: https://nodejs.org/api/tls.html#x509-certificate-error-codes and OpenSSL's own. */
const TLS_CODE =
  /^(ERR_TLS_|ERR_SSL_|ERR_OSSL_|EPROTO$|CERT_|CRL_|DEPTH_ZERO_|SELF_SIGNED_|UNABLE_TO_|INVALID_CA$|INVALID_PURPOSE$|HOSTNAME_MISMATCH$|PATH_LENGTH_EXCEEDED$)/;
/** What `pg` itself says of the server's answer to its request for TLS. */
const NO_TLS = /^The server does not support SSL connections/;
const NOT_STARTED = /^There was an error establishing an SSL connection/;

const UNTRUSTED = new Set([
  'CERT_UNTRUSTED',
  'DEPTH_ZERO_SELF_SIGNED_CERT',
  'INVALID_CA',
  'SELF_SIGNED_CERT_IN_CHAIN',
  'UNABLE_TO_GET_ISSUER_CERT',
  'UNABLE_TO_GET_ISSUER_CERT_LOCALLY',
  'UNABLE_TO_VERIFY_LEAF_SIGNATURE',
  'CERT_SIGNATURE_FAILURE',
]);
/** What the server says of the client's certificate: alerts of https://datatracker.ietf.org/doc/html/rfc8446#section-6.2 */
const ALERT = /^ERR_SSL_\S+?_ALERT_(\w+)$/;
const CLIENT_REFUSED: Readonly<Record<string, string>> = {
  BAD_CERTIFICATE: 'is broken',
  CERTIFICATE_EXPIRED: 'has expired',
  CERTIFICATE_REVOKED: 'has been revoked',
  CERTIFICATE_UNKNOWN: 'is not accepted',
  DECRYPT_ERROR: 'does not belong to its key',
  UNKNOWN_CA: 'is of an authority that the server does not trust (its ssl_ca_file)',
  UNSUPPORTED_CERTIFICATE: 'is of a kind that the server does not take',
};
const CLIENT_ASKED = new Set(['CERTIFICATE_REQUIRED', 'NO_CERTIFICATE']);
/** Alerts of a handshake that finds no common version or cipher. */
const NOTHING_IN_COMMON = new Set(['HANDSHAKE_FAILURE', 'PROTOCOL_VERSION', 'INSUFFICIENT_SECURITY']);
const NOT_TLS = new Set([
  'ERR_SSL_WRONG_VERSION_NUMBER',
  'ERR_SSL_UNSUPPORTED_PROTOCOL',
  'ERR_SSL_PACKET_LENGTH_TOO_LONG',
  'ERR_SSL_NO_PROTOCOLS_AVAILABLE',
]);
const KEY_UNREADABLE = new Set(['ERR_OSSL_UNSUPPORTED', 'ERR_OSSL_PEM_NO_START_LINE']);

/** The fault that `error` is of; null: it is none of TLS. */
export function tlsFault({ side, host, ssl }: TlsPlace, error: unknown): TlsFault | null {
  if (!(error instanceof Error)) return null;
  const { message } = error;
  const code = codeOf(error);
  const option = `${side}.ssl`;
  if (NO_TLS.test(message)) {
    const remedy = `Turn ssl on at the ${side}'s server; or, where nobody can listen on the way, set ${option}: false.`;
    return { reason: 'the server does not support SSL: it has no TLS', remedy };
  }
  if (NOT_STARTED.test(message)) {
    const remedy = `See the server's log; and check that ${side}.host and ${side}.port are PostgreSQL's.`;
    return { reason: 'the server answers the request for TLS with something else', remedy };
  }
  if (!TLS_CODE.test(code)) return null;
  return (
    serverCertificateFault(option, code, error, host, ssl) ??
    clientKeyFault(option, code, ssl) ??
    handshakeFault(option, code) ?? {
      reason: `${message} (${code})`,
      remedy: `Check ${option}: its mode, ca and server_name, and that the server has ssl = on.`,
    }
  );
}

/** Where a write fails in the middle of a handshake, Node has the reason of OpenSSL in its text only: `…:SSL routines:FUNCTION:wrong version number:FILE:…` */
const PROTOCOL_REASON = /:SSL routines:[^:]*:([^:]+):/;

function codeOf(error: Error): string {
  const code = 'code' in error ? String(error.code) : '';
  const reason = code === 'EPROTO' ? PROTOCOL_REASON.exec(error.message)?.[1] : undefined;
  return reason === undefined ? code : `ERR_SSL_${reason.toUpperCase().replaceAll(' ', '_')}`;
}

/** What is wrong with the certificate that the server has shown. */
function serverCertificateFault(
  option: string,
  code: string,
  error: Error,
  host: string,
  ssl: TlsPlace['ssl'],
): TlsFault | null {
  if (UNTRUSTED.has(code)) {
    const whose = ssl?.ca == null ? 'the public authorities' : `${option}.ca`;
    return {
      reason: `the server's certificate is of an authority that is not among ${whose} (${code})`,
      remedy: `Give the certificate of its authority in ${option}.ca (Amazon RDS: ca: rds). If the server is not the one that is meant, look into that first.`,
    };
  }
  if (code === 'CERT_HAS_EXPIRED') {
    const reason = "the server's certificate, or that of its authority, has expired";
    return { reason, remedy: `Renew it on the server, or the one in ${option}.ca; and check this machine's clock.` };
  }
  if (code === 'CERT_NOT_YET_VALID') {
    const reason = "the server's certificate is not valid yet";
    return { reason, remedy: "Check the clocks of this machine and of whoever made the server's certificate." };
  }
  if (code === 'ERR_TLS_CERT_ALTNAME_INVALID' || code === 'HOSTNAME_MISMATCH') {
    const wanted = ssl?.server_name ?? host;
    return {
      reason: `the server's certificate is not for ${wanted}, but for ${namesOf(error)}`,
      remedy: `If that is the server that is meant, set ${option}.server_name to a name of its certificate, or connect by that name.`,
    };
  }
  return null;
}

/** What is wrong with our own certificate and key before anything is sent. */
function clientKeyFault(option: string, code: string, ssl: TlsPlace['ssl']): TlsFault | null {
  if (code.endsWith('BAD_DECRYPT')) {
    return ssl?.key_password == null
      ? {
          reason: `the private key in ${option}.key is encrypted, and there is no passphrase`,
          remedy: `Name its passphrase: ${option}.key_password.`,
        }
      : {
          reason: `the passphrase in ${option}.key_password does not open the private key`,
          remedy: `Correct what ${option}.key_password names, or ${option}.key.`,
        };
  }
  if (code.endsWith('KEY_VALUES_MISMATCH') || code.endsWith('KEY_TYPE_MISMATCH')) {
    const reason = `the private key in ${option}.key is not that of the certificate in ${option}.cert`;
    return { reason, remedy: 'Give the two that belong together; the own certificate stands first in its file.' };
  }
  if (KEY_UNREADABLE.has(code)) {
    const reason = `what ${option}.key names is no private key that can be read (${code})`;
    return { reason, remedy: 'Give a private key in PEM: PKCS #8, PKCS #1 or SEC 1.' };
  }
  if (code.startsWith('ERR_OSSL_ASN1_') || code.startsWith('ERR_OSSL_PEM_')) {
    const reason = `what ${option} names is no certificate or key that can be read (${code})`;
    return { reason, remedy: `Check the PEM text that ${option}.ca, ${option}.cert and ${option}.key name.` };
  }
  return null;
}

/** What the server has told by an alert, or what is no TLS at all. */
function handshakeFault(option: string, code: string): TlsFault | null {
  const alert = ALERT.exec(code)?.[1] ?? '';
  const refused = CLIENT_REFUSED[alert];
  if (refused !== undefined) {
    const remedy = `Give another certificate in ${option}.cert with its key in ${option}.key, or let the server trust its authority.`;
    return { reason: `the server refuses the client certificate: it ${refused} (${code})`, remedy };
  }
  if (CLIENT_ASKED.has(alert)) {
    const remedy = `Give a certificate in ${option}.cert with its key in ${option}.key.`;
    return { reason: `the server asks for a client certificate (${code})`, remedy };
  }
  if (NOTHING_IN_COMMON.has(alert) || NOT_TLS.has(code)) {
    const reason = `there is no version or cipher of TLS that both sides take (${code})`;
    return {
      reason,
      remedy: 'TLS 1.2 or newer is needed: see ssl_min_protocol_version and ssl_ciphers of the server.',
    };
  }
  return null;
}

/** The names of the certificate that Node has compared. */
function namesOf(error: Error): string {
  const certificate = 'cert' in error ? (error.cert as Partial<tls.PeerCertificate> | undefined) : undefined;
  const names = certificate?.subjectaltname ?? certificate?.subject?.CN;
  return names === undefined ? 'others' : [names].flat().join(', ');
}

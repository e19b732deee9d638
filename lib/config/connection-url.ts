/**
 * Connection URLs as libpq and everything after it writes them: `postgresql://user:password@host:port/database?sslmode=require`
 * (https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNSTRING-URIS). No message carries the URL: it may hold a password.
 */
import { SluiceError } from '../errors.ts';
import { SSL_MODES, type SslMode } from './connection.ts';

export interface ConnectionUrl {
  readonly host: string;
  readonly port: number;
  readonly user: string;
  readonly password: string | null;
  readonly database: string;
  readonly ssl_mode: SslMode;
  /** sslrootcert: the path of a file; null: none, or `system`, which are the authorities that `verify-full` has anyway. */
  readonly ssl_ca: string | null;
}

const PORT = 5432;
const FORM = 'postgresql://USER@HOST:PORT/DATABASE';
/** What libpq has between none and required asks the server, and promises nothing. */
const NO_PROMISE = ['allow', 'prefer'];
const PARAMETERS = ['sslmode', 'sslrootcert'];

/** Throws USAGE for what is no such URL, and for parameters that would be lost. As in libpq, the database is the user's where none is named. */
export function parseConnectionUrl(text: string): ConnectionUrl {
  const url = URL.canParse(text) ? new URL(text) : null;
  if (url?.protocol !== 'postgres:' && url?.protocol !== 'postgresql:')
    throw usage('The argument is no connection URL.');
  const unknown = [...url.searchParams.keys()].find((name) => !PARAMETERS.includes(name));
  if (unknown !== undefined) {
    throw usage(
      `The parameter ${JSON.stringify(unknown)} of the URL is not known.`,
      `Remove it; ${PARAMETERS.join(' and ')} are taken over.`,
    );
  }
  const host = url.hostname.replace(/^\[(.*)\]$/, '$1');
  const user = decoded(url.username);
  if (host === '') throw usage('The URL names no host.');
  if (user === '') throw usage('The URL names no user.');
  const rootcert = url.searchParams.get('sslrootcert');
  // The public authorities, with which libpq checks the name as well.
  const is_public = rootcert === 'system';
  const ssl_ca = is_public ? null : rootcert;
  const ssl_mode = sslMode(
    url.searchParams.get('sslmode') ?? (is_public ? 'verify-full' : ssl_ca === null ? 'disable' : 'verify-ca'),
  );
  if (is_public && ssl_mode !== 'verify-full') {
    throw usage("The URL's sslrootcert=system needs sslmode=verify-full.", 'Write verify-full, or name a file.');
  }
  if (ssl_ca !== null && ssl_mode === 'disable') {
    throw usage(
      "The URL's sslrootcert names an authority, and its sslmode promises no TLS.",
      'Write sslmode=verify-full, or leave sslrootcert out.',
    );
  }
  if (ssl_ca === null && ssl_mode === 'verify-ca') {
    throw usage("The URL's sslmode=verify-ca names no authority.", 'Add sslrootcert=FILE, or write verify-full.');
  }
  return {
    host: decoded(host),
    port: url.port === '' ? PORT : Number(url.port),
    user,
    password: url.password === '' ? null : decoded(url.password),
    database: decoded(url.pathname.slice(1)) || user,
    ssl_mode,
    ssl_ca,
  };
}

function sslMode(text: string): SslMode {
  const mode = SSL_MODES.find((known) => known === text) ?? (NO_PROMISE.includes(text) ? 'disable' : undefined);
  if (mode) return mode;
  throw usage(`The URL's sslmode ${JSON.stringify(text)} is not known.`, `Write one of ${SSL_MODES.join(', ')}.`);
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    throw usage(
      'The URL has a % that begins no code.',
      'Write %25 for a percent sign in a user, password or database.',
    );
  }
}

function usage(problem: string, remedy = `Write it as ${FORM}, in quotes.`): SluiceError {
  return new SluiceError('USAGE', { problem, remedy });
}

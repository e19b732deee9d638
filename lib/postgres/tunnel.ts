/**
 * A connection through SSH (option `ssh`): one SSH connection for each database connection, with one channel to the database, closed with it.
 *
 * `pg` is given the channel in place of a socket, so nothing listens on a port of this machine, and TLS inside of it still checks the database's own
 * name. The SSH server is trusted by the fingerprint of its key and by nothing else (https://www.rfc-editor.org/rfc/rfc4253#section-8). Loaded by
 * whoever has such a connection only: other functions start without it.
 */
import { createHash } from 'node:crypto';
import net from 'node:net';
import { Duplex } from 'node:stream';
import ssh2, { type ClientChannel, type ParsedKey, type PublicKeyAuthMethod, type ServerHostKeyAlgorithm } from 'ssh2';
import { SluiceError } from '../errors.ts';
import type { Endpoint, Ssh } from './connection.ts';
import { networkReason } from './faults.ts';

/** How long a connection may be silent before the other side is asked whether it is there, and how often that may go unanswered. */
const KEEPALIVE_MS = 30_000;
const KEEPALIVES_MAX = 3;
/** How long the last bytes may take on their way out. */
const LINGER_MS = 2_000;

/**
 * Host keys by the type that their blob begins with (RFC 4253, 8332). A server has one key of each type and proves the first of the client's list: another
 * of its keys may be the one that is pinned. RSA with SHA-1 is not asked for.
 */
const KEY_TYPES: Readonly<Record<string, readonly ServerHostKeyAlgorithm[]>> = {
  'ssh-ed25519': ['ssh-ed25519'],
  'ecdsa-sha2-nistp256': ['ecdsa-sha2-nistp256'],
  'ecdsa-sha2-nistp384': ['ecdsa-sha2-nistp384'],
  'ecdsa-sha2-nistp521': ['ecdsa-sha2-nistp521'],
  'ssh-rsa': ['rsa-sha2-512', 'rsa-sha2-256'],
};

/** Reasons of a channel that was not opened (https://www.rfc-editor.org/rfc/rfc4254#section-5.1). */
const PROHIBITED = 1;
const UNKNOWN_CHANNEL_TYPE = 3;

/** What `pg` is given in place of a socket. */
export type Tunnel = Duplex;

/**
 * A channel to the endpoint's host and port as the SSH server sees them. Throws SSH_UNREACHABLE, SSH_HOST_KEY, SSH_KEY_UNREADABLE, SSH_KEY_REFUSED,
 * SSH_FORWARDING_REFUSED, and CONNECTION_FAILED where the SSH server cannot reach the database. All of it within connect_timeout_seconds.
 */
export async function openTunnel(endpoint: Endpoint, ssh: Ssh): Promise<Tunnel> {
  const { connect_timeout_seconds } = endpoint.connection;
  const until_ms = connect_timeout_seconds > 0 ? performance.now() + connect_timeout_seconds * 1000 : null;
  const seen: string[] = [];
  let types = Object.keys(KEY_TYPES);
  while (types.length > 0) {
    const offered: { key: Buffer | null } = { key: null };
    try {
      return await new Opening(endpoint, ssh, types, offered).open(until_ms);
    } catch (error) {
      if (offered.key === null || fingerprint(offered.key) === ssh.host_key) {
        // It has no key of the types that are left.
        if (seen.length > 0 && isNoMatch(error)) break;
        throw error;
      }
      seen.push(`${fingerprint(offered.key)} (${typeOf(offered.key)})`);
      const found = typeOf(offered.key);
      types = types.filter((type) => type !== found);
    }
  }
  const facts = { ...factsOf(endpoint, ssh), expected: ssh.host_key, found: seen.join(', ') };
  throw new SluiceError('SSH_HOST_KEY', facts);
}

/** One attempt, with the host keys of these types. */
class Opening {
  readonly #endpoint: Endpoint;
  readonly #ssh: Ssh;
  readonly #types: readonly string[];
  readonly #offered: { key: Buffer | null };
  readonly #client = new ssh2.Client();
  readonly #socket = new net.Socket();
  #step: 'connecting' | 'proving' | 'forwarding' = 'connecting';

  constructor(endpoint: Endpoint, ssh: Ssh, types: readonly string[], offered: { key: Buffer | null }) {
    this.#endpoint = endpoint;
    this.#ssh = ssh;
    this.#types = types;
    this.#offered = offered;
  }

  async open(until_ms: number | null): Promise<Tunnel> {
    const key = privateKey(this.#endpoint, this.#ssh);
    const { promise, resolve, reject } = Promise.withResolvers<Tunnel>();
    const timer =
      until_ms === null ? undefined : setTimeout(() => reject(this.#late()), Math.max(0, until_ms - performance.now()));
    this.#client.on('error', (error) => reject(this.#fault(error)));
    this.#client.on('close', () => reject(this.#fault(new Error('it closed the connection'))));
    this.#client.on('handshake', () => {
      this.#step = 'proving';
    });
    this.#client.on('ready', () => {
      this.#step = 'forwarding';
      this.#forward(resolve, reject);
    });
    this.#connect(key);
    try {
      return await promise;
    } catch (error) {
      this.#socket.destroy();
      throw error;
    } finally {
      clearTimeout(timer);
    }
  }

  #connect(key: ParsedKey): void {
    const { host, port, user, host_key } = this.#ssh;
    const proof: PublicKeyAuthMethod = { type: 'publickey', username: user, key };
    this.#socket.setNoDelay(true);
    this.#socket.setKeepAlive(true, KEEPALIVE_MS);
    this.#client.connect({
      sock: this.#socket,
      username: user,
      authHandler: [proof],
      hostVerifier: (offered: Buffer) => {
        this.#offered.key = offered;
        return fingerprint(offered) === host_key;
      },
      algorithms: { serverHostKey: this.#types.flatMap((type) => KEY_TYPES[type] ?? []) },
      keepaliveInterval: KEEPALIVE_MS,
      keepaliveCountMax: KEEPALIVES_MAX,
      // The limit is on all of it, and kept above.
      readyTimeout: 0,
    });
    this.#socket.connect({ host, port });
  }

  #forward(resolve: (tunnel: Tunnel) => void, reject: (error: Error) => void): void {
    const { host, port } = this.#endpoint.connection;
    // The origin is for the server's log (RFC 4254, 7.2): there is no socket that it could name.
    this.#client.forwardOut('127.0.0.1', 0, host, port, (error, channel) => {
      if (error) reject(this.#fault(error));
      else resolve(new ChannelSocket(this.#client, this.#socket, channel));
    });
  }

  #late(): SluiceError {
    const reason = `no answer in ${this.#endpoint.connection.connect_timeout_seconds} seconds (connect_timeout_seconds)`;
    return this.#step === 'forwarding' ? this.#unreachable(reason) : this.#sshUnreachable(reason);
  }

  #fault(error: Error & { readonly level?: string; readonly reason?: unknown }): SluiceError {
    const options = { cause: error };
    const facts = { ...factsOf(this.#endpoint, this.#ssh), reason: networkReason(error) ?? error.message };
    if (this.#step === 'connecting') return this.#sshUnreachable(facts.reason, options);
    if (this.#step === 'proving') {
      // Some servers hang up instead of saying no.
      const isRefusal = error.level === 'client-authentication' || networkReason(error) === null;
      return isRefusal
        ? new SluiceError('SSH_KEY_REFUSED', facts, options)
        : this.#sshUnreachable(facts.reason, options);
    }
    if (error.reason === PROHIBITED || error.reason === UNKNOWN_CHANNEL_TYPE) {
      const { host, port } = this.#endpoint.connection;
      return new SluiceError('SSH_FORWARDING_REFUSED', { ...facts, to: `${host}:${port}` }, options);
    }
    return this.#unreachable(facts.reason, options);
  }

  #sshUnreachable(reason: string, options?: ErrorOptions): SluiceError {
    return new SluiceError('SSH_UNREACHABLE', { ...factsOf(this.#endpoint, this.#ssh), reason }, options);
  }

  /** The SSH server is there, and the database is not. */
  #unreachable(why: string, options?: ErrorOptions): SluiceError {
    const { side, connection } = this.#endpoint;
    const { host, port, user, database } = connection;
    const reason = `through SSH server ${this.#ssh.host}: ${why}`;
    return new SluiceError('CONNECTION_FAILED', { side, host, port, user, database, reason }, options);
  }
}

/** The channel, as `pg` expects a socket to be: `connect` has nothing left to do, and closing it closes the SSH connection. */
class ChannelSocket extends Duplex {
  readonly #client: ssh2.Client;
  readonly #socket: net.Socket;
  readonly #channel: ClientChannel;
  #hasEnded = false;
  /** As of a socket. */
  bytesRead = 0;
  bytesWritten = 0;

  constructor(client: ssh2.Client, socket: net.Socket, channel: ClientChannel) {
    // As a socket: when the server has ended it, it is over.
    super({ allowHalfOpen: false });
    this.#client = client;
    this.#socket = socket;
    this.#channel = channel;
    channel.on('data', (chunk: Buffer) => {
      this.bytesRead += chunk.length;
      if (!this.push(chunk)) channel.pause();
    });
    const end = (): void => {
      if (this.#hasEnded) return;
      this.#hasEnded = true;
      this.push(null);
    };
    channel.on('end', end);
    channel.on('close', end);
    client.removeAllListeners('close').on('close', end);
    client.removeAllListeners('error').on('error', (error: Error & { readonly code?: unknown }) => {
      const lost = new Error(`the SSH connection failed: ${error.message}`, { cause: error });
      this.destroy(Object.assign(lost, { code: typeof error.code === 'string' ? error.code : 'ECONNRESET' }));
    });
  }

  connect(): this {
    process.nextTick(() => this.emit('connect'));
    return this;
  }

  setNoDelay(): this {
    return this;
  }

  /** The SSH connection sees to that, by itself. */
  setKeepAlive(): this {
    return this;
  }

  ref(): this {
    this.#socket.ref();
    return this;
  }

  unref(): this {
    this.#socket.unref();
    return this;
  }

  override _read(): void {
    this.#channel.resume();
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: (error?: Error | null) => void): void {
    // A channel that was closed never calls back; then this stream ends too.
    this.#channel.write(chunk, (error?: Error | null) => {
      this.bytesWritten += chunk.length;
      done(error);
    });
  }

  override _final(done: (error?: Error | null) => void): void {
    this.#channel.end();
    done();
  }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    if (this.#socket.destroyed) return done(error);
    // Closed when the SSH connection is: what TLS in here has found wrong is told before that.
    const late = setTimeout(() => this.#socket.destroy(), LINGER_MS);
    this.#socket.once('close', () => {
      clearTimeout(late);
      done(error);
    });
    if (error !== null) {
      this.#socket.destroy();
      return;
    }
    this.#client.end();
    this.#socket.destroySoon();
  }
}

/** Keys that have been opened: an encrypted one takes a quarter of a second. */
const opened = new WeakMap<Ssh, ParsedKey>();

/** Throws SSH_KEY_UNREADABLE. No message quotes the key or its passphrase. */
function privateKey(endpoint: Endpoint, ssh: Ssh): ParsedKey {
  const kept = opened.get(ssh);
  if (kept) return kept;
  const parsed = ssh2.utils.parseKey(ssh.private_key, ssh.passphrase ?? undefined);
  const key = Array.isArray(parsed) ? parsed[0] : parsed;
  if (key instanceof Error || key === undefined || !key.isPrivateKey()) {
    const reason = key instanceof Error ? keyFault(key.message, ssh.passphrase !== null) : 'it is a public key';
    throw new SluiceError('SSH_KEY_UNREADABLE', { side: endpoint.side, reason });
  }
  opened.set(ssh, key);
  return key;
}

function keyFault(message: string, has_passphrase: boolean): string {
  if (/no passphrase given/i.test(message)) return 'it is encrypted, and there is no passphrase';
  if (has_passphrase && /passphrase|integrity|decrypt|malformed/i.test(message))
    return 'the passphrase does not open it';
  return 'it is in no format that is known; `ssh-keygen -p -f FILE` writes it anew in one that is';
}

/** As ssh-keygen prints it: SHA-256 of the key's blob, in base64 without padding. */
function fingerprint(key: Buffer): string {
  return `SHA256:${createHash('sha256').update(key).digest('base64').replace(/=+$/, '')}`;
}

/** A blob begins with the length and the name of its type (RFC 4253, 6.6). */
function typeOf(key: Buffer): string {
  return key.toString('latin1', 4, 4 + key.readUInt32BE(0));
}

function isNoMatch(error: unknown): boolean {
  return error instanceof SluiceError && /no matching host key/i.test(String(error.facts.reason));
}

function factsOf({ side }: Endpoint, { host, port, user }: Ssh): Readonly<Record<string, string | number>> {
  return { side, host, port, user };
}

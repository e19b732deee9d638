/**
 * An SSH server in this process that forwards connections, as sshd does. Names of hosts mean what the test says: a database behind it has a name that only it
 * knows, so that what reaches the database has come through it.
 */
import { createHash } from 'node:crypto';
import net from 'node:net';
import ssh2 from 'ssh2';

export interface SshServerOptions {
  /** Types of its host keys; ed25519 alone where not said. */
  readonly keys?: readonly ('ed25519' | 'rsa' | 'ecdsa')[];
  /** Public key that user `tunnel` proves; others are refused. */
  readonly authorized: string;
  /** `name:port` → where that is. What is not here does not answer. */
  readonly hosts: () => Readonly<Record<string, { readonly host: string; readonly port: number }>>;
  /** False: no forwarding, as AllowTcpForwarding no. */
  readonly forwards?: boolean;
}

export interface SshServer extends AsyncDisposable {
  readonly host: string;
  readonly port: number;
  /** Of its host keys, in order. */
  readonly fingerprints: readonly string[];
  /** SSH connections that are open now, and that ever were. */
  readonly connections: { open: number; made: number };
  /** Where channels went, in order. */
  readonly forwarded: string[];
  /** Breaks every connection off, as a server that dies. */
  breakOff(): void;
}

export interface KeyPair {
  readonly public: string;
  readonly private: string;
}

/** `passphrase`: the private key is encrypted with it. */
export function keyPair(type: 'ed25519' | 'rsa' | 'ecdsa' = 'ed25519', passphrase?: string): KeyPair {
  const encryption = passphrase === undefined ? {} : { passphrase, cipher: 'aes256-ctr' as const, rounds: 4 };
  switch (type) {
    case 'rsa':
      return ssh2.utils.generateKeyPairSync('rsa', { bits: 2048, ...encryption });
    case 'ecdsa':
      return ssh2.utils.generateKeyPairSync('ecdsa', { bits: 256, ...encryption });
    default:
      return ssh2.utils.generateKeyPairSync('ed25519', { comment: '', ...encryption });
  }
}

function publicOf(key: string): Buffer {
  const parsed = ssh2.utils.parseKey(key);
  const [first] = Array.isArray(parsed) ? parsed : [parsed];
  if (first === undefined || first instanceof Error) throw first ?? new Error('no key');
  return first.getPublicSSH();
}

export async function startSshServer(options: SshServerOptions): Promise<SshServer> {
  const { keys = ['ed25519'], authorized, hosts, forwards = true } = options;
  const hostKeys = keys.map((type) => keyPair(type));
  const allowed = publicOf(authorized);
  const connections = { open: 0, made: 0 };
  const forwarded: string[] = [];
  const sockets = new Set<net.Socket>();
  const ssh = new ssh2.Server({ hostKeys: hostKeys.map((pair) => pair.private) }, (client) => {
    client.on('error', () => undefined); // The other side breaks off in some tests.
    client.on('authentication', (context) => {
      const proves =
        context.method === 'publickey' &&
        context.username === 'tunnel' &&
        context.key.data.equals(allowed) &&
        // Without a signature the client asks whether the key would do.
        (context.signature === undefined || verifies(authorized, context));
      if (proves) context.accept();
      else context.reject(['publickey']);
    });
    client.on('ready', () => {
      // Without a listener the answer is that it is prohibited; `reject` says that the other end cannot be reached.
      if (!forwards) return;
      client.on('tcpip', (accept, reject, { destIP, destPort }) => {
        const name = `${destIP}:${destPort}`;
        forwarded.push(name);
        const to = hosts()[name];
        // Whatever a resolver would do with the name, nothing listens on port 1.
        const onward = net.connect(to ?? { host: '127.0.0.1', port: 1 });
        onward.once('error', () => reject());
        onward.once('connect', () => {
          onward.setNoDelay(true);
          const channel = accept();
          onward.removeAllListeners('error').on('error', () => channel.destroy());
          channel.on('error', () => onward.destroy());
          channel.on('close', () => onward.destroy());
          onward.pipe(channel);
          channel.pipe(onward);
        });
      });
    });
  });
  const listener = net.createServer((socket) => {
    connections.open++;
    connections.made++;
    sockets.add(socket);
    socket.setNoDelay(true);
    socket.on('error', () => undefined);
    socket.on('close', () => {
      connections.open--;
      sockets.delete(socket);
    });
    ssh.injectSocket(socket);
  });
  await new Promise<void>((done) => listener.listen(0, '127.0.0.1', done));
  const address = listener.address();
  if (address === null || typeof address === 'string') throw new Error('a server without a port');
  const breakOff = (): void => {
    for (const socket of sockets) socket.destroy();
  };
  return {
    host: '127.0.0.1',
    port: address.port,
    fingerprints: hostKeys.map((pair) => {
      const digest = createHash('sha256').update(publicOf(pair.private)).digest('base64');
      return `SHA256:${digest.replace(/=+$/, '')}`;
    }),
    connections,
    forwarded,
    breakOff,
    [Symbol.asyncDispose]: async () => {
      breakOff();
      await new Promise<void>((done) => listener.close(() => done()));
    },
  };
}

function verifies(
  authorized: string,
  { blob, signature, hashAlgo }: { blob?: Buffer; signature?: Buffer; hashAlgo?: string },
): boolean {
  const parsed = ssh2.utils.parseKey(authorized);
  const [key] = Array.isArray(parsed) ? parsed : [parsed];
  if (key === undefined || key instanceof Error || !blob || !signature) return false;
  return key.verify(blob, signature, hashAlgo) === true;
}

/**
 * A TCP proxy on loopback that breaks what goes through it: what a network does between Sluice and its servers. It knows whose connection it is where
 * PostgreSQL is spoken in the clear (`startup`), so that a fault may meet the walsender alone. Nothing here is random: who wants that draws for itself.
 *
 * A stalled connection is still acknowledged by the kernel, so that neither keepalives nor TCP_USER_TIMEOUT see it: only a time limit of whoever waits does.
 */
import { createServer, type Server, Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';

/** `up`: from the client to the server. `down`: from the server to the client. */
export type Direction = 'up' | 'down';

/**
 * - cut: both ends are closed as if the other had (FIN)
 * - reset: both ends are reset (RST)
 * - stall: nothing goes on, in this direction or both, and nobody is told
 * - lose_client: the client is reset; the server is not told, and thinks it is there
 * - lose_server: the server is reset; the client is not told
 */
export type NetworkFault = 'cut' | 'reset' | 'stall' | 'lose_client' | 'lose_server';

export interface ProxiedConnection {
  /** From 1, in order of arrival. */
  readonly number: number;
  /** Parameters of PostgreSQL's StartupMessage (application_name, replication, database…); empty: not known (yet). */
  readonly startup: Readonly<Record<string, string>>;
  /** Bytes forwarded. */
  readonly bytes: Readonly<Record<Direction, number>>;
  fault(fault: NetworkFault, direction?: Direction): void;
}

export type Which = (connection: ProxiedConnection) => boolean;

export interface TcpProxy extends AsyncDisposable {
  readonly host: '127.0.0.1';
  readonly port: number;
  /** Those that are open on the client's side or the server's. */
  readonly connections: readonly ProxiedConnection[];
  /** Connections accepted so far, and faults that have happened to one. */
  readonly accepted: number;
  readonly faults: number;
  /** Of the open connections; how many it met. */
  cut(which?: Which): number;
  reset(which?: Which): number;
  /** Open and new connections forward nothing, until `heal`. New ones are accepted. */
  stall(which?: Which, direction?: Direction): void;
  /** Bytes per second of every connection, open and new, each direction (or one), until `heal`. */
  slow(bytes_per_second: number, direction?: Direction): void;
  /** New connections are refused until `heal`; open ones stay. */
  refuse(): Promise<void>;
  /**
   * Breaks a connection when `bytes` more have gone through it in this direction, `times` connections in all (default 1): exactly so many bytes of it arrive.
   * Open connections and those to come.
   */
  after(bytes: number, direction: Direction, fault: NetworkFault, options?: { which?: Which; times?: number }): void;
  /** Ends stalling, slowing, refusing and what `after` waits for. Connections of which one end is lost are closed. */
  heal(): Promise<void>;
  /** Another server from now on, for new connections. */
  forwardTo(server: { readonly host: string; readonly port: number }): void;
}

const SLICES_PER_SECOND = 20;
const STARTUP_BYTES_MAX = 10_000;
const PROTOCOL_3 = 3;

interface Trap {
  readonly bytes: number;
  readonly direction: Direction;
  readonly fault: NetworkFault;
  readonly which: Which;
  left: number;
}

interface Lane {
  bytes: number;
  stalled: boolean;
  /** Resolves a wait for the lane to go on. */
  wake: (() => void) | null;
  readonly traps: Map<Trap, number>;
}

interface Rules {
  readonly stalls: { which: Which; direction: Direction | undefined }[];
  readonly rates: Record<Direction, number>;
  readonly traps: Set<Trap>;
  faults: number;
}

/** Listens on a free port, and forwards to `server` until a fault is asked for. */
export async function startTcpProxy(server: { readonly host: string; readonly port: number }): Promise<TcpProxy> {
  let upstream = server;
  const open = new Set<Connection>();
  const rules: Rules = { stalls: [], rates: { up: Infinity, down: Infinity }, traps: new Set(), faults: 0 };
  let accepted = 0;
  const listener = createServer({ pauseOnConnect: true, allowHalfOpen: true, noDelay: true }, (client) => {
    const connection = new Connection(++accepted, client, upstream, rules);
    open.add(connection);
    void connection.done.then(() => open.delete(connection));
  });
  const port = await listen(listener, 0);
  const matching = (which: Which): Connection[] => [...open].filter((connection) => which(connection));
  const each = (fault: NetworkFault, which: Which): number => {
    const met = matching(which);
    for (const connection of met) connection.fault(fault);
    return met.length;
  };
  const all: Which = () => true;
  return {
    host: '127.0.0.1',
    port,
    get connections() {
      return [...open];
    },
    get accepted() {
      return accepted;
    },
    get faults() {
      return rules.faults;
    },
    cut: (which = all) => each('cut', which),
    reset: (which = all) => each('reset', which),
    stall: (which = all, direction) => {
      rules.stalls.push({ which, direction });
      for (const connection of matching(which)) connection.fault('stall', direction);
    },
    slow: (bytes_per_second, direction) => {
      if (direction !== 'down') rules.rates.up = bytes_per_second;
      if (direction !== 'up') rules.rates.down = bytes_per_second;
    },
    refuse: async () => {
      if (listener.listening) await closed(listener);
    },
    after: (bytes, direction, fault, { which = all, times = 1 } = {}) => {
      rules.traps.add({ bytes, direction, fault, which, left: times });
      for (const connection of open) connection.arm();
    },
    heal: async () => {
      rules.stalls.length = 0;
      rules.rates.up = Infinity;
      rules.rates.down = Infinity;
      rules.traps.clear();
      for (const connection of open) connection.heal();
      if (!listener.listening) await listen(listener, port);
    },
    forwardTo: (next) => {
      upstream = next;
    },
    [Symbol.asyncDispose]: async () => {
      for (const connection of open) connection.destroy();
      if (listener.listening) await closed(listener);
    },
  };
}

class Connection implements ProxiedConnection {
  readonly number: number;
  startup: Record<string, string> = {};
  /** Both ends are closed. */
  readonly done: Promise<void>;
  readonly #client: Socket;
  readonly #server: Socket;
  readonly #rules: Rules;
  readonly #lanes: Record<Direction, Lane>;
  #is_half = false;

  constructor(number: number, client: Socket, upstream: { host: string; port: number }, rules: Rules) {
    this.number = number;
    this.#client = client;
    this.#server = new Socket({ allowHalfOpen: true });
    this.#rules = rules;
    const lane = (): Lane => ({ bytes: 0, stalled: false, wake: null, traps: new Map() });
    this.#lanes = { up: lane(), down: lane() };
    const ends = [this.#client, this.#server].map(
      (socket) => new Promise<void>((resolve) => socket.once('close', () => resolve())),
    );
    this.done = Promise.all(ends).then(() => undefined);
    // An end that breaks breaks the other, but for one that is kept on purpose: 'close' follows.
    for (const socket of [this.#client, this.#server]) {
      socket.on('error', () => this.#broke());
      socket.once('close', () => this.#wake());
    }
    this.#server.setNoDelay(true);
    this.#server.connect(upstream.port, upstream.host, () => {
      void this.#forward(this.#client, this.#server, 'up');
      void this.#forward(this.#server, this.#client, 'down');
    });
  }

  get bytes(): Record<Direction, number> {
    return { up: this.#lanes.up.bytes, down: this.#lanes.down.bytes };
  }

  fault(fault: NetworkFault, direction?: Direction): void {
    this.#rules.faults += 1;
    if (fault === 'stall') {
      if (direction !== 'down') this.#lanes.up.stalled = true;
      if (direction !== 'up') this.#lanes.down.stalled = true;
      return;
    }
    if (fault === 'cut') {
      this.#client.destroySoon();
      this.#server.destroySoon();
      // What waits in a stalled lane is not sent any more.
      this.#wake();
      return;
    }
    if (fault !== 'reset') {
      this.#is_half = true;
      this.#lanes.up.stalled = true;
      this.#lanes.down.stalled = true;
    }
    if (fault !== 'lose_server') this.#client.resetAndDestroy();
    if (fault !== 'lose_client') this.#server.resetAndDestroy();
    this.#wake();
  }

  /** Sets the traps that are meant for it and were not yet: counted from here. */
  arm(): void {
    for (const trap of this.#rules.traps) {
      const lane = this.#lanes[trap.direction];
      if (!lane.traps.has(trap) && trap.which(this)) lane.traps.set(trap, lane.bytes + trap.bytes);
    }
  }

  heal(): void {
    if (this.#is_half) return this.destroy();
    for (const lane of Object.values(this.#lanes)) {
      lane.stalled = false;
      lane.traps.clear();
    }
    this.#wake();
  }

  destroy(): void {
    this.#client.destroy();
    this.#server.destroy();
    this.#wake();
  }

  #broke(): void {
    if (!this.#is_half) this.destroy();
  }

  #wake(): void {
    for (const lane of Object.values(this.#lanes)) {
      lane.wake?.();
      lane.wake = null;
    }
  }

  async #forward(from: Socket, to: Socket, direction: Direction): Promise<void> {
    const lane = this.#lanes[direction];
    try {
      for await (const chunk of from as AsyncIterable<Buffer>) {
        if (direction === 'up' && lane.bytes === 0) this.startup = startupOf(chunk);
        if (lane.bytes === 0) this.#begun(lane, direction);
        if (!(await this.#send(chunk, to, lane, direction))) return;
      }
      if (!to.destroyed && !this.#is_half) to.end();
    } catch {
      this.#broke(); // The end that it was read from is gone: what it was is seen at the other end.
    }
  }

  /** Who it is has just become known: rules of all connections are for it too. */
  #begun(lane: Lane, direction: Direction): void {
    this.arm();
    for (const stall of this.#rules.stalls) {
      if ((stall.direction ?? direction) === direction && stall.which(this)) lane.stalled = true;
    }
  }

  /** False: there is nobody to send to any more. */
  async #send(chunk: Buffer, to: Socket, lane: Lane, direction: Direction): Promise<boolean> {
    let sent = 0;
    while (sent < chunk.length) {
      while (lane.stalled && !to.destroyed) await new Promise<void>((resolve) => (lane.wake = resolve));
      if (to.destroyed) return false;
      const rate = this.#rules.rates[direction];
      const [trap, at] = next(lane);
      const slice = Math.min(chunk.length - sent, Math.max(1, Math.ceil(rate / SLICES_PER_SECOND)), at - lane.bytes);
      if (slice > 0) {
        const has_room = to.write(chunk.subarray(sent, sent + slice));
        sent += slice;
        lane.bytes += slice;
        if (rate !== Infinity) await sleep(1_000 * (slice / rate));
        if (!has_room && !to.destroyed) await roomIn(to);
      }
      if (trap && lane.bytes >= at) {
        lane.traps.delete(trap);
        if (!this.#rules.traps.has(trap) || trap.left === 0) continue;
        trap.left -= 1;
        // What has been forwarded arrives, and nothing after it.
        this.fault(trap.fault);
      }
    }
    return true;
  }
}

function next(lane: Lane): [Trap | null, number] {
  let found: [Trap | null, number] = [null, Infinity];
  for (const [trap, at] of lane.traps) if (at < found[1]) found = [trap, at];
  return found;
}

async function roomIn(to: Socket): Promise<void> {
  await new Promise<void>((resolve) => {
    const done = (): void => {
      to.off('drain', done).off('close', done);
      resolve();
    };
    to.on('drain', done).on('close', done);
  });
}

/** PostgreSQL manual, "Message Formats", StartupMessage: Int32 length, Int32 protocol, pairs of null-terminated strings. */
function startupOf(chunk: Buffer): Record<string, string> {
  if (chunk.length < 9 || chunk.readUInt16BE(4) !== PROTOCOL_3 || chunk.readUInt32BE(0) > STARTUP_BYTES_MAX) return {};
  const words = chunk.subarray(8, chunk.readUInt32BE(0)).toString('utf8').split('\0');
  const pairs: [string, string][] = [];
  for (let at = 0; at + 1 < words.length && words[at] !== ''; at += 2) {
    pairs.push([words[at] ?? '', words[at + 1] ?? '']);
  }
  return Object.fromEntries(pairs);
}

async function listen(listener: Server, port: number): Promise<number> {
  await new Promise<void>((resolve, reject) => {
    listener.once('error', reject);
    listener.listen({ host: '127.0.0.1', port }, () => {
      listener.off('error', reject);
      resolve();
    });
  });
  const address = listener.address();
  if (address === null || typeof address === 'string') throw new TypeError('no port');
  return address.port;
}

/** No longer listens; does not wait for connections that are open. */
async function closed(listener: Server): Promise<void> {
  listener.close();
  await new Promise((resolve) => setImmediate(resolve));
}

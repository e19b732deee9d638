/**
 * Many processes of one pipeline at once, over ports in memory, and everything that can go wrong with them: who has the next turn is drawn at every call, any call
 * may kill its process or lose its answer (FATES), clocks jump past leases, and the queues lose, double, delay, reorder and bury their messages.
 *
 * All that is drawn comes from one seed: between two turns the world is waited for until it is still, so that the same seed makes the same history.
 */
import { setImmediate as still } from 'node:timers/promises';
import { isDeepStrictEqual } from 'node:util';
import { cancelEpoch } from '../../lib/epoch/cancel.ts';
import { repairOf, requestEpoch } from '../../lib/epoch/request.ts';
import { SluiceError } from '../../lib/errors.ts';
import type { Lsn } from '../../lib/lsn.ts';
import { requestResets } from '../../lib/operate.ts';
import type { ExtractBell, LoadBell } from '../../lib/ports.ts';
import { LEASE_MS, type MemoryPipeline, idOf as streamOf, WINDOW_MS } from './memory-pipeline.ts';
import { Crash, FATES, type Fate } from './memory-ports.ts';
import type { MemoryDatabase, Write } from './memory-source.ts';
import { seededBelow } from './seeded.ts';
import type { TargetRows } from './shares.ts';

/** At once; the queue of one stream's messages lets go of one that takes too long, so that it may be answered twice at once. */
const WINDOWS_MAX = 2;
const HANDLERS_MAX = 4;
/** Transactions of the source that have written and not ended. */
const OPEN_MAX = 2;
/** After so many failures a message is put aside (the stack's maxReceiveCount is larger: patience makes no difference here). */
const RECEIVES_MAX = 3;
/** Turns that a history may take to come to its end when nothing more is begun. */
const TURNS_MAX = 200_000;
/** Of a thousand. */
const PER_MILLE = 1_000;
/** Only the SDK tries again by itself. */
const TRIED_AGAIN = /^(?:ledger|stage|doorbell)\./;
const BACKFILL = { kind: 'backfill', where: null, ranges: null } as const;
const JUMPS_MS = [1_000, 60_000, LEASE_MS + 1, -30_000] as const;

export interface ChaosOptions {
  readonly seed: number;
  /** Things that are begun: windows, messages answered, transactions, jumps of the clock, requests. */
  readonly steps: number;
  /** Calls of a thousand that do not go well. */
  readonly faults_per_mille: number;
  readonly tables: readonly string[];
}

/** What has happened, for whoever wants to see that it did. */
export interface Happened {
  readonly fates: Map<string, number>;
  readonly lost: { bells: number; doubled: number; buried: number };
  windows: number;
  windows_at_once: number;
  writes: number;
}

function meet(a: Write, b: Write): boolean {
  if (a.table !== b.table) return false;
  return idOf(a) === null || idOf(b) === null || idOf(a) === idOf(b);
}

/** Null: all of the table's rows. */
function idOf(write: Write): string | null {
  if ('truncate' in write) return null;
  return ('put' in write ? write.put : write.remove).id ?? null;
}

interface Message<B> {
  readonly bell: B;
  receives: number;
}

export class Chaos {
  readonly happened: Happened = {
    fates: new Map(),
    lost: { bells: 0, doubled: 0, buried: 0 },
    windows: 0,
    windows_at_once: 0,
    writes: 0,
  };
  readonly #pipeline: MemoryPipeline;
  readonly #options: ChaosOptions;
  readonly #below: (below: number) => number;
  #waiting: (() => void)[] = [];
  #windows = 0;
  #handlers = 0;
  #open: { readonly transaction: ReturnType<MemoryDatabase['begin']>; readonly writes: readonly Write[] }[] = [];
  #load: Message<LoadBell>[] = [];
  #extract: Message<ExtractBell>[] = [];
  /** What no contract allows: the theorem is wrong. */
  #broken: unknown = null;
  /** Rows of each table after each commit. */
  #history: { readonly lsn: Lsn; readonly tables: ReadonlyMap<string, TargetRows> }[] = [];
  /** Rows of the target that have been looked at. */
  #looked = new Map<string, unknown>();
  /**
   * Tables that somebody took out of the publication, each with the newest cut when it was back (null: it is not). A window that runs cannot see that, and a later one
   * mends it by a new copy, which holds the stream first. Until one that was captured after that, nothing is promised of the stream.
   */
  #outOfSight = new Map<string, number | null>();

  constructor(pipeline: MemoryPipeline, options: ChaosOptions) {
    this.#pipeline = pipeline;
    this.#options = options;
    this.#below = seededBelow(options.seed);
  }

  /** One history, to the end of all processes in it. Throws what breaks a contract. */
  async run(): Promise<Happened> {
    const { world } = this.#pipeline;
    world.turn = () => new Promise<void>((resolve) => this.#waiting.push(resolve));
    world.fateOf = (call) => this.#fateOf(call);
    try {
      for (let step = 0; step < this.#options.steps; step++) {
        this.#begin();
        for (let turns = this.#below(40); turns > 0; turns--) await this.#giveTurn();
      }
      world.fateOf = null;
      for (const { transaction } of this.#open) transaction.commit();
      for (let turns = 0; this.#windows + this.#handlers > 0; turns++) {
        if (turns > TURNS_MAX) throw new Error('the processes do not end');
        await this.#giveTurn();
      }
    } finally {
      world.fateOf = null;
      world.turn = () => Promise.resolve();
      for (const resolve of this.#waiting.splice(0)) resolve();
    }
    if (this.#broken !== null) throw this.#broken;
    return this.happened;
  }

  async #giveTurn(): Promise<void> {
    await still();
    this.#collectBells();
    this.#look();
    if (this.#broken !== null) throw this.#broken;
    const [resolve] = this.#waiting.splice(this.#below(this.#waiting.length), 1);
    resolve?.();
  }

  /** A stream that is live shows its table as it was at the position that is applied, whatever goes on. */
  #look(): void {
    const { database, durable, warehouse } = this.#pipeline;
    const { chain } = durable;
    if (this.#history.at(-1)?.lsn !== database.lsn) {
      const tables = new Map([...database.tables].map(([name, table]) => [name, table.snapshot()]));
      this.#history.push({ lsn: database.lsn, tables });
    }
    for (const [name, back_at] of this.#outOfSight) {
      if (back_at === null && database.publication?.has(name)) this.#outOfSight.set(name, chain.at(-1)?.number ?? 0);
    }
    for (const name of this.#options.tables) {
      const stream = warehouse.streams.get(streamOf(name));
      if (stream === undefined || this.#looked.get(name) === stream) continue;
      this.#looked.set(name, stream);
      const { hold, catching_up_to, applied_lsn } = stream.row;
      if (this.#isSeenAgain(name, hold)) this.#outOfSight.delete(name);
      if (hold !== null || catching_up_to !== null || this.#outOfSight.has(name)) continue;
      const then = this.#history.findLast(({ lsn }) => lsn <= applied_lsn)?.tables.get(name) ?? new Map();
      if (isDeepStrictEqual(stream.rows, then)) continue;
      this.#broken ??= new Error(`${name} is live at ${applied_lsn} and is not what the source was then`);
    }
  }

  #isSeenAgain(name: string, hold: number | null): boolean {
    const back_at = this.#outOfSight.get(name);
    if (back_at == null || hold === null) return false;
    const epochs = [...this.#pipeline.durable.epochs.values()];
    const epoch = epochs.find(({ stream, number }) => stream === streamOf(name) && number === hold);
    return epoch !== undefined && epoch.held_cut > back_at;
  }

  #fateOf(call: string): Fate {
    if (this.#below(PER_MILLE) >= this.#options.faults_per_mille) return 'goes well';
    const drawn = FATES[this.#below(FATES.length)] as (typeof FATES)[number];
    const fate = drawn === 'is done twice' && !TRIED_AGAIN.test(call) ? 'dies after' : drawn;
    const key = `${call}: ${fate}`;
    this.happened.fates.set(key, (this.happened.fates.get(key) ?? 0) + 1);
    return fate;
  }

  #begin(): void {
    const drawn = this.#below(20);
    if (drawn < 3) this.#beginWindow();
    else if (drawn < 10) this.#beginHandler();
    else if (drawn < 17) this.#write();
    else if (drawn < 19) this.#pipeline.world.clock.now_ms += JUMPS_MS[this.#below(JUMPS_MS.length)] ?? 0;
    else this.#ask();
  }

  #beginWindow(): void {
    if (this.#windows >= WINDOWS_MAX) return;
    this.happened.windows++;
    if (++this.#windows > 1) {
      this.happened.windows_at_once++;
      // The lease runs out under its holder, who does not know it.
      this.#pipeline.world.clock.now_ms += LEASE_MS + 1;
    }
    this.#pipeline.world.fork();
    const event = { ring_all: this.#below(2) === 0, ...this.#shortened() };
    const window = async (): Promise<void> => {
      const { error } = await this.#pipeline.window(event);
      if (error?.code === 'UNEXPECTED' && !error.message.includes(Crash.name)) throw new Error(error.message);
    };
    void this.#watch(window()).finally(() => this.#windows--);
  }

  /** A third of the windows have their deadline pass somewhere on the way: inside a transaction, often. */
  #shortened(): { readonly asked?: () => boolean } {
    if (this.#below(3) > 0) return {};
    const at = 1 + this.#below(12);
    let looks = 0;
    const asked = (): boolean => {
      if (++looks === at) this.#pipeline.world.clock.now_ms += WINDOW_MS;
      return false;
    };
    return { asked };
  }

  #beginHandler(): void {
    if (this.#handlers >= HANDLERS_MAX) return;
    const isLoad = this.#extract.length === 0 || (this.#load.length > 0 && this.#below(2) === 0);
    if (isLoad) this.#answer(this.#load, (bell) => this.#pipeline.load(bell));
    else this.#answer(this.#extract, (bell) => this.#pipeline.extract(bell));
  }

  /** Any of the messages, whatever its place; one in ten stays in the queue for another to answer at the same time. */
  #answer<B>(queue: Message<B>[], handle: (bell: B) => Promise<unknown>): void {
    if (queue.length === 0) return;
    const at = this.#below(queue.length);
    const message = queue[at] as Message<B>;
    const isDoubled = this.#below(10) === 0;
    if (isDoubled) this.happened.lost.doubled++;
    else queue.splice(at, 1);
    this.#handlers++;
    this.#pipeline.world.fork();
    const answer = async (): Promise<void> => {
      const ended = await this.#watch(handle(message.bell));
      this.#handlers--;
      if (ended || isDoubled) return;
      if (++message.receives < RECEIVES_MAX) queue.push(message);
      else this.happened.lost.buried++;
    };
    void answer();
  }

  /** Whether it ended well. A process may die, or fail with an error of the catalogue; anything else breaks a contract. */
  async #watch(work: Promise<unknown>): Promise<boolean> {
    try {
      await work;
      return true;
    } catch (error) {
      const isOurs = error instanceof SluiceError && error.code !== 'UNEXPECTED';
      if (!(error instanceof Crash) && !isOurs) this.#broken ??= error;
      return false;
    }
  }

  /** What was rung for goes into the queues; one in twelve is lost on the way. */
  #collectBells(): void {
    const { loadBells, extractBells } = this.#pipeline.durable;
    const taken = <B>(bells: B[], queue: Message<B>[]): void => {
      for (const bell of bells.splice(0)) {
        if (this.#below(12) === 0) this.happened.lost.bells++;
        else queue.push({ bell, receives: 0 });
      }
    };
    taken(loadBells, this.#load);
    taken(extractBells, this.#extract);
  }

  #write(): void {
    const { database } = this.#pipeline;
    if (this.#open.length > 0 && this.#below(2) === 0) {
      const [ended] = this.#open.splice(this.#below(this.#open.length), 1);
      ended?.transaction.commit();
      this.#look();
      return;
    }
    // As rows and tables are locked there: who would have to wait for an open transaction does not come.
    const isFree = (write: Write): boolean =>
      !this.#open.some(({ writes }) => writes.some((held) => meet(held, write)));
    const writes = this.#writes().filter(isFree);
    const transaction = database.begin();
    for (const write of writes) transaction.write(write);
    this.happened.writes++;
    if (this.#open.length < OPEN_MAX && this.#below(4) === 0) this.#open.push({ transaction, writes });
    else transaction.commit();
    this.#look();
  }

  #writes(): Write[] {
    const { tables } = this.#options;
    const writes: Write[] = [];
    for (let i = this.#below(4); i >= 0; i--) {
      const table = tables[this.#below(tables.length)] as string;
      const id = String(this.#below(12));
      const drawn = this.#below(30);
      if (drawn === 0) writes.push({ table, truncate: true });
      else if (drawn < 9) writes.push({ table, remove: { id, v: null } });
      else writes.push({ table, put: { id, v: `${this.happened.writes}.${i}` } });
    }
    return writes;
  }

  /** Somebody takes a table out of the publication, or wants one copied anew, or some of its rows, or none of them after all. */
  #ask(): void {
    const { database, durable, world } = this.#pipeline;
    const table = this.#options.tables[this.#below(this.#options.tables.length)] as string;
    if (this.#below(2) === 0) {
      if (database.publication?.delete(table)) this.#outOfSight.set(table, null);
      return;
    }
    if (durable.bookmarks.size === 0) return;
    world.fork();
    const ports = this.#pipeline.drainPorts();
    const drawn = this.#below(4);
    const id = String(this.#below(12));
    if (drawn === 0) void this.#watch(requestResets(ports, [table]));
    else if (drawn === 1) void this.#watch(requestEpoch(ports, streamOf(table), BACKFILL));
    else if (drawn === 2)
      for (const wanted of repairOf(['id'], [[id]])) void this.#watch(requestEpoch(ports, streamOf(table), wanted));
    else {
      const epochs = [...durable.epochs.values()].filter(({ stream }) => stream === streamOf(table));
      const newest = epochs.at(-1);
      if (newest) void this.#watch(cancelEpoch(ports, newest, 'somebody wanted it'));
    }
  }
}

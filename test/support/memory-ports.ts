/**
 * The ports in memory, around one world that can end in the middle: every call that changes something is counted and kept, and at a chosen one the
 * process is dead, before the change or just after it (done, and the answer lost). From then on no call of the old process does anything.
 *
 * Where the contract of a port says what must be there first, the port asserts it: no position is confirmed that is not recorded (I1), no cut
 * recorded whose object is not complete.
 */
import { Readable } from 'node:stream';
import { isDeepStrictEqual } from 'node:util';
import { awsFault } from '../../lib/aws-faults.ts';
import { SluiceError } from '../../lib/errors.ts';
import { LSN_ZERO } from '../../lib/lsn.ts';
import type {
  Bookmark,
  Chunk,
  Cut,
  Doorbell,
  Epoch,
  EpochRequest,
  ExtractBell,
  Lease,
  Ledger,
  LoadBell,
  Reject,
  RunReport,
  Stage,
  StageWriter,
  Unfinished,
} from '../../lib/ports.ts';
import { HandClock, keptLog } from './ledger-nouns.ts';

/** What a dead process meets at every port. */
export class Crash extends Error {
  override readonly name = 'Crash';
}

export interface Event {
  /** `port.method`. */
  readonly call: string;
  readonly about: unknown;
}

/**
 * What becomes of a call, beside going well: the process dies before it or after it; it comes back with an error, not done or done (the answer was lost); or it is
 * done twice, because whoever carries it (the SDK) had no answer and tried again.
 */
export const FATES = ['dies before', 'dies after', 'fails before', 'fails after', 'is done twice'] as const;
export type Fate = (typeof FATES)[number] | 'goes well';

/** What an adapter would make of a connection that breaks. */
function transientAt(call: string): SluiceError {
  const [port] = call.split('.');
  const facts = { action: call, reason: 'it timed out', sqlstate: '08006', stream: '', table: '', server: 'there' };
  if (port === 'target') return new SluiceError('TARGET_TRANSIENT', facts);
  if (port === 'source') return new SluiceError('SOURCE_TRANSIENT', facts);
  if (port === 'reader') return new SluiceError('SLOT_STREAM_FAILED', facts);
  return awsFault(port === 'stage' ? 'S3' : port === 'doorbell' ? 'SQS' : 'DynamoDB', call, new TimeoutError());
}

class TimeoutError extends Error {
  override readonly name = 'TimeoutError';
}

export class World {
  readonly clock = new HandClock();
  readonly log = keptLog();
  readonly events: Event[] = [];
  /** The process dies at the call of this number, counted from 1. */
  crashAt = 0;
  crashWhen: 'before' | 'after' = 'before';
  /** What becomes of a call that changes something, where more than one death is wanted. */
  fateOf: ((call: string) => Fate) | null = null;
  /** Awaited by every call: where others have their turn. */
  turn: () => Promise<void> = () => Promise.resolve();
  /** Thrown at calls of this name, as long as it is there. */
  readonly faults = new Map<string, Error>();
  #changes = 0;
  #life = 1;
  readonly #ended = new Set<number>();
  #ids = 0;

  get changes(): number {
    return this.#changes;
  }

  newId = (): string => `id${++this.#ids}`;

  /** Ports of one process ask with the life that they were made in: a later one does not make them alive again. */
  get life(): number {
    return this.#life;
  }

  get isDead(): boolean {
    return this.hasEnded(this.#life);
  }

  hasEnded(life: number): boolean {
    return this.#ended.has(life);
  }

  /** A new process, in the place of the last. */
  revive(): void {
    this.#ended.add(this.#life);
    this.fork();
    this.crashAt = 0;
  }

  /** A new process beside those that there are; ports that are made from now on are its own. */
  fork(): number {
    return ++this.#life;
  }

  look(life: number): void {
    if (this.hasEnded(life)) throw new Crash('the process is dead');
  }

  /** A call that changes something. */
  change<T>(life: number, call: string, about: unknown, effect: () => T): T {
    this.look(life);
    const fault = this.faults.get(call);
    if (fault) throw fault;
    this.#changes++;
    const fate = this.#changes === this.crashAt ? (`dies ${this.crashWhen}` as const) : this.fateOf?.(call);
    if (fate === 'dies before') this.#die(life, call);
    if (fate === 'fails before') throw transientAt(call);
    let result = effect();
    this.events.push({ call, about });
    if (fate === 'is done twice') result = effect();
    if (fate === 'dies after') this.#die(life, call);
    if (fate === 'fails after') throw transientAt(call);
    return result;
  }

  #die(life: number, call: string): never {
    this.#ended.add(life);
    throw new Crash(`at ${call}`);
  }

  calls(call: string): unknown[] {
    return this.events.filter((event) => event.call === call).map(({ about }) => about);
  }
}

/** What the stage, the ledger and the queues hold: it outlives every process. */
export class Durable {
  readonly objects = new Map<string, Buffer>();
  readonly chain: Cut[] = [];
  readonly bookmarks = new Map<string, Bookmark>();
  readonly epochs = new Map<string, Epoch>();
  readonly requests = new Map<string, EpochRequest>();
  readonly rejects = new Map<string, Reject>();
  readonly chunks = new Map<string, Chunk>();
  readonly reports: RunReport[] = [];
  readonly loadBells: LoadBell[] = [];
  readonly extractBells: ExtractBell[] = [];
  lease: Lease | null = null;
  unfinished: Unfinished | null = null;
  /** Called just before a cut is appended: where another window may come first. */
  beforeAppend: (cut: Cut) => void = () => {};
}

function isOver({ state }: Epoch): boolean {
  return state === 'done' || state === 'cancelled';
}

export function memoryStage(world: World, durable: Durable): Stage {
  const { life } = world;
  const { objects } = durable;
  return {
    begin: (object): StageWriter => {
      const parts: Buffer[] = [];
      let bytes = 0;
      let isOpen = true;
      return {
        object,
        get bytes() {
          return bytes;
        },
        append: async (buffer) => {
          await world.turn();
          world.look(life);
          if (!isOpen) throw new RangeError(`${object} is closed`);
          // As it is by now: whoever changes it meanwhile is found out.
          parts.push(Buffer.from(buffer));
          bytes += buffer.length;
        },
        complete: async () => {
          await world.turn();
          if (objects.has(object)) throw new RangeError(`${object} is written twice`);
          world.change(life, 'stage.complete', object, () => objects.set(object, Buffer.concat(parts)));
          isOpen = false;
        },
        abandon: async () => {
          await world.turn();
          if (isOpen && !world.hasEnded(life)) world.events.push({ call: 'stage.abandon', about: object });
          isOpen = false;
        },
      };
    },
    read: async (object, [offset, bytes]) => {
      await world.turn();
      world.look(life);
      const whole = objects.get(object);
      if (!whole) throw new SluiceError('STAGE_MISSING', { object });
      return Readable.from([whole.subarray(offset, offset + bytes)]);
    },
  };
}

export function memoryDoorbell(world: World, { loadBells, extractBells }: Durable): Doorbell {
  const { life } = world;
  return {
    ringLoad: async (bells) => {
      await world.turn();
      world.change(life, 'doorbell.ringLoad', bells, () => loadBells.push(...bells));
    },
    ringExtract: async (bells) => {
      await world.turn();
      world.change(life, 'doorbell.ringExtract', bells, () => extractBells.push(...bells));
    },
  };
}

const epochKey = (stream: string, number: number): string => `${stream}/${number}`;
const chunkKey = ({ stream, epoch, plan, number }: Pick<Chunk, 'stream' | 'epoch' | 'plan' | 'number'>): string =>
  `${stream}/${epoch}/${plan}/${number}`;

export function memoryLedger(world: World, durable: Durable): Ledger {
  const { life, clock } = world;
  const { chain, bookmarks, epochs, requests, rejects, chunks, reports } = durable;
  const look = async <T>(read: () => T): Promise<T> => {
    await world.turn();
    world.look(life);
    return read();
  };
  const change = async <T>(call: string, about: unknown, effect: () => T): Promise<T> => {
    await world.turn();
    return world.change(life, `ledger.${call}`, about, effect);
  };
  const isHolder = (lease: Lease): boolean =>
    durable.lease?.token === lease.token && durable.lease.owner === lease.owner;

  return {
    takeLease: (name, owner, duration_ms) =>
      change('takeLease', owner, () => {
        const held = durable.lease;
        if (held && held.until_ms > clock.now() && held.owner !== owner)
          return { held_by: held.owner, until_ms: held.until_ms };
        durable.lease = { name, owner, token: (held?.token ?? 0) + 1, until_ms: clock.now() + duration_ms };
        return durable.lease;
      }),
    renewLease: (lease, duration_ms) =>
      change('renewLease', lease.owner, () => {
        if (!isHolder(lease)) return false;
        durable.lease = { ...lease, until_ms: clock.now() + duration_ms };
        return true;
      }),
    releaseLease: (lease) =>
      change('releaseLease', lease.owner, () => {
        if (isHolder(lease)) durable.lease = { ...lease, until_ms: 0 };
      }),

    head: () => look(() => chain.at(-1) ?? null),
    append: async (cut) => {
      await world.turn();
      durable.beforeAppend(cut);
      return world.change(life, 'ledger.append', cut, () => {
        const head = chain.at(-1);
        // Tried again by whoever had no answer.
        if (chain.some((there) => there.number === cut.number && isDeepStrictEqual(there, cut))) return true;
        if (cut.number !== (head?.number ?? -1) + 1) return false;
        if (cut.begin_lsn !== (head?.end_lsn ?? LSN_ZERO)) throw new RangeError(`cut ${cut.number} leaves a hole`);
        const parts = [
          ...(cut.earlier ?? []).map(({ object }) => object),
          ...(cut.object === null ? [] : [cut.object]),
        ];
        if (!parts.every((object) => durable.objects.has(object)))
          throw new RangeError(`cut ${cut.number} before its object`);
        chain.push(cut);
        return true;
      });
    },
    cutsAfter: (number, limit) => look(() => chain.filter((cut) => cut.number > number).slice(0, limit)),
    prune: (number, before_ms) =>
      change('prune', number, () => {
        let pruned = 0;
        while (
          chain.length > 1 &&
          (chain[0]?.number ?? Infinity) <= number &&
          (chain[0]?.recorded_at_ms ?? 0) < before_ms
        ) {
          chain.shift();
          pruned++;
        }
        return pruned;
      }),

    unfinished: () => look(() => durable.unfinished),
    saveUnfinished: (unfinished, instead_of) =>
      change('saveUnfinished', unfinished, () => {
        if (!unfinished.objects.every(({ object }) => durable.objects.has(object)))
          throw new RangeError('an unfinished transaction before its objects');
        if (isDeepStrictEqual(durable.unfinished, unfinished)) return true;
        if ((durable.unfinished?.id ?? null) !== instead_of) return false;
        durable.unfinished = unfinished;
        return true;
      }),
    removeUnfinished: () => change('removeUnfinished', null, () => void (durable.unfinished = null)),

    bookmarks: () => look(() => [...bookmarks.values()]),
    bookmark: (stream) => look(() => bookmarks.get(stream) ?? null),
    addBookmark: (bookmark) =>
      change('addBookmark', bookmark.stream, () => {
        if (bookmarks.has(bookmark.stream)) return false;
        bookmarks.set(bookmark.stream, bookmark);
        return true;
      }),
    updateBookmark: (stream, fields, expected = {}) =>
      change('updateBookmark', { stream, ...fields }, () => {
        const known = bookmarks.get(stream);
        if (!known) throw new SluiceError('LEDGER_DAMAGED', { item: stream, reason: 'it is not there' });
        const { captured_cut = known.captured_cut, epoch = known.epoch } = expected;
        if (known.captured_cut !== captured_cut || known.epoch !== epoch) return false;
        bookmarks.set(stream, { ...known, ...fields });
        return true;
      }),

    openEpoch: (epoch) =>
      change('openEpoch', epoch, () => {
        const bookmark = bookmarks.get(epoch.stream);
        if (bookmark?.epoch !== epoch.number - 1) return false;
        epochs.set(epochKey(epoch.stream, epoch.number), epoch);
        bookmarks.set(epoch.stream, { ...bookmark, epoch: epoch.number });
        return true;
      }),
    epoch: (stream, number) => look(() => epochs.get(epochKey(stream, number)) ?? null),
    updateEpoch: (epoch, from) =>
      change('updateEpoch', epoch, () => {
        const key = epochKey(epoch.stream, epoch.number);
        const known = epochs.get(key);
        if (known?.state !== from) return false;
        if (isOver(known) && !isOver(epoch)) throw new RangeError('an epoch that is over goes on');
        if (known.plan !== null && known.plan !== epoch.plan) throw new RangeError('an epoch that is planned twice');
        epochs.set(key, epoch);
        return true;
      }),
    addEpochRequest: (request) =>
      change('addEpochRequest', request, () => {
        requests.set(`${request.id}#${request.stream}`, request);
      }),
    epochRequests: (stream) =>
      look(() =>
        [...requests.values()]
          .filter((request) => stream === null || request.stream === stream)
          .sort((a, b) => (a.id < b.id ? -1 : 1)),
      ),
    removeEpochRequest: ({ stream, id }) =>
      change('removeEpochRequest', id, () => {
        requests.delete(`${id}#${stream}`);
      }),
    addReject: (reject) =>
      change('addReject', reject, () => {
        if (!durable.objects.has(reject.object)) throw new RangeError('rows left out before their object');
        rejects.set(`${reject.stream}#${reject.id}`, reject);
      }),
    rejects: (stream) =>
      look(() =>
        [...rejects]
          .filter(([, reject]) => stream === null || reject.stream === stream)
          .sort(([a], [b]) => (a < b ? -1 : 1))
          .map(([, reject]) => reject),
      ),
    removeRejects: (removed) =>
      change('removeRejects', removed, () => removed.forEach(({ stream, id }) => rejects.delete(`${stream}#${id}`))),
    saveChunks: (saved) =>
      change('saveChunks', saved, () => saved.forEach((chunk) => chunks.set(chunkKey(chunk), chunk))),
    chunks: (stream, epoch, plan) =>
      look(() =>
        [...chunks.values()].filter((chunk) => chunk.stream === stream && chunk.epoch === epoch && chunk.plan === plan),
      ),
    chunk: (stream, epoch, plan, number) => look(() => chunks.get(chunkKey({ stream, epoch, plan, number })) ?? null),
    stageChunk: (chunk) =>
      change('stageChunk', chunk, () => {
        const object = chunk.staged?.object;
        if (object === undefined || (object !== null && !durable.objects.has(object)))
          throw new RangeError('a chunk before its object');
        if (chunks.get(chunkKey(chunk))?.staged) return false;
        chunks.set(chunkKey(chunk), chunk);
        return true;
      }),
    markChunkLoaded: (chunk) =>
      change('markChunkLoaded', chunk.number, () => {
        const known = chunks.get(chunkKey(chunk));
        if (known) chunks.set(chunkKey(chunk), { ...known, loaded: true });
      }),

    saveReport: (report) => change('saveReport', report.stopped_by, () => void reports.push(report)),
    reports: (limit) => look(() => reports.toReversed().slice(0, limit)),
  };
}

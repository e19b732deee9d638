/**
 * However the bytes of a slot come (in which chunks, how many of these at once), and wherever the reader's caller has enough: every message is handed on
 * once, in order, none after the caller has said stop, and none before there is a caller. Of both readers: the walsender's stream, and one call of the peek.
 */
import { Duplex } from 'node:stream';
import * as fc from 'fast-check';
import type { Client, Connection } from 'pg';
import { expect } from 'vitest';
import { lsnOf } from '../../lib/lsn.ts';
import { joined } from '../../lib/piece.ts';
import { PeekCall } from '../../lib/slot/peek-call.ts';
import { openSlotReader } from '../../lib/slot/reader.ts';
import { GIANT_FRAME_BYTES_MIN } from '../../lib/slot/wire.ts';
import { frame, int16, int32, keepalive, xlogData } from '../support/pgoutput.ts';
import { property } from '../support/property.ts';

/** Sizes of the messages; -1: a keepalive (of the walsender's), a warning (of the peek's). */
interface Arrival {
  readonly messages: readonly number[];
  /** Sizes of the chunks, over and over; and how many come at once, likewise. */
  readonly chunks: readonly number[];
  readonly at_once: readonly number[];
  /** After how many messages each pull has enough. */
  readonly sips: readonly number[];
}

const some = (max: number): fc.Arbitrary<number[]> =>
  fc.array(fc.integer({ min: 1, max }), { minLength: 1, maxLength: 6 });
const ARRIVALS: fc.Arbitrary<Arrival> = fc.record({
  messages: fc.array(
    fc.oneof(
      { weight: 30, arbitrary: fc.integer({ min: -1, max: 40 }) },
      { weight: 1, arbitrary: fc.integer({ min: GIANT_FRAME_BYTES_MIN - 40, max: GIANT_FRAME_BYTES_MIN + 5 }) },
    ),
    { minLength: 1, maxLength: 12 },
  ),
  chunks: fc.oneof(some(12), some(80), some(400_000)),
  at_once: some(8),
  sips: some(4),
});

/** So that a chunk ends where a message does, too: as TLS and SSH hand on what the server wrote at once. */
const WHOLE = fc.boolean();

function inChunks(frames: readonly Buffer[], sizes: readonly number[], whole: boolean): Buffer[] {
  if (whole) return [...frames];
  const all = Buffer.concat(frames);
  // A giant by single bytes says nothing more, and takes long.
  const least = Math.ceil(all.length / 2_000);
  const chunks: Buffer[] = [];
  for (let at = 0, i = 0; at < all.length; i++) {
    const bytes = Math.max(least, sizes[i % sizes.length] ?? 1);
    chunks.push(all.subarray(at, at + bytes));
    at += bytes;
  }
  return chunks;
}

/** What a pull has seen, and where it had enough. */
class Taking {
  readonly seen: string[] = [];
  readonly #sips: readonly number[];
  #pulls = 0;
  #left = 0;
  #enough = false;

  constructor(sips: readonly number[]) {
    this.#sips = sips;
  }

  begin(): void {
    this.#left = this.#sips[this.#pulls++ % this.#sips.length] ?? 1;
    this.#enough = false;
  }

  take(text: string): boolean {
    if (this.#enough) throw new Error(`${text} after the caller had enough`);
    this.seen.push(text);
    this.#enough = --this.#left === 0;
    return !this.#enough;
  }

  /** What stops nobody. */
  note(text: string): void {
    if (this.#enough) throw new Error(`${text} after the caller had enough`);
    this.seen.push(text);
  }
}

const told = (size: number, i: number): string => (size < 0 ? `note ${i}` : `${size} bytes of ${i % 251}`);
const payload = (size: number, i: number): Buffer => Buffer.alloc(size, i % 251);
const bytesTold = (bytes: Buffer, i: number): string => told(bytes.length, bytes[0] ?? i);

function socketOf(onWrite: (bytes: Buffer) => void): Duplex {
  return new Duplex({
    read: () => undefined,
    write: (bytes: Buffer, _encoding, done) => {
      onWrite(bytes);
      done();
    },
  });
}

/** Gives the next of what arrives; false: all has come. */
function arriving(chunks: Buffer[], at_once: readonly number[], give: (chunk: Buffer) => void): () => boolean {
  let turns = 0;
  return () => {
    if (chunks.length === 0) return false;
    for (const chunk of chunks.splice(0, at_once[turns++ % at_once.length] ?? 1)) give(chunk);
    return true;
  };
}

const turn = (): Promise<void> => new Promise((resolve) => void setImmediate(resolve));

property("the walsender's stream", fc.tuple(ARRIVALS, WHOLE), async ([{ messages, chunks, at_once, sips }, whole]) => {
  const frames = messages.map((size, i) =>
    size < 0 ? keepalive(BigInt(i), false) : xlogData(payload(size, i), BigInt(i)),
  );
  const said = inChunks([frame('W', Buffer.from([0, 0, 0])), ...frames], chunks, whole);
  const next = arriving(said, at_once, (chunk) => void socket.push(chunk));
  const socket = socketOf((bytes) => {
    if (bytes[0] === 'Q'.charCodeAt(0)) asked = true;
  });
  let asked = false;
  const client = {
    connection: { stream: socket },
    query: () => Promise.resolve({ rows: [{ server_version_num: '160004' }] }),
    removeAllListeners: () => client,
    on: () => client,
    end: () => Promise.resolve(),
  };
  const state = { opening: true };
  const opening = openSlotReader({
    client: client as unknown as Client,
    clock: { now: () => Date.now(), sleep: () => Promise.resolve() },
    slot: 's',
    publication: 'p',
    from: lsnOf(1n),
    wal_sender_timeout_ms: 1000,
  }).finally(() => {
    state.opening = false;
  });
  while (state.opening) {
    if (asked) next();
    await turn();
  }
  const reader = await opening;
  const taking = new Taking(sips);
  for (let idle = 0; idle < 3; ) {
    taking.begin();
    const found = await reader.read(
      {
        change: (bytes, start, end) => taking.take(bytesTold(bytes.subarray(start, end), taking.seen.length)),
        giantChange: (pieces) => taking.take(bytesTold(joined(pieces), taking.seen.length)),
        keepalive: (end_lsn) => taking.note(`note ${end_lsn}`),
      },
      // Longer than the socket is left alone for.
      10,
    );
    if (found === 'nothing') idle = next() ? 0 : idle + 1;
    await turn();
  }
  expect(taking.seen).toEqual(messages.map(told));
  socket.destroy();
});

property('a call of the peek', fc.tuple(ARRIVALS, WHOLE), async ([{ messages, chunks, at_once, sips }, whole]) => {
  const header = Buffer.concat([Buffer.from('PGCOPY\n\xff\r\n\0', 'latin1'), Buffer.alloc(8)]);
  const rows = messages.map((size, i) => (size < 0 ? null : Buffer.concat([int16(1), int32(size), payload(size, i)])));
  let begun = false;
  const framesOf = (message: Buffer): Buffer => {
    const first = !begun;
    begun = true;
    return frame('d', first ? Buffer.concat([header, message]) : message);
  };
  const frames = rows.map((row, i) => (row === null ? frame('N', Buffer.from(`Mnote ${i}\0\0`)) : framesOf(row)));
  const after = Buffer.concat([frame('C', Buffer.from('COPY 2\0')), frame('Z', Buffer.from('I'))]);
  const end = [framesOf(int16(-1)), frame('c', Buffer.alloc(0)), after];
  const said = inChunks([frame('H', Buffer.from([1, 0, 1, 0, 1])), ...frames, ...end], chunks, whole);
  const stream = socketOf(() => undefined);
  const given: Buffer[] = [];
  stream.on('data', (chunk: Buffer) => void given.push(chunk));
  const call = new PeekCall(
    'COPY it',
    () => 1,
    () => undefined,
  );
  call.submit({ stream, query: () => undefined } as unknown as Connection);
  const next = arriving(said, at_once, (chunk) => void stream.push(chunk));
  const taking = new Taking(sips);
  for (let idle = 0; idle < 3; ) {
    if (!call.waits) idle = next() ? 0 : idle + 1;
    await turn();
    taking.begin();
    call.pull({
      message: (bytes, start, stop) => taking.take(bytesTold(bytes.subarray(start, stop), taking.seen.length)),
      giant: (pieces) => taking.take(bytesTold(joined(pieces), taking.seen.length)),
      warning: (text) => taking.note(text),
    });
  }
  expect(taking.seen).toEqual(messages.map(told));
  // And then the connection is pg's again, to the byte.
  expect(Buffer.concat(given)).toEqual(after);
  stream.destroy();
});

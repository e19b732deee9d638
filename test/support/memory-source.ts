/**
 * A source database in memory: tables, a log of transactions, a publication, a slot; and the ports that look at it.
 *
 * As in PostgreSQL a change is judged by the publication as it was when the change was written; a slot gives the transactions that ended after its
 * position, in the order of their commits; and a slot whose reader died stays in use until somebody ends that.
 */
import { Readable } from 'node:stream';
import { SluiceError } from '../../lib/errors.ts';
import { type Lsn, lsnMax, lsnOf } from '../../lib/lsn.ts';
import type {
  ChunkRange,
  Extractor,
  Ground,
  Published,
  SlotReader,
  SlotRow,
  Source,
  SourceTable,
  Writer,
} from '../../lib/ports.ts';
import { displayName, type Shape, type TableDescription, type TableName, tableKey } from '../../lib/shape.ts';
import type { World } from './memory-ports.ts';
import * as pg from './pgoutput.ts';
import { copyLine } from './segments.ts';
import { keyOf, type TargetRows, type Values } from './shares.ts';

const INT8 = 20;
const TEXT = 25;
const FIRST_LSN = 0x1000000n;
/** WAL of one transaction. */
const TRANSACTION_BYTES = 128n;

export type Write = { readonly table: string } & (
  | { readonly put: Values }
  | { readonly remove: Values }
  | { readonly truncate: true }
);

interface LoggedTransaction {
  readonly end_lsn: Lsn;
  readonly at_us: bigint;
  /** What of it was published. */
  readonly messages: readonly { readonly table: MemoryTable; readonly message: Buffer }[];
}

class MemoryTable {
  readonly source: SourceTable;
  readonly rows = new Map<string, Values>();
  readonly shape: Shape;
  /** What identifies its rows in the log is gone. */
  isKeyless = false;

  constructor(name: TableName, oid: number, rows_estimate: number) {
    const columns = [
      { name: 'id', type_oid: INT8, type_modifier: -1, not_null: true, number: 1 },
      { name: 'v', type_oid: TEXT, type_modifier: -1, not_null: false, number: 2 },
    ];
    this.shape = {
      columns: columns.map(({ name: column, type_oid, type_modifier }) => ({ name: column, type_oid, type_modifier })),
      key: [0],
    };
    this.source = {
      ...name,
      oid,
      kind: 'r',
      persistence: 'p',
      replica_identity: 'd',
      columns,
      key: ['id'],
      may_select: true,
      row_security: false,
      rows_estimate,
      pages: 1,
      toasted: true,
      filenode: String(oid),
    };
  }

  get description(): Buffer {
    const { schema, table, oid, columns } = this.source;
    const described = columns.map(({ name, type_oid }) => ({ name, type_oid, key: name === 'id' && !this.isKeyless }));
    return pg.relation({ id: oid, schema, table, columns: described });
  }

  /** Changes the rows; returns what the log has of it. */
  write(write: Write): Buffer | null {
    const { oid } = this.source;
    if ('truncate' in write) {
      this.rows.clear();
      return pg.truncate([oid]);
    }
    const values = 'put' in write ? write.put : write.remove;
    const key = keyOf(this.shape, values);
    const row = [values.id ?? null, values.v ?? null];
    const isThere = this.rows.has(key);
    if ('remove' in write) {
      this.rows.delete(key);
      return isThere ? pg.del(oid, { key: [row[0] ?? null, null] }) : null;
    }
    this.rows.set(key, values);
    return isThere ? pg.update(oid, row) : pg.insert(oid, row);
  }

  snapshot(): TargetRows {
    return new Map([...this.rows].map(([key, values]) => [key, { values, deleted_at: null }]));
  }
}

export class MemoryDatabase {
  readonly tables = new Map<string, MemoryTable>();
  publication: Set<string> | null = null;
  /** Counts what a person alters in the publication's settings. */
  revision = 1;
  slot: (Pick<SlotRow, 'active_pid' | 'active_application' | 'confirmed_lsn'> & Partial<SlotRow>) | null = null;
  system_identifier = 'cluster';
  timeline = 1;
  /** Where those before it ended; of one that is not here, where its history does not have it. */
  readonly timeline_ends = new Map<number, Lsn>();
  /** server_version_num. */
  version = 160_004;
  readonly log: LoggedTransaction[] = [];
  readonly open = new Set<OpenTransaction>();
  /** Called whenever a reader has read, and whenever writers are asked for: where the world goes on meanwhile. */
  onRead: () => void = () => {};
  onWriters: () => void = () => {};
  /** Messages that one read gives at most. */
  messages_per_read = Number.POSITIVE_INFINITY;
  /** Until then the server decodes what is not for us: it sends nothing and answers nothing. */
  busy_until_ms = 0;
  lsn = lsnOf(FIRST_LSN);
  #pids = 100;

  makeTable(name: string, rows_estimate = 10): this {
    const [schema = '', table = ''] = name.split('.');
    this.tables.set(name, new MemoryTable({ schema, table }, this.tables.size + 1, rows_estimate));
    return this;
  }

  table(name: string): MemoryTable {
    const table = this.tables.get(name);
    if (!table) throw new RangeError(`no table ${name}`);
    return table;
  }

  begin(): OpenTransaction {
    const transaction = new OpenTransaction(this);
    this.open.add(transaction);
    return transaction;
  }

  /** One transaction. */
  write(...writes: readonly Write[]): Lsn {
    const transaction = this.begin();
    for (const write of writes) transaction.write(write);
    return transaction.commit();
  }

  /** Work of others that is not for us. */
  idle(bytes: bigint): void {
    this.lsn = lsnOf(this.lsn + bytes);
  }

  nextPid(): number {
    return ++this.#pids;
  }
}

/** Nobody sees its rows before it commits; whether a change is published is settled when it is written. */
class OpenTransaction {
  readonly #database: MemoryDatabase;
  readonly #writes: { readonly write: Write; readonly published: boolean }[] = [];
  readonly tables = new Set<string>();
  readonly id: string;

  constructor(database: MemoryDatabase) {
    this.#database = database;
    this.id = `7/${database.open.size + database.log.length}`;
  }

  write(write: Write): this {
    this.tables.add(write.table);
    this.#writes.push({ write, published: this.#database.publication?.has(write.table) ?? false });
    return this;
  }

  commit(): Lsn {
    const database = this.#database;
    database.open.delete(this);
    const messages = this.#writes.flatMap(({ write, published }) => {
      const table = database.table(write.table);
      const message = table.write(write);
      return message && published ? [{ table, message }] : [];
    });
    database.idle(TRANSACTION_BYTES);
    const at_us = BigInt(Date.UTC(2026, 0, 1)) * 1000n + database.lsn;
    database.log.push({ end_lsn: database.lsn, at_us, messages });
    return database.lsn;
  }
}

export function memorySource(world: World, database: MemoryDatabase): Source {
  const { life } = world;
  const look = async <T>(read: () => T): Promise<T> => {
    await world.turn();
    world.look(life);
    return read();
  };
  const change = async <T>(call: string, about: unknown, effect: () => T): Promise<T> => {
    await world.turn();
    return world.change(life, `source.${call}`, about, effect);
  };
  return {
    look: () => look(() => groundOf(database)),
    tables: () => look(() => [...database.tables.values()].map(({ source }) => source)),
    published: (tables) => look(() => publishedIn(database, tables)),
    publish: (tables) =>
      change('publish', tables.map(displayName), () => {
        database.publication ??= new Set();
        for (const table of tables) database.publication.add(displayName(table));
        return { published: publishedIn(database, tables), altered: false };
      }),
    filledBefore: () => look(() => []),
    createSlot: () =>
      change('createSlot', null, () => {
        if (!database.publication) throw new Error('a slot before its publication');
        if (database.slot) throw new SluiceError('SLOT_FOREIGN', { slot: 'there' });
        database.slot = { active_pid: null, active_application: null, confirmed_lsn: database.lsn };
        return database.lsn;
      }),
    dropLostSlot: () =>
      change('dropLostSlot', null, () => {
        if (database.slot?.wal_status === 'lost') database.slot = null;
      }),
    advanceSlot: (lsn) =>
      change('advanceSlot', lsn, () => {
        if (database.slot)
          database.slot = { ...database.slot, confirmed_lsn: lsnMax(lsn, database.slot.confirmed_lsn) };
      }),
    writers: (tables) =>
      look(() => {
        database.onWriters();
        world.events.push({ call: 'source.writers', about: tables.map(displayName) });
        const names = new Set(tables.map(displayName));
        const writing = [...database.open].filter((transaction) =>
          [...transaction.tables].some((name) => names.has(name)),
        );
        return writing.map((transaction): Writer => {
          const written = tables.filter((table) => transaction.tables.has(displayName(table)));
          return { transaction: transaction.id, pid: 50, tables: written.map(({ oid }) => oid) };
        });
      }),
    insertLsn: () => look(() => database.lsn),
    timelineEnd: (timeline) => look(() => database.timeline_ends.get(timeline) ?? null),
    describe: (tables) =>
      look(() => ({
        tables: new Map(
          [...database.tables.values()]
            .filter(({ source }) => tables.includes(source.oid))
            .map(({ source }) => [source.oid, descriptionOf(source)]),
        ),
        types: new Map(),
      })),
    terminate: (pid) =>
      change('terminate', pid, () => {
        if (database.slot?.active_pid === pid)
          database.slot = { ...database.slot, active_pid: null, active_application: null };
      }),
    openSlot: (from, session) =>
      change('openSlot', from, () => openSlot(world, database, from, `sluice/shop#${session}`)),
  };
}

function descriptionOf({ oid, filenode = '', columns }: SourceTable): TableDescription {
  const described = columns.map(({ name, number, type_oid, type_modifier }, i) => ({
    name,
    type_oid,
    type_modifier,
    number: number ?? i + 1,
    dropped: false,
    generated: '' as const,
    missing: null,
  }));
  return { oid, filenode, columns: described };
}

function publishedIn(database: MemoryDatabase, tables: readonly SourceTable[]): Published {
  const held = tables.filter((table) => database.publication?.has(displayName(table)));
  return new Map(held.map((table) => [tableKey(table), `revision ${database.revision}`]));
}

function groundOf(database: MemoryDatabase): Ground {
  const { slot } = database;
  return {
    version: database.version,
    system_identifier: database.system_identifier,
    timeline: database.timeline,
    in_recovery: false,
    wal_level: 'logical',
    encoding: 'UTF8',
    user: 'sluice',
    may_replicate: true,
    flush_lsn: database.lsn,
    slot: slot && {
      plugin: 'pgoutput',
      database: 'postgres',
      active_client: null,
      wal_status: 'reserved',
      safe_wal_bytes: null,
      invalidation_reason: null,
      ...slot,
    },
  };
}

function openSlot(world: World, database: MemoryDatabase, from: Lsn, application: string): SlotReader {
  const { life } = world;
  if (!database.slot) throw new SluiceError('SLOT_MISSING', { slot: 'there', known: false });
  if (database.slot.active_pid !== null)
    throw new SluiceError('SLOT_ACTIVE', { slot: 'there', pid: database.slot.active_pid });
  const pid = database.nextPid();
  database.slot = { ...database.slot, active_pid: pid, active_application: application };
  let position = lsnMax(from, database.slot.confirmed_lsn);
  let pending: Buffer[] = [];
  let asked = false;
  const described = new Set<MemoryTable>();
  const messagesOf = ({ end_lsn, at_us, messages }: LoggedTransaction): Buffer[] => [
    pg.begin(7, at_us, end_lsn),
    ...messages.flatMap(({ table, message }) => {
      if (described.has(table)) return [message];
      described.add(table);
      return [table.description, message];
    }),
    pg.commit(end_lsn, at_us),
  ];
  const next = (): Buffer | undefined => {
    if (pending.length === 0) {
      const transaction = database.log.find(({ end_lsn }) => end_lsn > position);
      if (transaction) {
        position = transaction.end_lsn;
        // What is not for us is passed over in silence (15+).
        pending = transaction.messages.length > 0 ? messagesOf(transaction) : [];
        if (pending.length === 0) return next();
      }
    }
    return pending.shift();
  };
  const assertOpen = (): void => {
    world.look(life);
    if (database.slot?.active_pid !== pid) throw new SluiceError('SLOT_STREAM_FAILED', { reason: 'terminated' });
  };

  return {
    read: async (sink, wait_ms) => {
      await world.turn();
      assertOpen();
      const messages_max = world.clock.now() < database.busy_until_ms ? 0 : database.messages_per_read;
      let got = false;
      for (let read = 0; read < messages_max; read++) {
        const message = next();
        if (!message) break;
        got = true;
        if (!sink.change(message, 0, message.length)) break;
      }
      if (!got && asked && messages_max > 0) {
        asked = false;
        got = true;
        position = lsnMax(position, database.lsn);
        sink.keepalive(position);
      }
      if (!got) await world.clock.sleep(wait_ms);
      database.onRead();
      return got ? 'data' : 'nothing';
    },
    askKeepalive: () => {
      asked = true;
    },
    confirm: (lsn) => {
      assertOpen();
      const recorded = world.calls('ledger.append').some((cut) => (cut as { end_lsn: Lsn }).end_lsn >= lsn);
      if (!recorded) throw new RangeError(`${lsn} is confirmed and not recorded`);
      world.change(life, 'reader.confirm', lsn, () => {
        if (database.slot)
          database.slot = { ...database.slot, confirmed_lsn: lsnMax(lsn, database.slot.confirmed_lsn) };
      });
    },
    close: async () => {
      await world.turn();
      if (world.hasEnded(life) || database.slot?.active_pid !== pid) return;
      database.slot = { ...database.slot, active_pid: null, active_application: null };
      world.events.push({ call: 'reader.close', about: null });
    },
  };
}

/** Whether the row of this id is in the chunk. */
export function isIn(range: ChunkRange, id: string): boolean {
  if (range.by === 'keys') return range.keys.some(([key]) => key === id);
  if (range.by !== 'key') return true;
  return (
    (range.from === null || BigInt(id) >= BigInt(range.from.join())) &&
    (range.to === null || BigInt(id) < BigInt(range.to.join()))
  );
}

export function memoryExtractor(world: World, database: MemoryDatabase): Extractor {
  const { life } = world;
  const look = async <T>(read: () => T): Promise<T> => {
    await world.turn();
    world.look(life);
    return read();
  };
  return {
    table: (name) => look(() => database.tables.get(displayName(name))?.source ?? null),
    sample: (table, { columns, chunk_rows, chunks_max }) =>
      look(() => {
        const { rows_estimate: rows, pages } = table;
        const chunks = Math.max(1, Math.min(chunks_max, Math.ceil(rows / chunk_rows)));
        const ids = [...database.table(displayName(table)).rows.values()].map(({ id }) => BigInt(id ?? 0));
        const sorted = ids.toSorted((a, b) => (a < b ? -1 : 1));
        const places = Array.from({ length: chunks - 1 }, (_, i) => Math.floor((sorted.length * (i + 1)) / chunks));
        const edges = [...new Set(places)].map((place) => sorted[place]).filter((id) => id !== undefined);
        return {
          version: database.version,
          rows,
          bytes: rows * 100,
          pages,
          chunks,
          edges: columns.length === 0 ? [] : edges.map((id) => [String(id)]),
          correlation: 1,
        };
      }),
    insertLsn: () => look(() => database.lsn),
    position: () => look(() => database.lsn),
    pages: () => Promise.reject(new RangeError('no table here is read page by page')),
    readChunk: (table, range) =>
      look(() => {
        const read = [...database.table(displayName(table)).rows.values()].filter(({ id }) => isIn(range, id ?? ''));
        const text = read.map(({ id, v }) => copyLine([id ?? null, v ?? null])).join('');
        const lsn = database.lsn;
        return {
          table,
          lines: Readable.from(text === '' ? [] : [Buffer.from(text)]),
          result: () => look(() => ({ rows: read.length, lsn })),
        };
      }),
  };
}

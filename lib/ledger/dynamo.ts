/**
 * The ledger in DynamoDB: chain, bookmarks, epochs, chunks, leases and run reports in one table (keys.ts).
 *
 * On the path it is where a cut becomes true: `append` is the commit point (I2). No write needs two items at once. A conditional write whose
 * answer was lost is met again by the client's next attempt as a failed condition; it is known as ours by `written_by` and told as done.
 */
import { randomUUID } from 'node:crypto';
import { isDeepStrictEqual } from 'node:util';
import type { DynamoDBClient } from '@aws-sdk/client-dynamodb';
import type {
  Bookmark,
  Chunk,
  Clock,
  Cut,
  Epoch,
  EpochRequest,
  Ledger,
  Reject,
  RunReport,
  Unfinished,
} from '../ports.ts';
import { type Attributes, type FieldCodecs, writeFields } from './attributes.ts';
import {
  BOOKMARK_FIELDS,
  CHUNK_FIELDS,
  CUT_FIELDS,
  EPOCH_FIELDS,
  REJECT_FIELDS,
  REPORT_FIELDS,
  REQUEST_FIELDS,
  UNFINISHED_FIELDS,
} from './items.ts';
import { type ItemKey, ledgerKeys, sortable } from './keys.ts';
import { leases } from './lease.ts';
import { damaged, type Expression, itemOf, keyAttributes, keyOf, LedgerTable, readItem } from './table.ts';

export interface DynamoLedgerOptions {
  readonly client: DynamoDBClient;
  /** Table with the key `pk`, `sk` (both text); `expires_at` may be its time-to-live attribute. */
  readonly table: string;
  readonly pipeline: string;
  /** Tells when a lease has expired, and paces retries. */
  readonly clock: Clock;
}

/** Cuts that one call of `prune` removes at most. */
export const PRUNE_CUTS_MAX = 250;
/** Run reports are for people: after this they may go. */
export const REPORT_RETENTION_DAYS = 90;

const isNew: Expression = { text: 'attribute_not_exists(pk)' };
const isThere: Expression = { text: 'attribute_exists(pk)' };
const isNotStaged: Expression = { text: 'attribute_not_exists(staged)' };
const isInState = (state: string): Expression => ({
  text: '#state = :state',
  names: { '#state': 'state' },
  values: { ':state': { S: state } },
});

/** The `Ledger` port. One object is one writer: make a new one for each process. */
export function dynamoLedger(options: DynamoLedgerOptions): Ledger {
  const table = new LedgerTable(options.client, options.table, options.clock);
  const keys = ledgerKeys(options.pipeline);
  const writer: Attributes = { written_by: { S: randomUUID() } };

  /** A conditional write that is also done when exactly this item stands there already, from us. */
  const putOnce = async (key: ItemKey, fields: Attributes, condition: Expression): Promise<boolean> =>
    (await table.put(key, { ...fields, ...writer }, condition)) || (await standsThere(key, fields));
  const standsThere = async (key: ItemKey, fields: Attributes): Promise<boolean> =>
    isDeepStrictEqual(await table.get(key), itemOf(key, { ...fields, ...writer }));
  const getAs = async <T extends object>(codecs: FieldCodecs<T>, key: ItemKey): Promise<T | null> => {
    const item = await table.get(key);
    return item && readItem(codecs, item);
  };

  const head = async (): Promise<Cut | null> => {
    const [newest] = await table.query({ pk: keys.chain, descending: true, limit: 1 });
    return newest ? readItem(CUT_FIELDS, newest) : null;
  };
  const bookmark = (stream: string) => getAs(BOOKMARK_FIELDS, keys.bookmark(stream));
  /** False: the item does not have the values that were `expected`. */
  const updateItem = async (key: ItemKey, change: Attributes, expected: Attributes = {}): Promise<boolean> => {
    if (Object.keys(change).length === 0) return true;
    if (await table.update(key, settingOf(change), stillHas(expected))) return true;
    // A condition that failed does not say which half of it did.
    if (Object.keys(expected).length > 0 && (await table.get(key))) return false;
    throw damaged(key, 'it is not there');
  };

  return {
    ...leases(table, keys, options.clock),

    head,

    append: (cut) => putOnce(keys.cut(cut.number), writeFields<Cut>(CUT_FIELDS, cut), isNew),

    async cutsAfter(number, limit) {
      const after = number < 0 ? {} : { after: sortable(number) };
      return await table.queryAs({ pk: keys.chain, ...after, limit }, (item) => readItem(CUT_FIELDS, item));
    },

    async prune(number, before_ms) {
      const newest = await head();
      if (newest === null) return 0;
      const oldest = await table.query({
        pk: keys.chain,
        limit: PRUNE_CUTS_MAX,
        only: ['pk', 'sk', 'number', 'recorded_at_ms'],
      });
      const isDue = (item: Attributes) => {
        const cut = readItem<Pick<Cut, 'number' | 'recorded_at_ms'>>(
          { number: CUT_FIELDS.number, recorded_at_ms: CUT_FIELDS.recorded_at_ms },
          item,
        );
        return cut.number <= number && cut.number < newest.number && cut.recorded_at_ms < before_ms;
      };
      const firstToStay = oldest.findIndex((item) => !isDue(item));
      const due = firstToStay === -1 ? oldest : oldest.slice(0, firstToStay);
      await table.writeAll(due.map((item) => ({ DeleteRequest: { Key: keyAttributes(keyOf(item)) } })));
      return due.length;
    },

    unfinished: () => getAs(UNFINISHED_FIELDS, keys.unfinished),

    saveUnfinished: (unfinished, instead_of) =>
      putOnce(
        keys.unfinished,
        writeFields<Unfinished>(UNFINISHED_FIELDS, unfinished),
        instead_of === null ? isNew : { text: 'id = :id', values: { ':id': { S: instead_of } } },
      ),

    async removeUnfinished() {
      await table.writeAll([{ DeleteRequest: { Key: keyAttributes(keys.unfinished) } }]);
    },

    async bookmarks() {
      const items = await table.query({ pk: keys.streams });
      return items.map((item) => readItem(BOOKMARK_FIELDS, item));
    },

    bookmark,

    addBookmark: (added) => putOnce(keys.bookmark(added.stream), writeFields<Bookmark>(BOOKMARK_FIELDS, added), isNew),

    updateBookmark: (stream, change, expected = {}) =>
      updateItem(
        keys.bookmark(stream),
        writeFields<Bookmark>(BOOKMARK_FIELDS, change),
        writeFields<Bookmark>(BOOKMARK_FIELDS, expected),
      ),

    /**
     * Two items, one commit point: the epoch's item, which can be made once. The bookmark follows, by whoever comes next: a process that
     * dies between the two leaves an epoch that the next opener completes before it is told that it came second.
     */
    async openEpoch(epoch) {
      const key = keys.epoch(epoch.stream, epoch.number);
      const fields = writeFields<Epoch>(EPOCH_FIELDS, epoch);
      const now = await bookmark(epoch.stream);
      if (now === null || now.epoch < epoch.number - 1) return false;
      if (now.epoch >= epoch.number) return await standsThere(key, fields);
      const opened = await putOnce(key, fields, isNew);
      await table.update(keys.bookmark(epoch.stream), settingOf({ epoch: { N: String(epoch.number) } }), {
        text: 'epoch = :before',
        values: { ':before': { N: String(epoch.number - 1) } },
      });
      return opened;
    },

    epoch: (stream, number) => getAs(EPOCH_FIELDS, keys.epoch(stream, number)),

    updateEpoch: (epoch, from) =>
      putOnce(keys.epoch(epoch.stream, epoch.number), writeFields<Epoch>(EPOCH_FIELDS, epoch), isInState(from)),

    async addEpochRequest(request) {
      await table.put(keys.request(request.stream, request.id), writeFields<EpochRequest>(REQUEST_FIELDS, request));
    },

    async epochRequests(stream) {
      const items = await table.query({ pk: keys.requests });
      const requests = items.map((item) => readItem(REQUEST_FIELDS, item));
      return stream === null ? requests : requests.filter((request) => request.stream === stream);
    },

    async removeEpochRequest({ stream, id }) {
      await table.writeAll([{ DeleteRequest: { Key: keyAttributes(keys.request(stream, id)) } }]);
    },

    async addReject(reject) {
      await table.put(keys.reject(reject.stream, reject.id), writeFields<Reject>(REJECT_FIELDS, reject));
    },

    async rejects(stream) {
      const items = await table.query({ pk: keys.rejects });
      const rejects = items.map((item) => readItem(REJECT_FIELDS, item));
      return stream === null ? rejects : rejects.filter((reject) => reject.stream === stream);
    },

    async removeRejects(rejects) {
      await table.writeAll(
        rejects.map(({ stream, id }) => ({ DeleteRequest: { Key: keyAttributes(keys.reject(stream, id)) } })),
      );
    },

    async saveChunks(chunks) {
      const items = chunks.map((chunk) => itemOf(chunkKey(chunk), writeFields<Chunk>(CHUNK_FIELDS, chunk)));
      await table.writeAll(items.map((Item) => ({ PutRequest: { Item } })));
    },

    async chunks(stream, epoch, plan) {
      const items = await table.query({ pk: keys.chunks(stream, epoch, plan) });
      return items.map((item) => readItem(CHUNK_FIELDS, item));
    },

    chunk: (stream, epoch, plan, number) => getAs(CHUNK_FIELDS, keys.chunk(stream, epoch, plan, number)),

    stageChunk: (chunk) => putOnce(chunkKey(chunk), writeFields<Chunk>(CHUNK_FIELDS, chunk), isNotStaged),

    async markChunkLoaded(chunk) {
      await updateItem(chunkKey(chunk), { loaded: { BOOL: true } });
    },

    async saveReport(report) {
      const expires_at = Math.floor(report.ended_at_ms / 1000) + REPORT_RETENTION_DAYS * 24 * 3600;
      await table.put(keys.report(report.started_at_ms, report.run), {
        ...writeFields<RunReport>(REPORT_FIELDS, report),
        expires_at: { N: String(expires_at) },
      });
    },

    async reports(limit) {
      const items = await table.query({ pk: keys.reports, descending: true, limit });
      return items.map((item) => readItem(REPORT_FIELDS, item));
    },
  };

  function chunkKey(chunk: Chunk): ItemKey {
    return keys.chunk(chunk.stream, chunk.epoch, chunk.plan, chunk.number);
  }
}

/** The item is there, and each of these attributes has this value. */
function stillHas(expected: Attributes): Expression {
  const names = Object.keys(expected);
  if (names.length === 0) return isThere;
  return {
    text: [isThere.text, ...names.map((_, i) => `#e${i} = :e${i}`)].join(' AND '),
    names: Object.fromEntries(names.map((name, i) => [`#e${i}`, name])),
    values: Object.fromEntries(Object.values(expected).map((value, i) => [`:e${i}`, value])),
  };
}

/** `SET` of every attribute; names are aliased because DynamoDB reserves some of them (`table`, `state`, `loaded`). */
function settingOf(attributes: Attributes): Expression {
  const names = Object.keys(attributes);
  return {
    text: `SET ${names.map((_, i) => `#n${i} = :v${i}`).join(', ')}`,
    names: Object.fromEntries(names.map((name, i) => [`#n${i}`, name])),
    values: Object.fromEntries(Object.values(attributes).map((value, i) => [`:v${i}`, value])),
  };
}

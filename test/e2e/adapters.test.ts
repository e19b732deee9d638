/**
 * Goal: the adapters keep the promises of lib/ports.ts against servers that speak the real protocols: one winner of a race, answers that are lost,
 * bodies that break, parts of every size.
 */
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { connect, createServer, type Server } from 'node:net';
import { buffer } from 'node:stream/consumers';
import { ListMultipartUploadsCommand, S3Client } from '@aws-sdk/client-s3';
import { DeleteMessageCommand, ReceiveMessageCommand } from '@aws-sdk/client-sqs';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { parseLoadBell } from '../../lib/ledger/bells.ts';
import { sqsDoorbell } from '../../lib/ledger/doorbell.ts';
import { dynamoLedger, PRUNE_CUTS_MAX } from '../../lib/ledger/dynamo.ts';
import { ledgerKeys } from '../../lib/ledger/keys.ts';
import { lsnOf } from '../../lib/lsn.ts';
import type { Ledger } from '../../lib/ports.ts';
import { PART_BYTES_FIRST } from '../../lib/stage/parts.ts';
import { s3Stage } from '../../lib/stage/s3.ts';
import { startAws, type TestAws } from '../support/aws.ts';
import { aBookmark, aChunk, aCut, anEpoch, aReport, HandClock, keptLog, STAGED } from '../support/ledger-nouns.ts';

let aws: TestAws;
beforeAll(async () => {
  aws = await startAws();
});
afterAll(async () => {
  await aws[Symbol.asyncDispose]();
});

/** The next answer of the client is lost after the server has acted; the client itself tries again. */
function loseNextAnswer(client: { middlewareStack: TestAws['dynamo']['middlewareStack'] }, operation: string): void {
  let armed = true;
  client.middlewareStack.add(
    (next, context) => async (args) => {
      const answer = await next(args);
      if (!armed || context.commandName !== operation) return answer;
      armed = false;
      client.middlewareStack.remove('lose-answer');
      throw Object.assign(new Error('read ECONNRESET'), { code: 'ECONNRESET', $metadata: {} });
    },
    { step: 'deserialize', name: 'lose-answer', override: true },
  );
}

describe('the ledger', () => {
  let pipeline = 0;
  let clock: HandClock;
  let ledger: Ledger;
  const another = () => dynamoLedger({ client: aws.dynamo, table: aws.table, pipeline: `p${pipeline}`, clock });
  beforeEach(() => {
    pipeline += 1;
    clock = new HandClock();
    ledger = another();
  });

  test('has no head before there is a chain, and then the newest cut', async () => {
    expect(await ledger.head()).toBeNull();
    for (const number of [0, 1, 9, 10, 11]) await ledger.append(aCut({ number }));
    expect(await ledger.head()).toEqual(aCut({ number: 11 }));
  });

  test('lets one of twenty windows append', async () => {
    const windows = Array.from({ length: 20 }, (_, i) => ({ ledger: another(), cut: aCut({ object: `o-${i}` }) }));
    const won = await Promise.all(windows.map(({ ledger, cut }) => ledger.append(cut)));
    expect(won.filter(Boolean)).toHaveLength(1);
    expect(await ledger.head()).toEqual(windows[won.indexOf(true)]?.cut);
  });

  test('tells of two that append the very same cut that one of them was second', async () => {
    const won = [await ledger.append(aCut({ object: null })), await another().append(aCut({ object: null }))];
    expect(won).toEqual([true, false]);
  });

  test('knows its own cut when the answer was lost', async () => {
    loseNextAnswer(aws.dynamo, 'PutItemCommand');
    expect(await ledger.append(aCut())).toBe(true);
    expect(await ledger.append(aCut())).toBe(true);
    expect(await ledger.append(aCut({ object: 'other' }))).toBe(false);
  });

  test('hands out the cuts after a number, over pages of 1 MB', async () => {
    const streams = Object.fromEntries(
      Array.from({ length: 2500 }, (_, i) => [`public.${'x'.repeat(40)}${i}`, { changes: i, text_bytes: i }]),
    );
    for (let number = 0; number < 12; number += 1) await ledger.append(aCut({ number, streams }));
    const numbers = async (after: number, limit: number) =>
      (await ledger.cutsAfter(after, limit)).map((cut) => cut.number);
    expect(await numbers(-1, 100)).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]);
    expect(await numbers(2, 7)).toEqual([3, 4, 5, 6, 7, 8, 9]);
    expect(await numbers(11, 7)).toEqual([]);
    expect((await ledger.cutsAfter(10, 1))[0]?.streams).toEqual(streams);
  });

  test('refuses a cut that no item can hold', async () => {
    // Names that nothing makes smaller.
    const streams = Object.fromEntries(
      Array.from({ length: 20_000 }, (_, i) => [
        `public.${randomBytes(36).toString('hex')}`,
        { changes: i, text_bytes: i },
      ]),
    );
    await expect(ledger.append(aCut({ streams }))).rejects.toMatchObject({ code: 'LEDGER_ITEM_TOO_LARGE' });
    expect(await ledger.head()).toBeNull();
  });

  test('an unfinished transaction takes the place of the one that it was read after, and of no other', async () => {
    const part = { object: 'shop/cuts/8-x', object_bytes: 1_000 };
    const first = {
      id: 'one',
      incarnation: 'i',
      after_cut: 7,
      begin_lsn: lsnOf(100n),
      objects: [part],
      state: [900, 100] as const,
      state_crc32: 4_294_967_295,
      xid: 4_294_967_295,
      commit_lsn: lsnOf(2n ** 63n),
      messages: 10,
      message_bytes: 500,
      changes: 8,
      text_bytes: 200,
      tables: ['public.t'],
      table_count: 1,
      windows: 1,
      began_at_ms: 1,
      at_ms: 2,
      stalled: false,
    };
    expect(await ledger.unfinished()).toBeNull();
    expect(await ledger.saveUnfinished(first, 'nobody')).toBe(false);
    expect(await ledger.saveUnfinished(first, null)).toBe(true);
    // Done, and the answer lost.
    expect(await ledger.saveUnfinished(first, null)).toBe(true);
    expect(await ledger.unfinished()).toEqual(first);
    const next = { ...first, id: 'two', objects: [part, { ...part, object: 'shop/cuts/8-y' }], windows: 2 };
    expect(await ledger.saveUnfinished(next, null)).toBe(false);
    expect(await ledger.saveUnfinished(next, 'one')).toBe(true);
    expect(await ledger.saveUnfinished({ ...next, id: 'three' }, 'one')).toBe(false);
    expect(await ledger.unfinished()).toEqual(next);
    await ledger.removeUnfinished();
    expect(await ledger.unfinished()).toBeNull();
  });

  test('prunes the oldest, a bounded number, by number and by time, and never the newest', async () => {
    for (let number = 0; number < 10; number += 1) await ledger.append(aCut({ number, recorded_at_ms: number * 100 }));
    expect(await ledger.prune(3, 1_000_000)).toBe(4);
    expect(await ledger.prune(100, 600)).toBe(2);
    expect((await ledger.cutsAfter(-1, 100)).map((cut) => cut.number)).toEqual([6, 7, 8, 9]);
    expect(await ledger.prune(100, 1_000_000)).toBe(3);
    expect(await ledger.prune(100, 1_000_000)).toBe(0);
    expect((await ledger.head())?.number).toBe(9);
  });

  test('prunes no more than its limit in one call', async () => {
    const cuts = Array.from({ length: PRUNE_CUTS_MAX + 10 }, (_, number) => aCut({ number, recorded_at_ms: 1 }));
    for (let at = 0; at < cuts.length; at += 20)
      await Promise.all(cuts.slice(at, at + 20).map((cut) => ledger.append(cut)));
    expect(await ledger.prune(1_000_000, 1_000_000)).toBe(PRUNE_CUTS_MAX);
    expect((await ledger.cutsAfter(-1, 1))[0]?.number).toBe(PRUNE_CUTS_MAX);
  });

  test('keeps bookmarks, with odd names, and changes only what is named', async () => {
    const odd = aBookmark({ stream: 'we#ird %.töäst"', halt: null });
    expect(await ledger.addBookmark(odd)).toBe(true);
    expect(await another().addBookmark(odd)).toBe(false);
    await ledger.addBookmark(aBookmark());
    expect(await ledger.bookmarks()).toEqual([aBookmark(), odd]);
    const halt = { code: 'X', message: 'm', remedy: 'r', cut: 3, at_ms: 4, must_reset: true };
    await ledger.updateBookmark(odd.stream, { halt, applied_lsn: lsnOf(77n), state: 'live' });
    expect(await ledger.bookmark(odd.stream)).toEqual({ ...odd, halt, applied_lsn: 77n, state: 'live' });
    await ledger.updateBookmark(odd.stream, { halt: null });
    expect(await ledger.updateBookmark(odd.stream, {})).toBe(true);
    expect(await ledger.bookmark(odd.stream)).toEqual({ ...odd, applied_lsn: 77n, state: 'live' });
    expect(await ledger.bookmark('public.t')).toEqual(aBookmark());
    expect(await ledger.bookmark('none')).toBeNull();
    await expect(ledger.updateBookmark('none', { halt: null })).rejects.toMatchObject({ code: 'LEDGER_DAMAGED' });
  });

  test('changes a bookmark only while it is what the caller knows of it', async () => {
    const { stream, captured_cut, epoch } = aBookmark();
    await ledger.addBookmark(aBookmark());
    const followed = { table_oid: 4_294_967_295, published: '5.100 r7', partitions: null };
    expect(await ledger.updateBookmark(stream, { followed }, { captured_cut, epoch })).toBe(true);
    expect(await ledger.bookmark(stream)).toEqual(aBookmark({ followed }));
    expect(await ledger.updateBookmark(stream, { applied_cut: 9 }, { captured_cut: captured_cut + 1 })).toBe(false);
    expect(await ledger.updateBookmark(stream, { applied_cut: 9 }, { captured_cut, epoch: epoch + 1 })).toBe(false);
    expect(await ledger.bookmark(stream)).toEqual(aBookmark({ followed }));
    await ledger.updateBookmark(stream, { followed: null });
    expect((await ledger.bookmark(stream))?.followed).toBeNull();
    await expect(ledger.updateBookmark('none', { halt: null }, { epoch })).rejects.toMatchObject({
      code: 'LEDGER_DAMAGED',
    });
  });

  test('opens an epoch once, and only after the one before it', async () => {
    expect(await ledger.openEpoch(anEpoch())).toBe(false);
    await ledger.addBookmark(aBookmark());
    expect(await ledger.openEpoch(anEpoch({ number: 2 }))).toBe(false);
    const openers = Array.from({ length: 8 }, (_, i) => ({ ledger: another(), epoch: anEpoch({ opened_at_ms: i }) }));
    const won = await Promise.all(openers.map(({ ledger, epoch }) => ledger.openEpoch(epoch)));
    expect(won.filter(Boolean)).toHaveLength(1);
    expect((await ledger.bookmark('public.t'))?.epoch).toBe(1);
    expect(await ledger.epoch('public.t', 1)).toEqual(openers[won.indexOf(true)]?.epoch);
    expect(await ledger.openEpoch(anEpoch({ number: 2 }))).toBe(true);
    expect(await ledger.openEpoch(anEpoch({ number: 1 }))).toBe(false);
    expect(await ledger.epoch('public.t', 2)).toEqual(anEpoch({ number: 2 }));
  });

  test('completes the opening of an epoch whose opener died in the middle', async () => {
    await ledger.addBookmark(aBookmark());
    // GIVEN a process that wrote the epoch and not the bookmark.
    const dying = another();
    aws.dynamo.middlewareStack.add(
      (next, context) => (args) => {
        if (context.commandName === 'UpdateItemCommand') throw new Error('killed');
        return next(args);
      },
      { step: 'initialize', name: 'dying' },
    );
    await expect(dying.openEpoch(anEpoch({ kind: 'reset' }))).rejects.toThrow();
    aws.dynamo.middlewareStack.remove('dying');
    expect((await ledger.bookmark('public.t'))?.epoch).toBe(0);
    // WHEN another opens it, THEN it is told that it came second, and the first one's epoch is open.
    expect(await ledger.openEpoch(anEpoch())).toBe(false);
    expect((await ledger.bookmark('public.t'))?.epoch).toBe(1);
    expect((await ledger.epoch('public.t', 1))?.kind).toBe('reset');
  });

  test('changes an epoch for whoever finds the state he expects', async () => {
    await ledger.addBookmark(aBookmark());
    await ledger.openEpoch(anEpoch());
    const planned = anEpoch({ state: 'planned', plan: 'a', chunks: 3 });
    loseNextAnswer(aws.dynamo, 'PutItemCommand');
    expect(await ledger.updateEpoch(planned, 'opened')).toBe(true);
    expect(await another().updateEpoch({ ...planned, plan: 'b' }, 'opened')).toBe(false);
    expect(await ledger.epoch('public.t', 1)).toEqual(planned);
  });

  test('keeps a plan of many chunks in their order, and stages each once', async () => {
    const chunks = Array.from({ length: 60 }, (_, number) => aChunk({ number }));
    await ledger.saveChunks(chunks);
    await ledger.saveChunks([aChunk({ plan: 'plan-2', number: 0, range: { by: 'whole' } })]);
    expect(await ledger.chunks('public.t', 1, 'plan-1')).toEqual(chunks);
    expect(await ledger.chunk('public.t', 1, 'plan-2', 0)).toEqual(aChunk({ plan: 'plan-2', range: { by: 'whole' } }));
    const staged = aChunk({ number: 7, staged: STAGED });
    loseNextAnswer(aws.dynamo, 'PutItemCommand');
    expect(await ledger.stageChunk(staged)).toBe(true);
    expect(await another().stageChunk({ ...staged, staged: { ...STAGED, object: 'late' } })).toBe(false);
    await ledger.markChunkLoaded(staged);
    expect(await ledger.chunk('public.t', 1, 'plan-1', 7)).toEqual({ ...staged, loaded: true });
    await expect(ledger.markChunkLoaded(aChunk({ number: 99 }))).rejects.toMatchObject({ code: 'LEDGER_DAMAGED' });
  });

  test('shows reports, the newest first', async () => {
    for (const i of [3, 1, 2]) await ledger.saveReport(aReport({ run: `r${i}`, started_at_ms: i }));
    expect(await ledger.reports(2)).toEqual([
      aReport({ run: 'r3', started_at_ms: 3 }),
      aReport({ run: 'r2', started_at_ms: 2 }),
    ]);
  });

  test('does not mix pipelines', async () => {
    await ledger.append(aCut());
    pipeline += 1;
    expect(await another().head()).toBeNull();
  });

  test('says which item is damaged, and where', async () => {
    await ledger.append(aCut({ number: 5 }));
    const { DeleteItemCommand, PutItemCommand } = await import('@aws-sdk/client-dynamodb');
    const key = ledgerKeys(`p${pipeline}`).cut(6);
    const Item = { pk: { S: key.pk }, sk: { S: key.sk }, number: { N: '6' }, kind: { S: 'changes' } };
    await aws.dynamo.send(new PutItemCommand({ TableName: aws.table, Item }));
    await expect(ledger.head()).rejects.toMatchObject({
      code: 'LEDGER_DAMAGED',
      message: expect.stringMatching(/p\d+#chain 0000000000000006 .*begin_lsn is not an LSN/),
    });
    await aws.dynamo.send(new DeleteItemCommand({ TableName: aws.table, Key: { pk: Item.pk, sk: Item.sk } }));
  });

  test('maps a missing table', async () => {
    const lost = dynamoLedger({ client: aws.dynamo, table: 'no-such-table', pipeline: 'p', clock });
    await expect(lost.head()).rejects.toMatchObject({ code: 'AWS_MISSING' });
  });

  describe('lease', () => {
    test('goes to one of ten, and tells the others who has it', async () => {
      const answers = await Promise.all(
        Array.from({ length: 10 }, (_, i) => another().takeLease('slot', `w${i}`, 60_000)),
      );
      const won = answers.filter((answer) => 'token' in answer);
      expect(won).toMatchObject([{ name: 'slot', token: 1, until_ms: clock.now() + 60_000 }]);
      const held = { held_by: won[0]?.owner, until_ms: clock.now() + 60_000 };
      expect(answers.filter((answer) => 'held_by' in answer)).toEqual(Array.from({ length: 9 }, () => held));
    });

    test('is taken over when it has expired, with a greater token, and the old holder sees it', async () => {
      const old = await ledger.takeLease('slot', 'a', 60_000);
      if (!('token' in old)) throw new Error('not taken');
      clock.now_ms += 59_999;
      expect(await ledger.takeLease('slot', 'b', 60_000)).toMatchObject({ held_by: 'a' });
      clock.now_ms += 1;
      expect(await ledger.takeLease('slot', 'b', 60_000)).toMatchObject({ owner: 'b', token: 2 });
      expect(await ledger.renewLease(old, 60_000)).toBe(false);
      await ledger.releaseLease(old);
      expect(await ledger.takeLease('slot', 'c', 60_000)).toMatchObject({ held_by: 'b' });
    });

    test('is renewed, also after it has expired when nobody took it', async () => {
      const lease = await ledger.takeLease('slot', 'a', 1000);
      if (!('token' in lease)) throw new Error('not taken');
      clock.now_ms += 5000;
      expect(await ledger.renewLease(lease, 1000)).toBe(true);
      expect(await ledger.takeLease('slot', 'b', 1000)).toEqual({ held_by: 'a', until_ms: clock.now() + 1000 });
    });

    test('is free at once when it is released, and its token goes on growing', async () => {
      const lease = await ledger.takeLease('slot', 'a', 60_000);
      if (!('token' in lease)) throw new Error('not taken');
      await ledger.releaseLease(lease);
      expect(await ledger.takeLease('slot', 'b', 60_000)).toMatchObject({ token: 2 });
    });

    test('survives a lost answer: what was taken is its own', async () => {
      loseNextAnswer(aws.dynamo, 'UpdateItemCommand');
      expect(await ledger.takeLease('slot', 'a', 60_000)).toMatchObject({ owner: 'a', token: 2 });
    });
  });
});

describe('the stage', () => {
  const log = keptLog();
  const stage = () => s3Stage({ client: aws.s3, bucket: aws.bucket, log });
  const sha = (bytes: Buffer) => createHash('sha256').update(bytes).digest('hex');

  test.each([
    ['an empty object', 0],
    ['a byte', 1],
    ['a part less a byte', PART_BYTES_FIRST - 1],
    ['a part', PART_BYTES_FIRST],
    ['a part and a byte', PART_BYTES_FIRST + 1],
    ['three parts', 3 * PART_BYTES_FIRST],
    ['three parts and some', 3 * PART_BYTES_FIRST + 12_345],
  ])('gives %s back as it was', async (_, size) => {
    const bytes = randomBytes(size);
    const writer = stage().begin(`whole/${size}`);
    for (let at = 0; at < size; at += 1_000_003) await writer.append(bytes.subarray(at, at + 1_000_003));
    expect(writer.bytes).toBe(size);
    await writer.complete();
    const back = await buffer(await stage().read(writer.object, [0, size]));
    expect(sha(back)).toBe(sha(bytes));
  });

  test('takes a buffer that is many parts at once, and reads any range of it', async () => {
    const bytes = randomBytes(4 * PART_BYTES_FIRST + 7);
    const writer = stage().begin('ranges');
    await writer.append(bytes);
    await writer.complete();
    const ends = [0, 1, PART_BYTES_FIRST - 1, PART_BYTES_FIRST, 3 * PART_BYTES_FIRST + 5, bytes.length - 1];
    for (const from of ends) {
      const count = Math.min(2 * PART_BYTES_FIRST, bytes.length - from);
      const part = await buffer(await stage().read('ranges', [from, count]));
      expect(sha(part)).toBe(sha(bytes.subarray(from, from + count)));
    }
    expect(await buffer(await stage().read('ranges', [5, 0]))).toHaveLength(0);
  });

  test('has no object before it is complete, and none after it is abandoned', async () => {
    const writer = stage().begin('abandoned');
    await writer.append(randomBytes(2 * PART_BYTES_FIRST + 1));
    await expect(stage().read('abandoned', [0, 1])).rejects.toMatchObject({ code: 'STAGE_MISSING' });
    await writer.abandon();
    await writer.abandon();
    await expect(stage().read('abandoned', [0, 1])).rejects.toMatchObject({ code: 'STAGE_MISSING' });
    const uploads = await aws.s3.send(new ListMultipartUploadsCommand({ Bucket: aws.bucket }));
    expect(uploads.Uploads ?? []).toEqual([]);
    await expect(writer.append(Buffer.from('x'))).rejects.toThrow(RangeError);
  });

  test('says when an object is shorter than its range', async () => {
    const writer = stage().begin('short');
    await writer.append(Buffer.from('abc'));
    await writer.complete();
    await expect(stage().read('short', [3, 1])).rejects.toMatchObject({ code: 'STAGE_CORRUPT' });
    await expect(stage().read('short', [1, 5]).then(buffer)).rejects.toMatchObject({ code: 'STAGE_CORRUPT' });
  });

  test('knows its object when the answer to its completion was lost', async () => {
    const bytes = randomBytes(PART_BYTES_FIRST + 1);
    const writer = stage().begin('lost-answer');
    await writer.append(bytes);
    loseNextAnswer(aws.s3 as unknown as TestAws['dynamo'], 'CompleteMultipartUploadCommand');
    await writer.complete();
    expect(sha(await buffer(await stage().read('lost-answer', [0, bytes.length])))).toBe(sha(bytes));
  });

  test('maps a missing bucket', async () => {
    const lost = s3Stage({ client: aws.s3, bucket: 'no-such-bucket', log });
    const writer = lost.begin('x');
    await expect(writer.complete()).rejects.toMatchObject({ code: 'AWS_MISSING' });
    await writer.abandon();
  });

  describe('behind a connection that breaks', () => {
    let proxy: Server;
    let s3: S3Client;
    /** Bytes that each of the next connections carries back after the head of the answer, before it is reset; then connections hold. */
    const breaks: number[] = [];
    beforeAll(async () => {
      const upstream = new URL(aws.s3_endpoint);
      proxy = createServer((client) => {
        const server = connect(Number(upstream.port), upstream.hostname);
        let room = breaks.shift() ?? Number.POSITIVE_INFINITY;
        server.once('data', (head: Buffer) => {
          room += head.indexOf('\r\n\r\n') + 4;
        });
        server.on('data', (bytes: Buffer) => {
          client.write(bytes.subarray(0, Math.min(room, bytes.length)));
          room -= bytes.length;
          if (room <= 0) client.resetAndDestroy();
        });
        client.pipe(server);
        server.on('end', () => client.end());
        for (const socket of [client, server]) {
          socket.on('error', () => {});
          socket.on('close', () => {
            client.destroy();
            server.destroy();
          });
        }
      });
      proxy.listen(0, '127.0.0.1');
      await once(proxy, 'listening');
      const address = proxy.address();
      if (address === null || typeof address === 'string') throw new Error('no port');
      s3 = new S3Client({
        region: 'us-east-1',
        endpoint: `http://127.0.0.1:${address.port}`,
        forcePathStyle: true,
        credentials: { accessKeyId: 'test', secretAccessKey: 'test' },
        maxAttempts: 2,
        requestHandler: { httpAgent: { keepAlive: false } },
      });
    });
    afterAll(async () => {
      s3.destroy();
      await new Promise((done) => proxy.close(done));
    });

    const bytes = randomBytes(3_000_000);
    const written = async () => {
      const writer = stage().begin('breaking');
      await writer.append(bytes);
      await writer.complete();
    };

    test('goes on from the byte reached', async () => {
      await written();
      breaks.push(100_000, 1_000_000, 50_000);
      const log = keptLog();
      const readable = await s3Stage({ client: s3, bucket: aws.bucket, log }).read('breaking', [10, bytes.length - 10]);
      expect(sha(await buffer(readable))).toBe(sha(bytes.subarray(10)));
      expect(log.lines.filter(({ event }) => event === 'stage_read_resumed')).toHaveLength(3);
    });

    test('gives up when nothing comes any more', async () => {
      await written();
      breaks.push(100_000, 0, 0, 0);
      const readable = await s3Stage({ client: s3, bucket: aws.bucket, log }).read('breaking', [0, bytes.length]);
      await expect(buffer(readable).then(() => 'read')).rejects.toMatchObject({ code: 'AWS_TRANSIENT' });
      breaks.length = 0;
    });

    test('lets go of a reader that stops', async () => {
      await written();
      const readable = await s3Stage({ client: s3, bucket: aws.bucket, log }).read('breaking', [0, bytes.length]);
      await readable[Symbol.asyncIterator]().next();
      readable.destroy();
      await expect.poll(() => new Promise((done) => proxy.getConnections((_, count) => done(count)))).toBe(0);
    });
  });
});

describe('the doorbell', () => {
  const clock = new HandClock();
  const doorbell = () =>
    sqsDoorbell({
      client: aws.sqs,
      pipeline: 'shop',
      load_queue_url: aws.load_queue_url,
      extract_queue_url: aws.extract_queue_url,
      clock,
    });

  /** Everything that is in the queue now, deleted as it is received. */
  async function received(queue_url: string) {
    const messages: { body: string; group: string | undefined }[] = [];
    for (let empty = 0; empty < 2; ) {
      const answer = await aws.sqs.send(
        new ReceiveMessageCommand({
          QueueUrl: queue_url,
          MaxNumberOfMessages: 10,
          MessageSystemAttributeNames: ['MessageGroupId'],
        }),
      );
      empty = answer.Messages ? 0 : empty + 1;
      for (const { Body = '', ReceiptHandle, Attributes } of answer.Messages ?? []) {
        messages.push({ body: Body, group: Attributes?.MessageGroupId });
        await aws.sqs.send(new DeleteMessageCommand({ QueueUrl: queue_url, ReceiptHandle }));
      }
    }
    return messages;
  }

  test('is heard as it was rung, and again when it is rung again', async () => {
    const bell = { kind: 'cuts', stream: 'public.t', cut: 5 } as const;
    await doorbell().ringLoad([bell]);
    await doorbell().ringLoad([bell]);
    await doorbell().ringLoad([]);
    const messages = await received(aws.load_queue_url);
    expect(messages.map(({ body }) => parseLoadBell('shop', body))).toEqual([bell, bell]);
  });

  test('rings for more than a batch, and gives chunks a group each', async () => {
    const bells = Array.from({ length: 23 }, (_, chunk) => ({
      kind: 'chunk' as const,
      stream: 'public.t',
      epoch: 1,
      plan: 'p',
      chunk,
    }));
    await doorbell().ringExtract([{ kind: 'plan', stream: 'public.t', epoch: 1 }, ...bells]);
    const messages = await received(aws.extract_queue_url);
    expect(messages).toHaveLength(24);
    expect(new Set(messages.map(({ group }) => group)).size).toBe(24);
  });

  test('maps a missing queue', async () => {
    const lost = sqsDoorbell({
      client: aws.sqs,
      pipeline: 'shop',
      load_queue_url: aws.load_queue_url.replace(/load-/, 'gone-'),
      extract_queue_url: aws.extract_queue_url,
      clock,
    });
    await expect(lost.ringLoad([{ kind: 'finish', stream: 's', epoch: 1 }])).rejects.toMatchObject({
      code: 'AWS_MISSING',
    });
  });
});

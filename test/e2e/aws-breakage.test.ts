/**
 * Goal: whatever S3, SQS and DynamoDB answer, or do not, a call of an adapter ends in a bounded time: with the right answer where the fault passes, else with an
 * error of the catalogue; and what is there afterwards is what one call makes, never half of it and never twice.
 * Method: the functions' own clients (with shorter limits) through a proxy that breaks each operation in each way, once and for ever.
 */
import { createHash, randomBytes } from 'node:crypto';
import { buffer } from 'node:stream/consumers';
import { DynamoDBClient } from '@aws-sdk/client-dynamodb';
import { ListMultipartUploadsCommand, S3Client } from '@aws-sdk/client-s3';
import { DeleteMessageCommand, ReceiveMessageCommand, SQSClient } from '@aws-sdk/client-sqs';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { clientOptions } from '../../functions/clients.ts';
import { sqsDoorbell } from '../../lib/ledger/doorbell.ts';
import { dynamoLedger } from '../../lib/ledger/dynamo.ts';
import type { Ledger } from '../../lib/ports.ts';
import { PART_BYTES_FIRST } from '../../lib/stage/parts.ts';
import { s3Stage } from '../../lib/stage/s3.ts';
import { startAws, type TestAws } from '../support/aws.ts';
import { type HttpFault, type HttpFaults, startHttpFaults } from '../support/http-faults.ts';
import { aBookmark, aChunk, aCut, anEpoch, aReport, HandClock, keptLog, STAGED } from '../support/ledger-nouns.ts';
import { seededBelow } from '../support/seeded.ts';

const LIMITS = { item: [700, 700], part: [8_000, 8_000] } as const;
/** Of a body that is read. */
const STALL_MS = 300;
/** Two attempts, each with an answer and a body that do not come, and the wait between them. */
const CALL_MS_MAX = 40_000;

/** A few of the cases of each test, others each time; SLUICE_AWS_FAULTS=all: every one, which takes minutes. */
const ALL = process.env.SLUICE_AWS_FAULTS === 'all';
const SEED = Number(process.env.SLUICE_SEED ?? Math.floor(Math.random() * 2 ** 31));
const below = seededBelow(SEED);
function some<Case>(cases: readonly Case[], count: number): Case[] {
  const left = [...cases];
  if (ALL) return left;
  return Array.from({ length: Math.min(count, left.length) }, () => left.splice(below(left.length), 1)).flat();
}

const sha = (bytes: Buffer) => createHash('sha256').update(bytes).digest('hex');
const log = keptLog();

let aws: TestAws;
beforeAll(async () => {
  aws = await startAws();
});
afterAll(async () => {
  await aws[Symbol.asyncDispose]();
});

interface Way extends AsyncDisposable {
  readonly faults: HttpFaults;
  readonly dynamo: DynamoDBClient;
  readonly s3: S3Client;
  readonly sqs: SQSClient;
}

/** To the services of one kind, with clients as functions/clients.ts has them: all of it new, so that cases run side by side and none finds another's retries used up. */
async function wayTo(endpoint: string): Promise<Way> {
  const faults = await startHttpFaults(endpoint);
  const common = {
    region: 'us-east-1',
    credentials: { accessKeyId: 'test', secretAccessKey: 'test' },
    endpoint: faults.endpoint,
  };
  const [items, parts] = [clientOptions(...LIMITS.item), clientOptions(...LIMITS.part)];
  const dynamo = new DynamoDBClient({ ...common, ...items, maxAttempts: 2 });
  const s3 = new S3Client({
    ...common,
    ...parts,
    maxAttempts: 2,
    forcePathStyle: true,
    responseChecksumValidation: 'WHEN_REQUIRED',
  });
  const sqs = new SQSClient({ ...common, ...items, maxAttempts: 2, useQueueUrlAsEndpoint: false });
  return {
    faults,
    dynamo,
    s3,
    sqs,
    [Symbol.asyncDispose]: async () => {
      for (const client of [dynamo, s3, sqs]) client.destroy();
      await faults[Symbol.asyncDispose]();
    },
  };
}

/** Every case on its way, a few at a time; what one fails with says which it was. */
async function each<Case extends readonly [string, HttpFault, ...unknown[]]>(
  cases: readonly Case[],
  endpoint: string,
  work: (way: Way, fault: Case[1], rest: Case) => Promise<void>,
  at_once = 3,
): Promise<void> {
  const left = [...cases];
  const worker = async (): Promise<void> => {
    for (let next = left.shift(); next; next = left.shift()) {
      await using way = await wayTo(endpoint);
      try {
        await work(way, next[1], next);
      } catch (error) {
        throw new Error(`SLUICE_SEED=${SEED}: ${next[0]}: ${error instanceof Error ? error.message : String(error)}`, {
          cause: error,
        });
      }
    }
  };
  await Promise.all(Array.from({ length: at_once }, worker));
}

/** Faults that another attempt does not meet. */
const PASSING: readonly [string, HttpFault][] = [
  ['500', { status: 500, code: 'InternalServerError' }],
  ['500 after the work', { status: 500, code: 'InternalServerError', is_done: true }],
  ['503 SlowDown', { status: 503, code: 'SlowDown' }],
  ['a throttled table', { status: 400, code: 'ProvisionedThroughputExceededException' }],
  ['ThrottlingException', { status: 400, code: 'ThrottlingException' }],
  ['a clock of its own', { status: 403, code: 'RequestTimeTooSkewed', date_ahead_ms: 3_600_000 }],
  ['a request that is lost', 'lost_request'],
  ['an answer that is lost', 'lost_answer'],
  ['half an answer', 'half_answer'],
  ['an answer that stops', 'stalled_answer'],
  ['no answer', 'no_answer'],
  ['no answer after the work', 'silent_answer'],
];

/** And those that stay, with the error that they end in. */
const LASTING: readonly [string, HttpFault, string][] = [
  ['500', { status: 500, code: 'InternalServerError', is_done: true }, 'AWS_TRANSIENT'],
  ['throttled', { status: 400, code: 'ThrottlingException' }, 'AWS_TRANSIENT'],
  ['answers that are lost', 'lost_answer', 'AWS_TRANSIENT'],
  ['answers that stop', 'stalled_answer', 'AWS_TRANSIENT'],
  ['no answers', 'no_answer', 'AWS_TRANSIENT'],
  ['credentials that have expired', { status: 400, code: 'ExpiredTokenException' }, 'AWS_DENIED'],
  ['a right that is missing', { status: 400, code: 'AccessDeniedException' }, 'AWS_DENIED'],
];

/** Whether the call ends at all is half of the question. */
async function inTime<T>(work: Promise<T>): Promise<T> {
  const late = Promise.withResolvers<never>();
  const timer = setTimeout(() => late.reject(new Error(`no end in ${CALL_MS_MAX} ms`)), CALL_MS_MAX);
  try {
    return await Promise.race([work, late.promise]);
  } finally {
    clearTimeout(timer);
  }
}

describe('the ledger', () => {
  let pipeline = 0;
  const lease = { name: 'slot', owner: 'me', token: 1, until_ms: 2_000_000 };
  const epoch = anEpoch();
  const staged = aChunk({ staged: STAGED });

  interface Call {
    readonly operation: string;
    /** Calls before it, whole. */
    readonly given?: (ledger: Ledger) => Promise<unknown>;
    readonly act: (ledger: Ledger) => Promise<unknown>;
    /** The right answer; left out: anything. */
    readonly answer?: unknown;
    /** What is there when it has been done. */
    readonly there: (ledger: Ledger) => Promise<unknown>;
    readonly is: unknown;
  }
  const CALLS: Readonly<Record<string, Call>> = {
    takeLease: {
      operation: 'UpdateItem',
      act: (ledger) => ledger.takeLease('slot', 'me', 60_000),
      there: (ledger) => ledger.takeLease('slot', 'other', 60_000),
      is: { held_by: 'me', until_ms: 1_060_000 },
    },
    renewLease: {
      operation: 'UpdateItem',
      given: (ledger) => ledger.takeLease('slot', 'me', 60_000),
      act: (ledger) => ledger.renewLease(lease, 90_000),
      answer: true,
      there: (ledger) => ledger.takeLease('slot', 'other', 60_000),
      is: { held_by: 'me', until_ms: 1_090_000 },
    },
    append: {
      operation: 'PutItem',
      act: (ledger) => ledger.append(aCut()),
      answer: true,
      there: (ledger) => ledger.cutsAfter(-1, 10),
      is: [aCut()],
    },
    'append of one without an object': {
      operation: 'PutItem',
      act: (ledger) => ledger.append(aCut({ object: null })),
      answer: true,
      there: (ledger) => ledger.cutsAfter(-1, 10),
      is: [aCut({ object: null })],
    },
    head: {
      operation: 'Query',
      given: (ledger) => ledger.append(aCut()),
      act: (ledger) => ledger.head(),
      answer: aCut(),
      there: (ledger) => ledger.head(),
      is: aCut(),
    },
    addBookmark: {
      operation: 'PutItem',
      act: (ledger) => ledger.addBookmark(aBookmark()),
      answer: true,
      there: (ledger) => ledger.bookmarks(),
      is: [aBookmark()],
    },
    'updateBookmark, of one that is expected': {
      operation: 'UpdateItem',
      given: (ledger) => ledger.addBookmark(aBookmark()),
      act: (ledger) => ledger.updateBookmark('public.t', { applied_cut: 7 }, { captured_cut: 2, epoch: 0 }),
      answer: true,
      there: (ledger) => ledger.bookmark('public.t'),
      is: aBookmark({ applied_cut: 7 }),
    },
    openEpoch: {
      operation: 'PutItem',
      given: (ledger) => ledger.addBookmark(aBookmark()),
      act: (ledger) => ledger.openEpoch(epoch),
      answer: true,
      there: async (ledger) => [await ledger.epoch('public.t', 1), (await ledger.bookmark('public.t'))?.epoch],
      is: [epoch, 1],
    },
    'openEpoch, in its second step': {
      operation: 'UpdateItem',
      given: (ledger) => ledger.addBookmark(aBookmark()),
      act: (ledger) => ledger.openEpoch(epoch),
      answer: true,
      there: async (ledger) => [await ledger.epoch('public.t', 1), (await ledger.bookmark('public.t'))?.epoch],
      is: [epoch, 1],
    },
    updateEpoch: {
      operation: 'PutItem',
      given: async (ledger) => {
        await ledger.addBookmark(aBookmark());
        await ledger.openEpoch(epoch);
      },
      act: (ledger) => ledger.updateEpoch(anEpoch({ state: 'planned', plan: 'a', chunks: 1 }), 'opened'),
      answer: true,
      there: (ledger) => ledger.epoch('public.t', 1),
      is: anEpoch({ state: 'planned', plan: 'a', chunks: 1 }),
    },
    saveChunks: {
      operation: 'BatchWriteItem',
      act: (ledger) => ledger.saveChunks([aChunk(), aChunk({ number: 1 })]),
      there: (ledger) => ledger.chunks('public.t', 1, 'plan-1'),
      is: [aChunk(), aChunk({ number: 1 })],
    },
    stageChunk: {
      operation: 'PutItem',
      given: (ledger) => ledger.saveChunks([aChunk()]),
      act: (ledger) => ledger.stageChunk(staged),
      answer: true,
      there: (ledger) => ledger.chunk('public.t', 1, 'plan-1', 0),
      is: staged,
    },
    markChunkLoaded: {
      operation: 'UpdateItem',
      given: (ledger) => ledger.saveChunks([staged]),
      act: (ledger) => ledger.markChunkLoaded(staged),
      there: (ledger) => ledger.chunk('public.t', 1, 'plan-1', 0),
      is: { ...staged, loaded: true },
    },
    prune: {
      operation: 'BatchWriteItem',
      given: async (ledger) => {
        for (let number = 1; number < 4; number++) await ledger.append(aCut({ number, recorded_at_ms: 1 }));
      },
      act: (ledger) => ledger.prune(2, 10),
      answer: 2,
      there: (ledger) => ledger.cutsAfter(-1, 10),
      is: [aCut({ number: 3, recorded_at_ms: 1 })],
    },
    saveReport: {
      operation: 'PutItem',
      act: (ledger) => ledger.saveReport(aReport()),
      there: (ledger) => ledger.reports(2),
      is: [aReport()],
    },
  };

  const fresh = (way: Way): Ledger =>
    dynamoLedger({ client: way.dynamo, table: aws.table, pipeline: `b${++pipeline}`, clock: new HandClock() });

  describe.each(Object.entries(CALLS))('%s', (_name, { operation, given, act, answer, there, is }) => {
    test('has its answer when the fault has passed, whatever it was', async () => {
      await each(some(PASSING, 2), aws.dynamo_endpoint, async (way, fault) => {
        const ledger = fresh(way);
        await given?.(ledger);
        way.faults.break(operation, fault);
        const got = await inTime(act(ledger));
        expect(way.faults.met).toBe(1);
        if (answer !== undefined) expect(got).toEqual(answer);
        expect(await there(ledger)).toEqual(is);
      });
    });

    test('ends with an error of the catalogue while it lasts, and is right when it is called again', async () => {
      await each(some(LASTING, 1), aws.dynamo_endpoint, async (way, fault, [, , code]) => {
        const ledger = fresh(way);
        await given?.(ledger);
        way.faults.break(operation, fault, Number.POSITIVE_INFINITY);
        await expect(inTime(act(ledger))).rejects.toMatchObject({ code });
        way.faults.heal();
        const got = await inTime(act(ledger));
        // Whether it was this call or the one before that did it, who asks is told that it is done.
        if (typeof answer === 'boolean') expect(got).toBe(answer);
        expect(await there(ledger)).toEqual(is);
      });
    });
  });
});

describe('the stage', () => {
  const stageOf = (way: Way) => s3Stage({ client: way.s3, bucket: aws.bucket, log, stall_ms: STALL_MS });
  let objects = 0;
  const nextName = () => `broken/${++objects}`;
  const write = async (way: Way, object: string, bytes: Buffer): Promise<void> => {
    const writer = stageOf(way).begin(object);
    try {
      await writer.append(bytes);
      await writer.complete();
    } catch (error) {
      way.faults.heal();
      await inTime(writer.abandon());
      throw error;
    }
  };
  const read = async (way: Way, object: string, from: number, bytes: number) =>
    sha(await buffer(await stageOf(way).read(object, [from, bytes])));
  const small = randomBytes(100_000);
  const large = randomBytes(PART_BYTES_FIRST + 1_000);

  const WRITES: readonly [string, string, Buffer][] = [
    ['PutObject', 'an object of one part', small],
    ['CreateMultipartUpload', 'an object of parts', large],
    ['UploadPart', 'an object of parts', large],
    ['CompleteMultipartUpload', 'an object of parts', large],
  ];
  const DAMAGED: readonly [string, HttpFault][] = [
    ['half a request', 'half_request'],
    ['a body that S3 found to be another', { status: 400, code: 'BadDigest' }],
    ['a body that S3 found to be short', { status: 400, code: 'IncompleteBody' }],
    ['a checksum that S3 found to be wrong', { status: 400, code: 'XAmzContentChecksumMismatch' }],
  ];

  test.each(some(WRITES, 2))(
    '%s of %s: whole when the fault has passed, whatever it was',
    async (operation, _, bytes) => {
      await each([...some(PASSING, 1), ...some(DAMAGED, 1)], aws.s3_endpoint, async (way, fault) => {
        const object = nextName();
        way.faults.break(operation, fault);
        await inTime(write(way, object, bytes));
        expect(way.faults.met).toBe(1);
        expect(await read(way, object, 0, bytes.length)).toBe(sha(bytes));
      });
    },
  );

  test.each(some(WRITES, 2))(
    '%s of %s: an error while it lasts, and nothing left behind',
    async (operation, _, bytes) => {
      const names = new Set<string>();
      const damaged = DAMAGED.map(([name, fault]) => [name, fault, 'AWS_TRANSIENT'] as const);
      await each(some([...LASTING, ...damaged], 2), aws.s3_endpoint, async (way, fault, [, , code]) => {
        way.faults.break(operation, fault, Number.POSITIVE_INFINITY);
        const object = nextName();
        names.add(object);
        await expect(inTime(write(way, object, bytes))).rejects.toMatchObject({ code });
      });
      // An upload that S3 made and nobody heard of is for the bucket's own rule.
      if (operation === 'CreateMultipartUpload') return;
      const uploads = await aws.s3.send(new ListMultipartUploadsCommand({ Bucket: aws.bucket }));
      const kept = (uploads.Uploads ?? []).filter(({ Key = '' }) => names.has(Key));
      expect(kept).toEqual([]);
    },
  );

  test('GetObject: read whole when the fault has passed, in whatever byte of it', async () => {
    await using way = await wayTo(aws.s3_endpoint);
    const object = nextName();
    await write(way, object, large);
    await each(some(PASSING, 4), aws.s3_endpoint, async (way, fault) => {
      way.faults.break('GetObject', fault);
      expect(await inTime(read(way, object, 5, large.length - 5))).toBe(sha(large.subarray(5)));
      expect(way.faults.met).toBe(1);
    });
  });

  test('GetObject: an error while it lasts', async () => {
    await using way = await wayTo(aws.s3_endpoint);
    const object = nextName();
    await write(way, object, small);
    await each(some(LASTING, 2), aws.s3_endpoint, async (way, fault, [, , code]) => {
      way.faults.break('GetObject', fault, Number.POSITIVE_INFINITY);
      await expect(inTime(read(way, object, 0, small.length))).rejects.toMatchObject({ code });
    });
  });
});

describe('the doorbell', () => {
  const doorbellOf = (way: Way) =>
    sqsDoorbell({
      client: way.sqs,
      pipeline: 'shop',
      load_queue_url: aws.load_queue_url,
      extract_queue_url: aws.extract_queue_url,
      clock: new HandClock(),
    });
  /** Of one case, told from others' by their stream. */
  const bellsOf = (name: string) =>
    Array.from({ length: 12 }, (_, cut) => ({ kind: 'cuts' as const, stream: `public.${name}`, cut }));

  async function received(): Promise<string[]> {
    const bodies: string[] = [];
    for (let empty = 0; empty < 2; ) {
      const { Messages } = await aws.sqs.send(
        new ReceiveMessageCommand({ QueueUrl: aws.load_queue_url, MaxNumberOfMessages: 10 }),
      );
      empty = Messages ? 0 : empty + 1;
      for (const { Body = '', ReceiptHandle } of Messages ?? []) {
        bodies.push(Body);
        await aws.sqs.send(new DeleteMessageCommand({ QueueUrl: aws.load_queue_url, ReceiptHandle }));
      }
    }
    return bodies;
  }

  test('rings each bell once when the fault has passed, whatever it was', async () => {
    const cases = [...some(PASSING, 3), ['RequestThrottled', { status: 403, code: 'RequestThrottled' }] as const];
    await each(cases, aws.s3_endpoint, async (way, fault, [name]) => {
      way.faults.break('SendMessageBatch', fault);
      await inTime(doorbellOf(way).ringLoad(bellsOf(name)));
      expect(way.faults.met).toBe(1);
    });
    const bodies = await received();
    expect(new Set(bodies).size).toBe(12 * cases.length);
    expect(bodies).toHaveLength(12 * cases.length);
  });

  test('says so while it lasts', async () => {
    await each(some(LASTING, 2), aws.s3_endpoint, async (way, fault, [name, , code]) => {
      way.faults.break('SendMessageBatch', fault, Number.POSITIVE_INFINITY);
      await expect(inTime(doorbellOf(way).ringLoad(bellsOf(name)))).rejects.toMatchObject({ code });
    });
    await received();
  });
});

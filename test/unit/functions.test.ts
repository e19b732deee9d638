/** The Lambda edge without AWS: events, answers to doorbells, log lines, metrics, deadlines. */
import type { ChangeMessageVisibilityCommand, SQSClient } from '@aws-sdk/client-sqs';
import type { Context } from 'aws-lambda';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import * as z from 'zod';
import { answerDoorbells, doorbellEvent, retrySeconds } from '../../functions/doorbells.ts';
import { deadlineOf, edge, mustBeFor } from '../../functions/edge.ts';
import { readEnvironment } from '../../functions/environment.ts';
import { jsonLog, logLine } from '../../functions/log.ts';
import { rememberGround, windowMetrics } from '../../functions/metrics.ts';
import { asSluiceError, SluiceError } from '../../lib/errors.ts';
import { lsnOf } from '../../lib/lsn.ts';
import type { Ground, SlotRow, Source } from '../../lib/ports.ts';
import { keptLog } from '../support/ledger-nouns.ts';

const context = { awsRequestId: 'r1', getRemainingTimeInMillis: () => 50_000 } as Context;

describe('an edge', () => {
  const written: string[] = [];
  beforeEach(() => {
    written.length = 0;
    vi.spyOn(process.stdout, 'write').mockImplementation((line) => {
      written.push(String(line));
      return true;
    });
  });
  afterEach(() => {
    vi.restoreAllMocks();
  });

  const event = z.strictObject({ n: z.int() });

  test('hands on a checked event and answers with what comes back', async () => {
    const handler = edge(
      'test',
      event,
      async ({ n }, { awsRequestId }) => await Promise.resolve({ n: n + 1, awsRequestId }),
    );
    expect(await handler({ n: 1 }, context)).toEqual({ n: 2, awsRequestId: 'r1' });
    expect(written).toEqual([]);
  });

  test('answers null where that is the answer', async () => {
    const handler = edge('test', event, async () => await Promise.resolve(null));
    expect(await handler({ n: 1 }, context)).toBeNull();
  });

  test.each([[null], [{}], [{ n: '1' }], [{ n: 1, m: 2 }]])('refuses an event that is none: %j', async (given) => {
    const act = vi.fn<() => Promise<void>>();
    await expect(edge('test', event, act)(given, context)).rejects.toMatchObject({ code: 'USAGE' });
    expect(act).not.toHaveBeenCalled();
  });

  test('throws what was thrown with code, message and remedy, and logs it in one line without a stack', async () => {
    const fault = new SluiceError('STAGE_MISSING', { object: 'o', stream: 's' });
    const thrown = await edge('test', event, () => Promise.reject(fault))({ n: 1 }, context).catch(
      (error: unknown) => error,
    );
    expect(thrown).toBeInstanceOf(SluiceError);
    expect(thrown).toMatchObject({
      code: 'STAGE_MISSING',
      facts: fault.facts,
      message: `STAGE_MISSING: ${fault.message} ${fault.remedy}`,
    });
    expect((thrown as Error).stack).not.toContain('    at ');
    expect(written).toHaveLength(1);
    expect(JSON.parse(written[0] ?? '')).toMatchObject({
      level: 'error',
      event: 'invocation_failed',
      function: 'test',
      request: 'r1',
      error: { code: 'STAGE_MISSING', message: fault.message, remedy: fault.remedy },
    });
    expect(written[0]).not.toContain('    at ');
  });

  test('logs the stack of a fault that nobody thought of', async () => {
    const bug = new TypeError('x is not a function');
    const act = () => Promise.reject(bug);
    await expect(edge('test', event, act)({ n: 1 }, context)).rejects.toMatchObject({ code: 'UNEXPECTED' });
    expect(JSON.parse(written[0] ?? '')).toMatchObject({ error: { cause: { name: 'TypeError', stack: bug.stack } } });
  });

  test('refuses an event for another pipeline', () => {
    expect(() => mustBeFor('shop', { pipeline: 'shop' })).not.toThrow();
    expect(() => mustBeFor('shop', { pipeline: 'store' })).toThrow(expect.objectContaining({ code: 'USAGE' }));
  });

  test('leaves its margin before the deadline', () => {
    expect(deadlineOf(context, 30_000, 1_000_000)).toBe(1_020_000);
  });
});

describe('the time until a message comes again', () => {
  test('grows with each receive, up to a limit', () => {
    expect([1, 2, 3, 4, 5, 6, 100].map((receives) => retrySeconds(receives, 0))).toEqual([
      5, 20, 80, 320, 900, 900, 900,
    ]);
  });

  test('is spread, and never nothing', () => {
    expect(retrySeconds(1, 0.999)).toBe(3);
    expect(retrySeconds(3, 0.5)).toBe(60);
    for (let receives = 1; receives < 50; receives += 1)
      expect(retrySeconds(receives, 0.9999)).toBeGreaterThanOrEqual(1);
  });
});

describe('doorbells', () => {
  const record = (messageId: string, body: string, receives = '1') => ({
    messageId,
    receiptHandle: `h-${messageId}`,
    body,
    attributes: { ApproximateReceiveCount: receives },
  });

  function answering(send: (command: ChangeMessageVisibilityCommand) => Promise<object> = () => Promise.resolve({})) {
    const delays: object[] = [];
    const log = keptLog();
    const sqs = {
      send: (command: ChangeMessageVisibilityCommand) => {
        delays.push(command.input);
        return send(command);
      },
    } as unknown as SQSClient;
    return { delays, log, ports: { sqs, queue_url: 'q', log, random: () => 0 } };
  }

  test('that are answered are done', async () => {
    const { ports, delays } = answering();
    const bodies: string[] = [];
    const event = doorbellEvent.parse({ Records: [record('1', 'a'), record('2', 'b')] });
    const response = await answerDoorbells(ports, event, async (body) => {
      bodies.push(await Promise.resolve(body));
    });
    expect(response).toEqual({ batchItemFailures: [] });
    expect(bodies).toEqual(['a', 'b']);
    expect(delays).toEqual([]);
  });

  test('that fail come again, later each time, and do not hold up the others', async () => {
    const { ports, delays, log } = answering();
    const event = doorbellEvent.parse({ Records: [record('1', 'bad', '3'), record('2', 'good')] });
    const response = await answerDoorbells(ports, event, (body) =>
      body === 'bad' ? Promise.reject(new SluiceError('TARGET_TRANSIENT', { stream: 's' })) : Promise.resolve(),
    );
    expect(response).toEqual({ batchItemFailures: [{ itemIdentifier: '1' }] });
    expect(delays).toEqual([{ QueueUrl: 'q', ReceiptHandle: 'h-1', VisibilityTimeout: 80 }]);
    expect(log.lines).toMatchObject([
      { level: 'warn', event: 'bell_retried', facts: { receives: 3, retry_seconds: 80 } },
    ]);
  });

  test('that fail by the ground are errors in the log, and come again too', async () => {
    const { ports, log } = answering();
    const event = doorbellEvent.parse({ Records: [record('1', 'x')] });
    const fault = new SluiceError('AUTHENTICATION_FAILED', { side: 'target' });
    expect((await answerDoorbells(ports, event, () => Promise.reject(fault))).batchItemFailures).toHaveLength(1);
    expect(log.lines).toMatchObject([{ level: 'error', event: 'bell_failed', facts: { error: fault } }]);
  });

  test('that are none are said once and forgotten', async () => {
    const { ports, delays, log } = answering();
    const event = doorbellEvent.parse({ Records: [record('1', 'x')] });
    const fault = new SluiceError('BELL_INVALID', { queue: 'load', pipeline: 'p', reason: 'r' });
    expect(await answerDoorbells(ports, event, () => Promise.reject(fault))).toEqual({ batchItemFailures: [] });
    expect(delays).toEqual([]);
    expect(log.lines).toMatchObject([{ level: 'error', event: 'bell_invalid' }]);
  });

  test('that cannot be delayed come again all the same', async () => {
    const { ports, log } = answering(() => Promise.reject(Object.assign(new Error('no'), { name: 'AccessDenied' })));
    const event = doorbellEvent.parse({ Records: [record('1', 'x')] });
    const response = await answerDoorbells(ports, event, () => Promise.reject(new Error('bug')));
    expect(response.batchItemFailures).toEqual([{ itemIdentifier: '1' }]);
    expect(log.lines.map((line) => line.event)).toEqual(['bell_failed', 'bell_not_delayed']);
  });

  test.each([
    [{}],
    [{ Records: [{ messageId: '1' }] }],
    [{ Records: [record('', 'x')] }],
    [{ Records: [record('1', 'x', 'none')] }],
  ])('are no event without what is needed of them: %j', (event) => {
    expect(doorbellEvent.safeParse(event).success).toBe(false);
  });
});

describe('a log line', () => {
  test('is one JSON object with what stands in every line', () => {
    const lines: string[] = [];
    jsonLog(
      (line) => lines.push(line),
      { pipeline: 'shop' },
      () => 0,
    ).warn('zombie_ended', { pid: 7, note: 'a\nb' });
    expect(lines).toEqual([
      '{"time":"1970-01-01T00:00:00.000Z","level":"warn","event":"zombie_ended","pipeline":"shop","pid":7,"note":"a\\nb"}',
    ]);
  });

  test('keeps its own fields, whatever facts are called', () => {
    expect(JSON.parse(logLine('info', 'e', { level: 'x', event: 'y', time: 'z' }, 0))).toMatchObject({
      level: 'info',
      event: 'e',
    });
  });

  test('prints what JSON has no form for, and never throws', () => {
    const circle: Record<string, unknown> = {};
    circle.self = circle;
    expect(JSON.parse(logLine('info', 'e', { lsn: lsnOf(5n) }, 0))).toMatchObject({ lsn: '5' });
    expect(JSON.parse(logLine('info', 'e', { circle }, 0))).toMatchObject({ event: 'e', facts_unprintable: true });
    expect(JSON.parse(logLine('info', 'e', { long: 'x'.repeat(1e6) }, 0))).toMatchObject({
      event: 'e',
      facts_length: expect.any(Number),
    });
  });

  test('does nothing to a terminal, and says the same', () => {
    const note = 'a\u001b[2Jb\u009b2Jc\u202ed\u2028e\u007f\nf';
    const line = logLine('info', 'e', { note, [note]: 1 }, 0);
    // oxlint-disable-next-line no-control-regex -- these are what must not reach a terminal
    expect(line).not.toMatch(/[\u0000-\u001f\u007f-\u009f\u2028-\u202e]/u);
    expect(JSON.parse(line)).toMatchObject({ note, [note]: 1 });
  });

  test('an error of the server that nobody has thought of tells no value of a row, nor does its stack', () => {
    const server = (code: string) =>
      Object.assign(new Error('invalid input: "hunter2"\nat hunter2'), { code, severity: 'ERROR', detail: 'hunter2' });
    for (const code of ['22P02', '23514', 'P0001']) {
      const line = logLine('error', 'e', { error: asSluiceError(server(code)), raw: server(code) }, 0);
      expect(line).not.toContain('hunter2');
      expect(line).toContain(code);
      expect(line).toContain('functions.test.ts');
    }
    const ours = Object.assign(server('42P01'), { position: '15' });
    expect(logLine('error', 'e', { error: asSluiceError(ours) }, 0)).toContain('invalid input');
  });

  test('tells a known error by what a person needs, and another with its stack', () => {
    const known = new SluiceError('WINDOW_LOST', { cut: 7 }, { cause: new Error('secret') });
    const line = logLine('error', 'e', { known, other: new RangeError('r') }, 0);
    expect(line).not.toContain('secret');
    expect(JSON.parse(line)).toMatchObject({
      known: { code: 'WINDOW_LOST', message: known.message, remedy: known.remedy },
      other: { name: 'RangeError', message: 'r', stack: expect.any(String) },
    });
  });
});

describe('the environment', () => {
  const given = {
    SLUICE_CONFIG: '/var/task/pipeline.json',
    SLUICE_TABLE: 't',
    SLUICE_BUCKET: 'b',
    SLUICE_LOAD_QUEUE_URL: 'l',
    SLUICE_EXTRACT_QUEUE_URL: 'e',
    SLUICE_LEASE_MS: '960000',
    OTHER: 'x',
  };

  test('is read with its numbers', () => {
    expect(readEnvironment({ ...given, AWS_ENDPOINT_URL: '' })).toMatchObject({
      SLUICE_LEASE_MS: 960_000,
      AWS_ENDPOINT_URL: undefined,
    });
  });

  test('that lacks something says what', () => {
    const { SLUICE_TABLE: _, ...rest } = given;
    expect(() => readEnvironment({ ...rest, SLUICE_LEASE_MS: 'soon' })).toThrow(/lacks SLUICE_TABLE, SLUICE_LEASE_MS,/);
  });
});

describe('the metrics of a window', () => {
  const slot = { confirmed_lsn: lsnOf(100n), wal_status: 'reserved', safe_wal_bytes: 5_000 } as SlotRow;
  const ground = (slot: SlotRow | null) => ({ flush_lsn: lsnOf(1_100n), slot }) as Ground;
  const error = { code: 'X', message: '', remedy: '' };

  test.each([
    ['that went well', null, ground(slot), { windows_succeeded: 1, slot_lag_bytes: 1_000, safe_wal_bytes: 5_000 }],
    ['that failed', error, ground(slot), { windows_succeeded: 0, slot_lag_bytes: 1_000, safe_wal_bytes: 5_000 }],
    ['that saw nothing', error, null, { windows_succeeded: 0, slot_lag_bytes: null, safe_wal_bytes: null }],
    ['without a slot', null, ground(null), { windows_succeeded: 1, slot_lag_bytes: null, safe_wal_bytes: null }],
    [
      'without a limit',
      null,
      ground({ ...slot, safe_wal_bytes: null }),
      { windows_succeeded: 1, slot_lag_bytes: 1_000, safe_wal_bytes: null },
    ],
    [
      'with a lost slot',
      error,
      ground({ ...slot, wal_status: 'lost' }),
      { windows_succeeded: 0, slot_lag_bytes: 1_000, safe_wal_bytes: 0 },
    ],
  ])('%s', (_, error, ground, metrics) => {
    expect(windowMetrics({ error }, ground)).toEqual({ ...metrics, unfinished_windows: error === null ? 0 : null });
  });

  test('that ended inside a transaction says how many that has taken', () => {
    const unfinished = { xid: 7, changes: 9, text_bytes: 99, tables: ['public.t'], windows: 3, stalled: false };
    expect(windowMetrics({ error: null, unfinished }, ground(slot))).toMatchObject({ unfinished_windows: 3 });
  });

  test('come from its last look', async () => {
    const looks = [ground(null), ground(slot)];
    const { source, ground: last } = rememberGround({
      look: () => Promise.resolve(looks.shift()),
    } as unknown as Source);
    expect(last()).toBeNull();
    await source.look();
    await source.look();
    expect(last()?.slot).toEqual(slot);
  });
});

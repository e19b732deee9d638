import { type ChildProcess, spawn } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdir, readdir, readFile, rename } from 'node:fs/promises';
import { request } from 'node:http';
import { connect } from 'node:net';
import { networkInterfaces } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { Readable } from 'node:stream';
import { ConditionalCheckFailedException, PutItemCommand, QueryCommand } from '@aws-sdk/client-dynamodb';
import {
  AbortMultipartUploadCommand,
  CompleteMultipartUploadCommand,
  CopyObjectCommand,
  CreateMultipartUploadCommand,
  DeleteObjectCommand,
  DeleteObjectsCommand,
  GetObjectCommand,
  HeadObjectCommand,
  ListObjectsV2Command,
  NoSuchKey,
  PutObjectCommand,
  UploadPartCommand,
} from '@aws-sdk/client-s3';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { awsEnvironment } from '../../infra/local/environment.ts';
import { type Clients, clientsFor, makeResources, type Resources } from '../../infra/local/resources.ts';
import { type ServiceEndpoints, startServices } from '../../infra/local/services.ts';
import type { SluiceError } from '../../lib/errors.ts';
import { eventually, removeDirectory, scratchDirectory } from '../support/local-engine.ts';

const MB = 1024 * 1024;

interface Running {
  readonly process: ChildProcess;
  readonly endpoints: ServiceEndpoints;
  readonly clients: Clients;
  readonly resources: Resources;
}

let directory: string;
let services: Running;

async function start(): Promise<Running> {
  const script = join(import.meta.dirname, '../support/fixtures/own-services.ts');
  const process_ = spawn(process.execPath, [script, directory], { stdio: ['pipe', 'pipe', 'inherit'] });
  const lines = createInterface(process_.stdout);
  const [line] = (await once(lines, 'line')) as [string];
  const endpoints = JSON.parse(line) as ServiceEndpoints;
  const clients = clientsFor(endpoints, awsEnvironment({}));
  return { process: process_, endpoints, clients, resources: await makeResources(clients, endpoints, 'shop') };
}

async function stop(signal?: NodeJS.Signals): Promise<void> {
  for (const client of Object.values(services.clients)) client.destroy();
  if (services.process.exitCode !== null || services.process.signalCode !== null) return;
  const exit = once(services.process, 'exit');
  if (signal) services.process.kill(signal);
  else services.process.stdin?.end();
  await exit;
}

async function restart(signal?: NodeJS.Signals): Promise<void> {
  await stop(signal);
  services = await start();
}

beforeEach(async () => {
  directory = await scratchDirectory();
  services = await start();
});

afterEach(async () => {
  await stop();
  await removeDirectory(directory);
});

function where(Key: string): { Bucket: string; Key: string } {
  return { Bucket: services.resources.bucket, Key };
}

async function put(key: string, body: Buffer | string): Promise<void> {
  await services.clients.s3.send(new PutObjectCommand({ ...where(key), Body: body }));
}

async function get(key: string, range?: string): Promise<string> {
  const { Body } = await services.clients.s3.send(new GetObjectCommand({ ...where(key), Range: range }));
  return (await Body?.transformToString('latin1')) ?? '';
}

async function keys(prefix = ''): Promise<string[]> {
  const { Contents = [] } = await services.clients.s3.send(
    new ListObjectsV2Command({ Bucket: services.resources.bucket, Prefix: prefix }),
  );
  return Contents.map(({ Key }) => Key ?? '');
}

async function upload(key: string, parts: readonly Buffer[]): Promise<{ id: string; etags: string[] }> {
  const { UploadId = '' } = await services.clients.s3.send(new CreateMultipartUploadCommand(where(key)));
  const etags: string[] = [];
  for (const [index, Body] of parts.entries()) {
    const part = new UploadPartCommand({ ...where(key), UploadId, PartNumber: index + 1, Body });
    etags.push((await services.clients.s3.send(part)).ETag ?? '');
  }
  return { id: UploadId, etags };
}

async function complete(key: string, id: string, etags: readonly string[]): Promise<string> {
  const Parts = etags.map((ETag, index) => ({ ETag, PartNumber: index + 1 }));
  const command = new CompleteMultipartUploadCommand({ ...where(key), UploadId: id, MultipartUpload: { Parts } });
  return (await services.clients.s3.send(command)).ETag ?? '';
}

function stateOf(bucket: string): string {
  return join(directory, 's3/buckets', bucket);
}

describe('S3', () => {
  test('gives back what was put, whole and in ranges, with its attributes', async () => {
    const Body = Buffer.from(Array.from({ length: 1_000 }, (_, i) => i % 256));
    const { s3 } = services.clients;
    const command = new PutObjectCommand({
      ...where('cuts/1'),
      Body,
      ContentType: 'application/zstd',
      Metadata: { cut: '1' },
    });
    const { ETag } = await s3.send(command);
    expect(ETag).toBe(`"${createHash('md5').update(Body).digest('hex')}"`);
    expect(await s3.send(new HeadObjectCommand(where('cuts/1')))).toMatchObject({
      ContentLength: 1_000,
      ContentType: 'application/zstd',
      ETag,
      Metadata: { cut: '1' },
    });
    const text = Body.toString('latin1');
    expect(await get('cuts/1')).toBe(text);
    expect(await get('cuts/1', 'bytes=10-19')).toBe(text.slice(10, 20));
    expect(await get('cuts/1', 'bytes=990-5000')).toBe(text.slice(990));
    expect(await get('cuts/1', 'bytes=-10')).toBe(text.slice(-10));
    await expect(get('cuts/1', 'bytes=1000-')).rejects.toMatchObject({ name: 'InvalidRange' });
    await expect(get('cuts/2')).rejects.toBeInstanceOf(NoSuchKey);
  });

  test('takes a body of no bytes, and one that comes as a stream with its checksum behind it', async () => {
    await put('empty', '');
    expect(await get('empty')).toBe('');
    const bytes = randomBytes(3 * MB);
    const Body = Readable.from([bytes.subarray(0, 100), bytes.subarray(100, MB), bytes.subarray(MB)]);
    await services.clients.s3.send(new PutObjectCommand({ ...where('stream'), Body, ContentLength: bytes.length }));
    expect(await get('stream')).toBe(bytes.toString('latin1'));
  });

  test('refuses bytes that are not those of the checksum, and keeps none of them', async () => {
    const { s3 } = services.clients;
    const command = new PutObjectCommand({ ...where('bad'), Body: 'rows', ChecksumCRC32: 'AAAAAA==' });
    await expect(s3.send(command)).rejects.toMatchObject({ name: 'BadDigest' });
    expect(await keys()).toEqual([]);
    expect(await readdir(join(directory, 's3/staging'))).toEqual([]);
  });

  test('shows nothing of an object whose client broke off', async () => {
    const url = new URL(`${services.endpoints.s3}/${services.resources.bucket}/half`);
    const sending = request(url, { method: 'PUT', headers: { 'content-length': 2 * MB } });
    sending.on('error', () => undefined);
    sending.write(Buffer.alloc(MB));
    const staging = join(directory, 's3/staging');
    await eventually('the upload', async () => (await readdir(staging)).length === 1);
    sending.destroy();
    await eventually('the clearing', async () => (await readdir(staging)).length === 0);
    expect(await keys()).toEqual([]);
  });

  test('replaces an object, and refuses to where it is asked to', async () => {
    await put('key', 'first');
    await put('key', 'second');
    expect(await get('key')).toBe('second');
    const command = new PutObjectCommand({ ...where('key'), Body: 'third', IfNoneMatch: '*' });
    await expect(services.clients.s3.send(command)).rejects.toMatchObject({ name: 'PreconditionFailed' });
    expect(await get('key')).toBe('second');
  });

  test('keeps any two keys apart', async () => {
    const odd = [
      'a',
      'a/b',
      'a//b',
      'A',
      '../a',
      './a',
      'a/',
      '=a',
      '+a/b',
      'ü ö/é?&#%',
      'a%2Fb',
      'line\u0001feed',
      '🦔',
    ];
    for (const key of odd) await put(key, `is ${key}`);
    for (const key of odd) expect(Buffer.from(await get(key), 'latin1').toString()).toBe(`is ${key}`);
    const sorted = odd.toSorted((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
    expect(await keys()).toEqual(sorted);
    for (const key of odd) await services.clients.s3.send(new DeleteObjectCommand(where(key)));
    expect(await readdir(stateOf(services.resources.bucket))).toEqual([]);
  });

  test('lists by prefix, by delimiter, and in pages', async () => {
    for (const key of ['cuts/1', 'cuts/10', 'cuts/2', 'chunks/a/1', 'chunks/a/2', 'chunks/b/1', 'top'])
      await put(key, key);
    expect(await keys('cuts/1')).toEqual(['cuts/1', 'cuts/10']);
    const Bucket = services.resources.bucket;
    const { Contents, CommonPrefixes } = await services.clients.s3.send(
      new ListObjectsV2Command({ Bucket, Prefix: 'chunks/', Delimiter: '/' }),
    );
    expect(Contents).toBeUndefined();
    expect(CommonPrefixes).toEqual([{ Prefix: 'chunks/a/' }, { Prefix: 'chunks/b/' }]);
    const pages: string[][] = [];
    let ContinuationToken: string | undefined;
    do {
      const page = await services.clients.s3.send(new ListObjectsV2Command({ Bucket, MaxKeys: 3, ContinuationToken }));
      pages.push((page.Contents ?? []).map(({ Key }) => Key ?? ''));
      ContinuationToken = page.NextContinuationToken;
    } while (ContinuationToken !== undefined);
    expect(pages).toEqual([['chunks/a/1', 'chunks/a/2', 'chunks/b/1'], ['cuts/1', 'cuts/10', 'cuts/2'], ['top']]);
  });

  test('deletes several keys at once, there or not', async () => {
    await put('a', '1');
    await put('b', '2');
    const Delete = { Objects: [{ Key: 'a' }, { Key: 'absent' }] };
    const answer = await services.clients.s3.send(
      new DeleteObjectsCommand({ Bucket: services.resources.bucket, Delete }),
    );
    expect(answer.Deleted).toEqual([{ Key: 'a' }, { Key: 'absent' }]);
    expect(await keys()).toEqual(['b']);
  });

  test('joins parts, reads ranges across them, and says the same when asked again', async () => {
    const parts = [randomBytes(5 * MB), randomBytes(5 * MB), randomBytes(1000)];
    const { id, etags } = await upload('big', parts);
    expect(await keys()).toEqual([]);
    const etag = await complete('big', id, etags);
    expect(etag).toMatch(/^"[0-9a-f]{32}-3"$/);
    expect(await complete('big', id, etags)).toBe(etag);
    const text = Buffer.concat(parts).toString('latin1');
    expect(await get('big')).toBe(text);
    expect(await get('big', `bytes=${5 * MB - 3}-${10 * MB + 2}`)).toBe(text.slice(5 * MB - 3, 10 * MB + 3));
    expect(await get('big', 'bytes=-1001')).toBe(text.slice(-1001));
  });

  test('refuses parts that are missing, too small or out of order, and forgets an upload that is given up', async () => {
    const { id, etags } = await upload('big', [randomBytes(1000), randomBytes(1000)]);
    await expect(complete('big', id, etags)).rejects.toMatchObject({ name: 'EntityTooSmall' });
    await expect(complete('big', id, ['"0"'])).rejects.toMatchObject({ name: 'InvalidPart' });
    await services.clients.s3.send(new AbortMultipartUploadCommand({ ...where('big'), UploadId: id }));
    await expect(complete('big', id, etags)).rejects.toMatchObject({ name: 'NoSuchUpload' });
    expect(await readdir(join(directory, 's3/staging'))).toEqual([]);
  });

  test('refuses what it does not do', async () => {
    await put('a', '1');
    const copy = new CopyObjectCommand({ ...where('b'), CopySource: `${services.resources.bucket}/a` });
    await expect(services.clients.s3.send(copy)).rejects.toMatchObject({ name: 'NotImplemented' });
    expect(await keys()).toEqual(['a']);
  });

  test('has after SIGKILL what it answered, and nothing else', async () => {
    await put('whole', 'rows');
    const { id, etags } = await upload('joined', [randomBytes(5 * MB), randomBytes(10)]);
    await complete('joined', id, etags);
    await upload('open', [randomBytes(5 * MB)]);
    await restart('SIGKILL');
    expect(await keys()).toEqual(['joined', 'whole']);
    expect(await get('whole')).toBe('rows');
    expect(await readdir(join(directory, 's3/staging'))).toEqual([]);
  });

  test('puts an object back whose replacement was cut short', async () => {
    await put('key', 'first');
    await stop('SIGKILL');
    const replaced = join(directory, 's3/staging/1.replaced');
    await mkdir(join(directory, 's3/staging'), { recursive: true });
    await rename(join(stateOf(services.resources.bucket), '=key'), replaced);
    services = await start();
    expect(await get('key')).toBe('first');
    expect(await readdir(join(directory, 's3/staging'))).toEqual([]);
  });

  test.runIf(process.platform === 'linux')('does not grow with objects (I8)', async () => {
    const part = randomBytes(8 * MB);
    const before_kb = await peakKb();
    const { id, etags } = await upload(
      'big',
      Array.from({ length: 25 }, () => part),
    );
    await complete('big', id, etags);
    expect(await get('big', 'bytes=100-1099')).toBe(part.toString('latin1', 100, 1100));
    const { Body } = await services.clients.s3.send(new GetObjectCommand(where('big')));
    let bytes = 0;
    for await (const piece of Body as Readable) bytes += (piece as Buffer).length;
    expect(bytes).toBe(200 * MB);
    expect((await peakKb()) - before_kb).toBeLessThan(64 * 1024);
  });

  async function peakKb(): Promise<number> {
    const status = await readFile(`/proc/${services.process.pid}/status`, 'utf8');
    return Number(/^VmHWM:\s*(\d+)/m.exec(status)?.[1]);
  }
});

describe('DynamoDB', () => {
  const cut = (n: number, writer: string): PutItemCommand =>
    new PutItemCommand({
      TableName: services.resources.table,
      Item: { pk: { S: 'chain' }, sk: { S: String(n).padStart(6, '0') }, writer: { S: writer } },
      ConditionExpression: 'attribute_not_exists(pk)',
    });

  async function chain(): Promise<string[]> {
    const { Items = [] } = await services.clients.dynamodb.send(
      new QueryCommand({
        TableName: services.resources.table,
        KeyConditionExpression: 'pk = :pk',
        ExpressionAttributeValues: { ':pk': { S: 'chain' } },
        ConsistentRead: true,
      }),
    );
    return Items.map(({ sk }) => String(Number(sk?.S)));
  }

  test('lets one of many racing writers win (I2)', async () => {
    const { dynamodb } = services.clients;
    const answers = await Promise.allSettled(
      Array.from({ length: 20 }, (_, i) => dynamodb.send(cut(1, `writer ${i}`))),
    );
    const lost = answers.filter((answer) => answer.status === 'rejected');
    expect(lost).toHaveLength(19);
    for (const { reason } of lost) expect(reason).toBeInstanceOf(ConditionalCheckFailedException);
  });

  test('has after SIGKILL every write that it answered', async () => {
    const answered: string[] = [];
    const { dynamodb } = services.clients;
    const writing = (async () => {
      for (let n = 1; ; n++) {
        await dynamodb.send(cut(n, 'w'));
        answered.push(String(n));
        if (n === 60) services.process.kill('SIGKILL');
      }
    })();
    await expect(writing).rejects.toThrow();
    await restart();
    const found = await chain();
    expect(found.slice(0, answered.length)).toEqual(answered);
    expect(found.length - answered.length).toBeLessThanOrEqual(1);
  });

  test('goes on when a client breaks off in the middle of a request', async () => {
    const { hostname, port } = new URL(services.endpoints.dynamodb);
    const socket = connect(Number(port), hostname);
    await once(socket, 'connect');
    socket.write(
      'POST / HTTP/1.1\r\nhost: x\r\nx-amz-target: DynamoDB_20120810.PutItem\r\ncontent-length: 1000\r\n\r\n{"half',
    );
    await new Promise((done) => setTimeout(done, 100));
    socket.resetAndDestroy();
    await services.clients.dynamodb.send(cut(1, 'w'));
    expect(await chain()).toEqual(['1']);
  });

  test('keeps its table over a stop', async () => {
    await services.clients.dynamodb.send(cut(1, 'w'));
    await restart();
    expect(await chain()).toEqual(['1']);
  });
});

test('a server that cannot go on is told of, and takes nobody with it', async () => {
  const ends: SluiceError[] = [];
  // LevelDB lets one process at a time into its directory: the second finds out with its first request.
  const second = await startServices({ directory, onError: () => undefined, onEnd: (error) => ends.push(error) });
  const clients = clientsFor(second.endpoints, awsEnvironment({}));
  const put = new PutItemCommand({ TableName: 'any', Item: { pk: { S: 'a' } } });
  await expect(clients.dynamodb.send(put)).rejects.toThrow();
  await eventually('the end', () => ends.length === 1);
  expect(ends[0]).toMatchObject({ code: 'LOCAL_ENGINE_FAILED' });
  await second.stop();
  clients.dynamodb.destroy();
});

test('nothing listens but on loopback', async () => {
  const outside = Object.values(networkInterfaces())
    .flat()
    .find((address) => address?.family === 'IPv4' && !address.internal);
  for (const endpoint of Object.values(services.endpoints)) {
    expect(new URL(endpoint).hostname).toBe('127.0.0.1');
    if (outside === undefined) continue;
    const socket = connect(Number(new URL(endpoint).port), outside.address);
    const [error] = (await once(socket, 'error')) as [NodeJS.ErrnoException];
    expect(error.code).toBe('ECONNREFUSED');
  }
});

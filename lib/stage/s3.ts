/**
 * The stage in S3: objects written in parts as they fill, read by ranges.
 *
 * On the path it takes what the cut and the chunks encode, and gives it to the loaders. An object exists when `complete` has resolved, and
 * then it is durable (I1). Memory is bounded by the part that fills and the parts in flight, whatever the object's size (I8).
 */
import { Readable } from 'node:stream';
import {
  AbortMultipartUploadCommand,
  CompleteMultipartUploadCommand,
  CreateMultipartUploadCommand,
  GetObjectCommand,
  HeadObjectCommand,
  PutObjectCommand,
  type S3Client,
  UploadPartCommand,
} from '@aws-sdk/client-s3';
import { awsFault, isDamagedRequest } from '../aws-faults.ts';
import { SluiceError } from '../errors.ts';
import type { Log, Stage, StageWriter } from '../ports.ts';
import { PARTS_MAX, PARTS_TOTAL_BYTES_MAX, PendingParts } from './parts.ts';
import { resumingReadable } from './resume.ts';
import type { ByteRange } from './segment.ts';

/** Parts that are on their way at once: the next one fills meanwhile. */
const PARTS_IN_FLIGHT_MAX = 2;
/** Of a body that S3 says was changed or cut on its way. */
const SENDS_MAX = 3;

export interface S3StageOptions {
  readonly client: S3Client;
  readonly bucket: string;
  readonly log: Log;
  /** ResumingOptions. */
  readonly stall_ms?: number;
}

/** The `Stage` port over one bucket. Object names are keys as they are. */
export function s3Stage(options: S3StageOptions): Stage {
  return {
    begin: (object) => new S3Writer(options, object),
    read: async (object, range) => await readRange(options, object, range),
  };
}

interface UploadedPart {
  readonly PartNumber: number;
  readonly ETag: string | undefined;
  readonly ChecksumCRC32: string | undefined;
}

class S3Writer implements StageWriter {
  readonly object: string;
  readonly #options: S3StageOptions;
  readonly #pending = new PendingParts();
  readonly #inFlight = new Set<Promise<void>>();
  readonly #uploaded: UploadedPart[] = [];
  readonly #abort = new AbortController();
  #bytes = 0;
  #upload: string | null = null;
  /** The first failure of a part: what comes after it is in vain. */
  #failure: SluiceError | null = null;
  #state: 'open' | 'complete' | 'abandoned' = 'open';

  constructor(options: S3StageOptions, object: string) {
    this.#options = options;
    this.object = object;
  }

  get bytes(): number {
    return this.#bytes;
  }

  async append(bytes: Buffer): Promise<void> {
    this.#mustBeOpen();
    this.#bytes += bytes.length;
    this.#pending.push(bytes);
    // A full part stays until a byte follows it, so that an object of one part is one PutObject.
    for (let part = this.#pending.full(); part !== null; part = this.#pending.full()) await this.#send(part);
  }

  async complete(): Promise<void> {
    this.#mustBeOpen();
    if (this.#upload === null) {
      const Body = this.#pending.rest();
      await this.#call('PutObject', (Bucket, Key, options) =>
        this.#options.client.send(new PutObjectCommand({ Bucket, Key, Body }), options),
      );
    } else {
      await this.#send(this.#pending.rest());
      await Promise.all(this.#inFlight);
      if (this.#failure) throw this.#failure;
      await this.#completeUpload(this.#upload);
    }
    this.#state = 'complete';
  }

  async abandon(): Promise<void> {
    if (this.#state !== 'open') return;
    this.#state = 'abandoned';
    this.#abort.abort();
    await Promise.all(this.#inFlight);
    if (this.#upload === null) return;
    const { client, bucket, log } = this.#options;
    try {
      await client.send(new AbortMultipartUploadCommand({ Bucket: bucket, Key: this.object, UploadId: this.#upload }));
    } catch (error) {
      if (error instanceof Error && error.name === 'NoSuchUpload') return;
      const fault = awsFault('S3', 'AbortMultipartUpload', error);
      log.warn('stage_abandon_failed', { object: this.object, code: fault.code, message: fault.message });
    }
  }

  #mustBeOpen(): void {
    if (this.#state !== 'open') throw new RangeError(`object ${this.object} is ${this.#state}`);
    if (this.#failure) throw this.#failure;
  }

  /** Starts the upload of one part; resolves when there is room for the next. */
  async #send(part: Buffer): Promise<void> {
    const number = this.#pending.taken;
    if (number > PARTS_MAX) {
      throw new SluiceError('STAGE_FULL', { object: this.object, bytes_max: PARTS_TOTAL_BYTES_MAX });
    }
    this.#upload ??= await this.#createUpload();
    const sending = this.#uploadPart(this.#upload, number, part).catch((error: unknown) => {
      this.#failure ??= awsFault('S3', 'UploadPart', error);
    });
    this.#inFlight.add(sending);
    void sending.then(() => this.#inFlight.delete(sending));
    while (this.#inFlight.size >= PARTS_IN_FLIGHT_MAX) await Promise.race(this.#inFlight);
    if (this.#failure) throw this.#failure;
  }

  async #createUpload(): Promise<string> {
    const answer = await this.#call('CreateMultipartUpload', (Bucket, Key, options) =>
      this.#options.client.send(new CreateMultipartUploadCommand({ Bucket, Key, ChecksumAlgorithm: 'CRC32' }), options),
    );
    if (!answer.UploadId) throw new SluiceError('UNEXPECTED', { reason: 'S3 names no upload id' });
    return answer.UploadId;
  }

  async #uploadPart(upload: string, number: number, part: Buffer): Promise<void> {
    const answer = await this.#call('UploadPart', (Bucket, Key, options) =>
      this.#options.client.send(
        new UploadPartCommand({
          Bucket,
          Key,
          UploadId: upload,
          PartNumber: number,
          Body: part,
          ChecksumAlgorithm: 'CRC32',
        }),
        options,
      ),
    );
    this.#uploaded.push({ PartNumber: number, ETag: answer.ETag, ChecksumCRC32: answer.ChecksumCRC32 });
  }

  async #completeUpload(upload: string): Promise<void> {
    const Parts = this.#uploaded.sort((a, b) => a.PartNumber - b.PartNumber);
    await this.#call('CompleteMultipartUpload', async (Bucket, Key, options) => {
      const command = new CompleteMultipartUploadCommand({
        Bucket,
        Key,
        UploadId: upload,
        MultipartUpload: { Parts },
      });
      try {
        await this.#options.client.send(command, options);
      } catch (error) {
        // Done, and the answer lost: the SDK's next attempt finds no upload any more. The name is ours alone, so the object tells.
        if (!(error instanceof Error && error.name === 'NoSuchUpload' && (await this.#exists()))) throw error;
      }
    });
  }

  async #exists(): Promise<boolean> {
    const answer = await this.#call('HeadObject', (Bucket, Key, options) =>
      this.#options.client.send(new HeadObjectCommand({ Bucket, Key }), options),
    );
    return answer.ContentLength === this.#bytes;
  }

  async #call<T>(
    operation: string,
    send: (bucket: string, key: string, options: { abortSignal: AbortSignal }) => Promise<T>,
  ): Promise<T> {
    for (let attempt = 1; ; attempt += 1) {
      try {
        return await send(this.#options.bucket, this.object, { abortSignal: this.#abort.signal });
      } catch (error) {
        if (attempt < SENDS_MAX && isDamagedRequest(error)) continue;
        throw awsFault('S3', operation, error);
      }
    }
  }
}

async function readRange(options: S3StageOptions, object: string, range: ByteRange): Promise<Readable> {
  const [offset, bytes] = range;
  if (bytes === 0) return Readable.from([]);
  const open = async (skip: number, signal: AbortSignal): Promise<Readable> => {
    try {
      const answer = await options.client.send(
        new GetObjectCommand({
          Bucket: options.bucket,
          Key: object,
          Range: `bytes=${offset + skip}-${offset + bytes - 1}`,
        }),
        { abortSignal: signal },
      );
      if (!(answer.Body instanceof Readable))
        throw new SluiceError('UNEXPECTED', { reason: 'S3 answers without a body' });
      return answer.Body;
    } catch (error) {
      throw readFault(object, error);
    }
  };
  const { log, stall_ms } = options;
  return await resumingReadable({ open, bytes, object, log, ...(stall_ms !== undefined && { stall_ms }) });
}

function readFault(object: string, error: unknown): SluiceError {
  const name = error instanceof Error ? error.name : '';
  if (name === 'NoSuchKey' || name === 'NotFound') return new SluiceError('STAGE_MISSING', { object });
  if (name === 'InvalidRange')
    return new SluiceError('STAGE_CORRUPT', { object, reason: 'it is shorter than the ledger says' });
  return awsFault('S3', 'GetObject', error);
}

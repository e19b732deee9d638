/**
 * Buckets, objects and uploads on disk. Memory does not grow with objects (I8): bodies go to files as they come, and a multipart object stays in
 * the parts it came in.
 *
 *     buckets/<bucket>/+…/=<name>/object.json   what the object is: size, ETag, its files in order
 *     buckets/<bucket>/+…/=<name>/1, 2, …       its bytes
 *     staging/<id>/                             what is being written, or was replaced
 *
 * An object exists when its directory has been renamed into place, with everything in it synced: a death at any moment leaves it whole or absent.
 * Renames are synchronous, so that no request sees the moment between two of them. One process at a time opens a directory.
 */
import { createHash, randomUUID } from 'node:crypto';
import { createReadStream, existsSync, mkdirSync, readdirSync, renameSync, rmdirSync } from 'node:fs';
import { mkdir, open, readdir, readFile, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import * as z from 'zod';
import { privateDirectory } from '../state.ts';
import { S3Fault } from './fault.ts';
import { keyPieceOf, placeOf } from './places.ts';

const ObjectFile = z.object({
  bucket: z.string(),
  key: z.string(),
  bytes: z.number().int(),
  etag: z.string(),
  modified_at_ms: z.number().int(),
  content_type: z.string(),
  metadata: z.record(z.string(), z.string()),
  files: z.array(z.object({ name: z.string(), bytes: z.number().int() })),
});
export type StoredObject = z.infer<typeof ObjectFile>;
export type ObjectAttributes = Pick<StoredObject, 'content_type' | 'metadata'>;

export interface Part {
  readonly number: number;
  readonly etag: string;
}

interface StagedFile {
  readonly name: string;
  readonly bytes: number;
  /** MD5, as S3's ETag is made of it. */
  readonly md5: Buffer;
}

interface Upload {
  readonly bucket: string;
  readonly key: string;
  readonly attributes: ObjectAttributes;
  readonly directory: string;
  readonly parts: Map<number, StagedFile>;
}

/** https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html */
export const PART_NUMBER_MAX = 10_000;
const PART_BYTES_MIN = 5 * 1024 * 1024;
/** Completed uploads that are remembered, for clients that ask twice. */
const COMPLETED_MAX = 100;
const OBJECT_FILE = 'object.json';
const BUCKET_NAME = /^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$/;
const READ_BYTES = 256 * 1024;

export class S3Store {
  readonly #buckets: string;
  readonly #staging: string;
  readonly #uploads = new Map<string, Upload>();
  readonly #completed = new Map<string, StoredObject>();

  private constructor(directory: string) {
    this.#buckets = join(directory, 'buckets');
    this.#staging = join(directory, 'staging');
  }

  /** Opens what is there; finishes replacements that a death has interrupted, and drops what was not finished: its writers are dead too. */
  static async open(directory: string): Promise<S3Store> {
    const store = new S3Store(directory);
    await privateDirectory(directory);
    for (const made of [store.#buckets, store.#staging]) await mkdir(made, { recursive: true });
    for (const left of await readdir(store.#staging)) {
      const path = join(store.#staging, left);
      if (left.endsWith('.replaced')) {
        const { bucket, key } = await readObjectFile(path);
        if (!existsSync(store.#path(bucket, key))) renameSync(path, store.#path(bucket, key));
      }
      await rm(path, { recursive: true, force: true });
    }
    return store;
  }

  buckets(): string[] {
    return readdirSync(this.#buckets).sort();
  }

  createBucket(bucket: string): void {
    if (!BUCKET_NAME.test(bucket)) throw new S3Fault('InvalidBucketName', 'The specified bucket is not valid.');
    mkdirSync(join(this.#buckets, bucket), { recursive: true });
  }

  deleteBucket(bucket: string): void {
    this.mustHave(bucket);
    try {
      rmdirSync(join(this.#buckets, bucket));
    } catch (thrown) {
      if ((thrown as NodeJS.ErrnoException).code !== 'ENOTEMPTY') throw thrown;
      throw new S3Fault('BucketNotEmpty', 'The bucket you tried to delete is not empty.');
    }
  }

  mustHave(bucket: string): void {
    if (!BUCKET_NAME.test(bucket) || !existsSync(join(this.#buckets, bucket))) {
      throw new S3Fault('NoSuchBucket', 'The specified bucket does not exist.');
    }
  }

  /** NoSuchKey where there is none. */
  async head(bucket: string, key: string): Promise<StoredObject> {
    this.mustHave(bucket);
    try {
      return await readObjectFile(this.#path(bucket, key));
    } catch (thrown) {
      if ((thrown as NodeJS.ErrnoException).code !== 'ENOENT') throw thrown;
      throw new S3Fault('NoSuchKey', 'The specified key does not exist.');
    }
  }

  /** The object's bytes from `start` to `end`, both inclusive. */
  async *read(object: StoredObject, start: number, end: number): AsyncGenerator<Buffer> {
    const directory = this.#path(object.bucket, object.key);
    let offset = 0;
    for (const file of object.files) {
      const [first, last] = [Math.max(start - offset, 0), Math.min(end - offset, file.bytes - 1)];
      if (first <= last)
        yield* createReadStream(join(directory, file.name), { start: first, end: last, highWaterMark: READ_BYTES });
      offset += file.bytes;
    }
  }

  async put(
    bucket: string,
    key: string,
    attributes: ObjectAttributes,
    onlyIfAbsent: boolean,
    body: AsyncIterable<Buffer>,
  ): Promise<StoredObject> {
    this.mustHave(bucket);
    const directory = await this.#stage(randomUUID());
    try {
      const file = await writeSynced(directory, '1', body);
      return await this.#publish(
        directory,
        { bucket, key, ...attributes, etag: file.md5.toString('hex') },
        [file],
        onlyIfAbsent,
      );
    } catch (thrown) {
      await rm(directory, { recursive: true, force: true });
      throw thrown;
    }
  }

  /** Deleting what is not there succeeds, as in S3. */
  async delete(bucket: string, key: string): Promise<void> {
    this.mustHave(bucket);
    const path = this.#path(bucket, key);
    if (!existsSync(path)) return;
    const trash = join(this.#staging, randomUUID());
    renameSync(path, trash);
    this.#removeEmpty(dirname(path), join(this.#buckets, bucket));
    await rm(trash, { recursive: true, force: true });
  }

  /** Every key that begins with `prefix`, in the order of its UTF-8 bytes. */
  keys(bucket: string, prefix: string): string[] {
    this.mustHave(bucket);
    const keys: string[] = [];
    const walk = (directory: string, key: string): void => {
      for (const name of readdirSync(directory)) {
        const piece = keyPieceOf(name);
        if (piece === null) continue;
        const whole = key + piece;
        if (name.startsWith('=')) {
          if (whole.startsWith(prefix)) keys.push(whole);
        } else if (whole.startsWith(prefix) || prefix.startsWith(whole)) {
          walk(join(directory, name), whole);
        }
      }
    };
    walk(join(this.#buckets, bucket), '');
    return keys.sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
  }

  async createUpload(bucket: string, key: string, attributes: ObjectAttributes): Promise<string> {
    this.mustHave(bucket);
    placeOf(key);
    const id = randomUUID();
    this.#uploads.set(id, { bucket, key, attributes, directory: await this.#stage(id), parts: new Map() });
    return id;
  }

  /** Writes a part, over an earlier one of the same number; returns its ETag. */
  async putPart(id: string, bucket: string, key: string, number: number, body: AsyncIterable<Buffer>): Promise<string> {
    const upload = this.#upload(id, bucket, key);
    const name = `${number}.${randomUUID()}`;
    try {
      const file = await writeSynced(upload.directory, name, body);
      const before = upload.parts.get(number);
      upload.parts.set(number, file);
      if (before) await rm(join(upload.directory, before.name));
      return file.md5.toString('hex');
    } catch (thrown) {
      await rm(join(upload.directory, name), { force: true });
      throw thrown;
    }
  }

  /** Asked again for an upload that it has completed, it answers the same: a client whose first answer was lost must not take it for a failure. */
  async completeUpload(
    id: string,
    bucket: string,
    key: string,
    parts: readonly Part[],
    onlyIfAbsent: boolean,
  ): Promise<StoredObject> {
    const done = this.#completed.get(id);
    if (done?.bucket === bucket && done.key === key) return done;
    const upload = this.#upload(id, bucket, key);
    const files = chosenFiles(upload, parts);
    const kept = new Set(files.map((file) => file.name));
    for (const { name } of upload.parts.values())
      if (!kept.has(name)) await rm(join(upload.directory, name), { force: true });
    const md5 = createHash('md5').update(Buffer.concat(files.map((file) => file.md5)));
    const etag = `${md5.digest('hex')}-${files.length}`;
    const object = await this.#publish(
      upload.directory,
      { bucket, key, ...upload.attributes, etag },
      files,
      onlyIfAbsent,
    );
    this.#uploads.delete(id);
    this.#completed.set(id, object);
    const [oldest] = this.#completed.keys();
    if (this.#completed.size > COMPLETED_MAX && oldest !== undefined) this.#completed.delete(oldest);
    return object;
  }

  async abortUpload(id: string, bucket: string, key: string): Promise<void> {
    const upload = this.#upload(id, bucket, key);
    this.#uploads.delete(id);
    await rm(upload.directory, { recursive: true, force: true });
  }

  #path(bucket: string, key: string): string {
    return join(this.#buckets, bucket, ...placeOf(key));
  }

  #upload(id: string, bucket: string, key: string): Upload {
    const upload = this.#uploads.get(id);
    if (upload?.bucket !== bucket || upload.key !== key)
      throw new S3Fault('NoSuchUpload', 'The specified upload does not exist.');
    return upload;
  }

  async #stage(id: string): Promise<string> {
    const directory = join(this.#staging, id);
    await mkdir(directory);
    return directory;
  }

  /** Renames a staged directory to where its key belongs. What was there before is moved aside first and back if this does not come to its end. */
  async #publish(
    directory: string,
    about: Omit<StoredObject, 'bytes' | 'files' | 'modified_at_ms'>,
    files: readonly StagedFile[],
    onlyIfAbsent: boolean,
  ): Promise<StoredObject> {
    const object: StoredObject = {
      ...about,
      bytes: files.reduce((sum, file) => sum + file.bytes, 0),
      modified_at_ms: Date.now(),
      files: files.map(({ name, bytes }) => ({ name, bytes })),
    };
    await writeSynced(directory, OBJECT_FILE, [Buffer.from(JSON.stringify(object))]);
    await syncDirectory(directory);
    const path = this.#path(about.bucket, about.key);
    const replaced = join(this.#staging, `${randomUUID()}.replaced`);
    this.mustHave(about.bucket);
    const replaces = existsSync(path);
    if (replaces && onlyIfAbsent) throw new S3Fault('PreconditionFailed', 'The key has an object already.');
    const firstMade = mkdirSync(dirname(path), { recursive: true });
    if (replaces) renameSync(path, replaced);
    renameSync(directory, path);
    const top = dirname(firstMade ?? path);
    for (let changed = dirname(path); ; changed = dirname(changed)) {
      await syncDirectory(changed);
      if (changed === top) break;
    }
    if (replaces) await rm(replaced, { recursive: true, force: true });
    return object;
  }

  #removeEmpty(from: string, bucket: string): void {
    for (let directory = from; directory !== bucket; directory = dirname(directory)) {
      if (readdirSync(directory).length > 0) return;
      rmdirSync(directory);
    }
  }
}

/** The parts that the client names, in its order; each must be what was uploaded, and only the last may be small. */
function chosenFiles(upload: Upload, parts: readonly Part[]): StagedFile[] {
  if (parts.length === 0) throw new S3Fault('MalformedXML', 'You must specify at least one part.');
  return parts.map(({ number, etag }, index) => {
    const file = upload.parts.get(number);
    if (file === undefined || file.md5.toString('hex') !== etag)
      throw new S3Fault('InvalidPart', `Part ${number} was not uploaded, or is another.`);
    if (number <= (parts[index - 1]?.number ?? 0))
      throw new S3Fault('InvalidPartOrder', 'The list of parts was not in ascending order.');
    if (index < parts.length - 1 && file.bytes < PART_BYTES_MIN)
      throw new S3Fault('EntityTooSmall', `Part ${number} is smaller than the minimum.`);
    return file;
  });
}

async function writeSynced(
  directory: string,
  name: string,
  body: AsyncIterable<Buffer> | Iterable<Buffer>,
): Promise<StagedFile> {
  const md5 = createHash('md5');
  let bytes = 0;
  const file = await open(join(directory, name), 'wx');
  try {
    for await (const piece of body) {
      md5.update(piece);
      bytes += piece.length;
      for (let written = 0; written < piece.length; ) written += (await file.write(piece, written)).bytesWritten;
    }
    await file.datasync();
  } finally {
    await file.close();
  }
  return { name, bytes, md5: md5.digest() };
}

async function syncDirectory(path: string): Promise<void> {
  const directory = await open(path, 'r').catch((thrown: NodeJS.ErrnoException) => {
    if (thrown.code === 'ENOENT') return null; // removed again meanwhile: nothing to make durable
    throw thrown;
  });
  await directory?.sync();
  await directory?.close();
}

async function readObjectFile(directory: string): Promise<StoredObject> {
  return ObjectFile.parse(JSON.parse(await readFile(join(directory, OBJECT_FILE), 'utf8')));
}

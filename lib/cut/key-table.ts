/**
 * A hash table from a key's bytes to a number, 0, 1, 2 … in the order of first sight. Keys are compared as the bytes of their COPY text, which is
 * unambiguous (a tab within a value is escaped): composite keys cannot collide. No strings, no objects: three typed arrays and one buffer.
 */
const BUCKETS_MIN = 64;
const KEY_BYTES_MIN = 1024;
/** Keys get longer as they count up. */
const KEY_BYTES_SPARE = 1.125;

export class KeyTable {
  #buckets: Int32Array;
  #hashes: Int32Array;
  /** Where each key ends in `#keys`; it begins where the one before ends. */
  #ends: Int32Array;
  #keys: Buffer;
  #size = 0;

  /** Room for so many keys of so many bytes: what is more makes it grow. */
  constructor(expected: Pick<KeyTable, 'size' | 'keyBytes'> = { size: 0, keyBytes: 0 }) {
    const entries = Math.max(BUCKETS_MIN / 2, 2 ** Math.ceil(Math.log2(expected.size + 1)));
    this.#buckets = new Int32Array(entries * 2).fill(-1);
    this.#hashes = new Int32Array(entries);
    this.#ends = new Int32Array(entries);
    this.#keys = Buffer.allocUnsafeSlow(Math.max(KEY_BYTES_MIN, Math.ceil(expected.keyBytes * KEY_BYTES_SPARE)));
  }

  /** Entries that it has room for. */
  get room(): number {
    return this.#hashes.length;
  }

  get size(): number {
    return this.#size;
  }

  get keyBytes(): number {
    return this.#size === 0 ? 0 : (this.#ends[this.#size - 1] as number);
  }

  /** Buffer that holds the keys; valid until the next `add`. */
  get keys(): Buffer {
    return this.#keys;
  }

  keyStart(index: number): number {
    return index === 0 ? 0 : (this.#ends[index - 1] as number);
  }

  keyEnd(index: number): number {
    return this.#ends[index] as number;
  }

  /** Index of the key `bytes[start, end)`; -1: not there. */
  find(bytes: Buffer, start: number, end: number): number {
    return this.#find(hash(bytes, start, end), bytes, start, end);
  }

  /** Index of the key, which is taken in if it is new: then the index is the former size. */
  add(bytes: Buffer, start: number, end: number): number {
    const keyHash = hash(bytes, start, end);
    const found = this.#find(keyHash, bytes, start, end);
    if (found >= 0) return found;
    const index = this.#size;
    if (index === this.#hashes.length) this.#growEntries();
    const at = this.keyBytes;
    if (at + (end - start) > this.#keys.length) this.#growKeys(at, at + (end - start));
    bytes.copy(this.#keys, at, start, end);
    this.#hashes[index] = keyHash;
    this.#ends[index] = at + (end - start);
    this.#size = index + 1;
    this.#place(keyHash, index);
    return index;
  }

  #find(keyHash: number, bytes: Buffer, start: number, end: number): number {
    const mask = this.#buckets.length - 1;
    let bucket = keyHash & mask;
    for (;;) {
      const index = this.#buckets[bucket] as number;
      if (index < 0) return -1;
      if (this.#hashes[index] === keyHash && this.#equals(index, bytes, start, end)) return index;
      bucket = (bucket + 1) & mask;
    }
  }

  #equals(index: number, bytes: Buffer, start: number, end: number): boolean {
    const keyStart = this.keyStart(index);
    const length = end - start;
    if ((this.#ends[index] as number) - keyStart !== length) return false;
    for (let i = 0; i < length; i++) {
      if (this.#keys[keyStart + i] !== bytes[start + i]) return false;
    }
    return true;
  }

  #place(keyHash: number, index: number): void {
    const mask = this.#buckets.length - 1;
    let bucket = keyHash & mask;
    while ((this.#buckets[bucket] as number) >= 0) bucket = (bucket + 1) & mask;
    this.#buckets[bucket] = index;
  }

  /** At half load: linear probing stays short. */
  #growEntries(): void {
    const entries = this.#hashes.length * 2;
    const hashes = new Int32Array(entries);
    hashes.set(this.#hashes);
    this.#hashes = hashes;
    const ends = new Int32Array(entries);
    ends.set(this.#ends);
    this.#ends = ends;
    this.#buckets = new Int32Array(entries * 2).fill(-1);
    for (let index = 0; index < this.#size; index++) this.#place(this.#hashes[index] as number, index);
  }

  #growKeys(used: number, needed: number): void {
    const grown = Buffer.allocUnsafeSlow(Math.max(needed, this.#keys.length * 2));
    this.#keys.copy(grown, 0, 0, used);
    this.#keys = grown;
  }
}

/** FNV-1a, 32 bits (http://www.isthe.com/chongo/tech/comp/fnv/), with a last mix so that the low bits depend on all. */
function hash(bytes: Buffer, start: number, end: number): number {
  let value = 0x811c9dc5 | 0;
  for (let i = start; i < end; i++) value = Math.imul(value ^ (bytes[i] as number), 0x01000193);
  value ^= value >>> 15;
  value = Math.imul(value, 0x2c1b3c6d);
  return value ^ (value >>> 12);
}

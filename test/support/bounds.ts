/** What the tests of bounds share (I8): their sizes, the limit, and how a step is measured and told. */
import { expect } from 'vitest';
import type { OwnFunctions } from './own-functions.ts';

/** Small sizes by default, which take the same ways; SLUICE_BOUNDS=full: those that are promised. */
export const FULL = process.env.SLUICE_BOUNDS === 'full';

/** Of each function's process: 512 MB, as Lambda counts them. Small sizes have little above the 120 MB that it begins with. */
export const RSS_BYTES_MAX = (FULL ? 512 : 320) * 1024 * 1024;

/** Does `work`, tells what the processes took, and holds each of them to `rss_bytes_max`: in full by processes that begin with it, else so far. */
export async function bounded(
  own: OwnFunctions,
  what: string,
  rss_bytes_max: number,
  work: () => Promise<void>,
): Promise<void> {
  if (FULL) await own.renew();
  const began_ms = Date.now();
  await work();
  const peaks = Object.entries(own.peaks());
  const told = peaks.map(([name, bytes]) => `${name} ${Math.round(bytes / 1e6)} MB`).join(', ');
  console.log(`${what}: ${told}, ${Math.round((Date.now() - began_ms) / 1000)} s`);
  for (const [name, bytes] of peaks) expect(bytes, `${what}: ${name}`).toBeLessThan(rss_bytes_max);
}

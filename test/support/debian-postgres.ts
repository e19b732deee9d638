/**
 * Debian's PostgreSQL 15 with the plugin wal2json, for tests: npm has servers, but none with plugins of others. Where it is not installed, tests that
 * need it are skipped with the reason in their name; with CI=true that is a failure.
 */
import { existsSync } from 'node:fs';
import { type ServerOptions, startPostgres, type TestPostgres } from './postgres.ts';

const HOME = '/usr/lib/postgresql/15';
const PACKAGES: readonly (readonly [file: string, debian: string])[] = [
  [`${HOME}/bin/postgres`, 'postgresql-15'],
  [`${HOME}/lib/wal2json.so`, 'postgresql-15-wal2json'],
];

/** What is missing, as words; null: nothing. */
export const debianMissing: string | null = missing();

function missing(): string | null {
  const lacking = PACKAGES.filter(([file]) => !existsSync(file)).map(([, name]) => name);
  return lacking.length === 0 ? null : `not installed: ${lacking.join(', ')}`;
}

/**
 * For `describe.skipIf`: where something is missing, and nobody insists. With CI=true the tests run, and fail in `startDebianPostgres`.
 * Name the suite by `suiteName`, so that a report says why it was skipped.
 */
export const skipDebian = debianMissing !== null && process.env.CI !== 'true';

export function suiteName(name: string): string {
  return debianMissing === null ? name : `${name} [${debianMissing}]`;
}

/** As `startPostgres`, of Debian's binaries. Throws where they are missing. */
export async function startDebianPostgres(options: Omit<ServerOptions, 'server'> = {}): Promise<TestPostgres> {
  if (debianMissing !== null) throw new Error(debianMissing);
  const server = { initdb: `${HOME}/bin/initdb`, postgres: `${HOME}/bin/postgres`, version: 'debian' };
  return await startPostgres({ ...options, server });
}

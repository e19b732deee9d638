import { defineConfig } from 'vitest/config';

/** One project a kind of test: the folder says what a test needs. */
const project = (name: string, timeout_ms: number) => ({
  test: {
    name,
    include: [`test/${name}/**/*.test.ts`],
    testTimeout: timeout_ms,
    hookTimeout: Math.max(60_000, timeout_ms),
  },
});

export default defineConfig({
  test: {
    globalSetup: 'test/support/run-directory.ts',
    pool: 'forks',
    maxWorkers: 2,
    reporters: ['default'],
    projects: [
      project('unit', 10_000),
      project('property', 60_000),
      project('infra', 240_000),
      project('pg', 120_000),
      project('e2e', 240_000),
    ],
  },
});

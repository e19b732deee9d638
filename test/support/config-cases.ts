/**
 * Cases of faults in a pipeline file: each has one, and the case says all that must be told of it.
 */
import { expect, test } from 'vitest';
import { checkPipeline } from '../../lib/config/read.ts';
import { fileFindings } from '../../lib/doctor/file.ts';

/** Two lines that are right; what a case adds begins at line 3, and below SOURCE or TARGET at line 7. */
export const HEAD = 'pipeline: shop\ntables: [public.a]\n';
export const SOURCE = 'source:\n  host: h\n  user: u\n  database: d\n';
export const TARGET = SOURCE.replace('source', 'target');

/** `line:column problem remedy` of every fault. */
export function faultsOf(text: string): string[] {
  return checkPipeline(text).faults.map(
    ({ line, column, problem, remedy }) => `${line}:${column} ${problem} ${remedy}`,
  );
}

export type FaultCase = readonly [name: string, text: string, place: string, problem: string, remedy: string];

/** Each text has exactly one fault, told at `place` with `problem` and `remedy` as parts of the message, and found by the doctor. */
export function testFaults(cases: readonly FaultCase[]): void {
  test.each(cases)('%s', (_name, text, place, problem, remedy) => {
    const [only, ...more] = faultsOf(text);
    expect(more).toEqual([]);
    expect(only?.startsWith(`${place} `)).toBe(true);
    expect(only).toContain(problem);
    expect(only).toContain(remedy);
    expect(fileFindings(checkPipeline(text).faults, 'file')).toMatchObject([
      {
        check: 'pipeline_file',
        severity: 'error',
        subject: `file:${place}`,
        problem: expect.stringContaining(problem),
        remedy: expect.stringContaining(remedy),
      },
    ]);
  });
}

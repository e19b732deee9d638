/**
 * What a run says first: what goes from where to where, and what was found that does not keep it from going. Pure.
 */
import type { Pipeline } from '../../lib/config/schema.ts';
import type { Finding, Survey } from '../../lib/doctor/finding.ts';
import { SluiceError } from '../../lib/errors.ts';
import { count, printable } from '../view/text.ts';

export interface Opening {
  readonly pipeline: Pipeline;
  readonly path: string;
  readonly state: string;
  readonly survey: Survey;
}

export function headLines({ pipeline, path, state, survey }: Opening): string[] {
  const { source, target } = survey;
  return [
    `Pipeline ${pipeline.pipeline} (${path}), state in ${state}`,
    `  source  ${place(pipeline.source)}${version(source instanceof SluiceError ? null : source.ground.version)}, slot ${pipeline.source.replication_slot}`,
    `  target  ${place(pipeline.target)}${version(target instanceof SluiceError ? null : target.server.version)}`,
    `  tables  ${tables(survey)}`,
  ];
}

/** Errors, each as lines to say; the rest is the doctor's to tell. */
export function groundLines(findings: readonly Finding[]): string[][] {
  return findings
    .filter(({ severity }) => severity === 'error')
    .map(({ subject, problem, remedy }) => [
      printable(`${subject}: ${problem}`),
      ...(remedy === null ? [] : [`  Remedy: ${printable(remedy)}`]),
    ]);
}

function place({ host, port, database }: { host: string | null; port: number; database: string }): string {
  return `${host ?? 'embedded'}:${port}/${printable(database)}`;
}

function version(number: number | null): string {
  return number === null ? '' : `, PostgreSQL ${Math.floor(number / 10_000)}.${number % 10_000}`;
}

function tables({ source }: Survey): string {
  if (source instanceof SluiceError) return 'unknown';
  const { streams, skipped } = source.selection;
  const left = skipped.length > 0 ? `, ${skipped.length} left out (sluice doctor says why)` : '';
  return `${count(streams.length)} followed${left}`;
}

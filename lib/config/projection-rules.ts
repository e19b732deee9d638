/**
 * What the options that hide columns and rows must say together; a part of `rules.ts`. What depends on the tables themselves is `projection/projection.ts`'s.
 */
import { conditionFault } from './condition.ts';
import type { Finding } from './explain.ts';
import type { PipelineFile } from './schema.ts';

type Entry = PipelineFile['tables'][number];

/** Findings of one entry of `tables`, with the sections that it depends on where they are sound. */
export function projectionFindings(entry: Entry, i: number, file: Partial<PipelineFile>): Finding[] {
  const { columns, mask, where, replication_method } = entry;
  const findings: Finding[] = [];
  const wrong = (path: readonly string[], problem: string, remedy: string): void => {
    findings.push({ path: ['tables', i, ...path], part: 'key', problem: `tables[${i}].${problem}`, remedy });
  };
  if (columns && (columns.include === null) === (columns.exclude === null)) {
    const both = columns.include !== null;
    wrong(
      ['columns'],
      `columns has ${both ? 'both include and exclude' : 'neither include nor exclude'}.`,
      both ? 'Keep one of them: what is not included is excluded.' : 'Add one of them, or remove columns.',
    );
  }
  const included = columns?.include ?? null;
  for (const [name, kind] of Object.entries(mask)) {
    const isLeftOut = columns?.exclude?.includes(name) || (included !== null && !included.includes(name));
    if (isLeftOut) wrong(['mask', name], `mask has ${name}, which columns leaves out.`, 'Remove it from one of them.');
    if (kind === 'hash' && 'mask_salt' in file && file.mask_salt === null) {
      const remedy = 'Add mask_salt: ${env:NAME}, or { secret: NAME }, at the top of the file.';
      wrong(['mask', name], `mask hashes ${name}, and there is no mask_salt: its values could be guessed.`, remedy);
    }
  }
  const fault = where === null ? null : conditionFault(where);
  if (fault !== null) {
    wrong(['where'], `where ${fault}`, 'Write one condition in SQL, as it would stand between brackets.');
  }
  if (where !== null && replication_method === 'LOG_BASED' && file.source?.plugin === 'wal2json') {
    wrong(
      ['where'],
      'where is a row filter of a publication, and wal2json has none.',
      'Use source.plugin: pgoutput, or read the table by query (replication_method: INCREMENTAL or FULL_TABLE).',
    );
  }
  return findings;
}

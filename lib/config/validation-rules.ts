/**
 * What target.validate_records, target.on_invalid and tables.json_schema must say together.
 */
import type { Finding } from './explain.ts';
import type { PipelineFile } from './schema.ts';

/** Who names a schema, or puts rows aside, believes that rows are checked. */
export function validationFindings({ target, tables }: Partial<PipelineFile>): Finding[] {
  if (!target || target.validate_records) return [];
  const remedy = 'Set target.validate_records: true, or remove it.';
  const isWithout = 'is given without target.validate_records: no row is checked.';
  const findings: Finding[] = (tables ?? []).flatMap(({ json_schema }, i): Finding[] => {
    if (json_schema === null) return [];
    const path = ['tables', i, 'json_schema'];
    return [{ path, part: 'key', problem: `tables[${i}].json_schema ${isWithout}`, remedy }];
  });
  if (target.on_invalid === 'reject') {
    const path = ['target', 'on_invalid'];
    findings.push({ path, part: 'key', problem: `target.on_invalid: reject ${isWithout}`, remedy });
  }
  return findings;
}

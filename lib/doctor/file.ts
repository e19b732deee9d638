/**
 * What is wrong in the pipeline file itself, as the doctor says it: each fault a finding, with its place. While there are any, nothing else can be looked at.
 */
import type { ConfigFault } from '../config/document.ts';
import type { Finding } from './finding.ts';

export function fileFindings(faults: readonly ConfigFault[], file_name: string): Finding[] {
  return faults.map(({ line, column, problem, remedy }) => ({
    check: 'pipeline_file',
    severity: 'error',
    subject: `${file_name}:${line}:${column}`,
    code: 'CONFIG_INVALID',
    problem,
    remedy,
  }));
}

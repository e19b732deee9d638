/**
 * The pipeline file as functions have it: JSON that a deployment or the local engine has made of a file that they had read. A cold start pays for no parser
 * of YAML, and checks all of it again: code and file may be of two versions.
 */
import { SluiceError } from '../errors.ts';
import { checkData } from './check.ts';
import type { Pipeline } from './schema.ts';

/** Throws CONFIG_INVALID. `fileName` is for messages. */
export function readShippedPipeline(text: string, fileName: string): Pipeline {
  const data = parse(text);
  if (data === null) throw new SluiceError('CONFIG_INVALID', { problem: `${fileName} is no JSON object` });
  const { pipeline, findings } = checkData(data);
  if (pipeline) return pipeline;
  const problem = [`${fileName}:`, ...findings.map((finding) => `${finding.problem} ${finding.remedy}`)].join('\n  ');
  throw new SluiceError('CONFIG_INVALID', { problem, faults: findings.length });
}

function parse(text: string): object | null {
  try {
    const data: unknown = JSON.parse(text);
    return typeof data === 'object' && !Array.isArray(data) ? data : null;
  } catch {
    return null; // What stands in the wrong place may be a secret.
  }
}

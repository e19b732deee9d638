/**
 * From the text of a pipeline file to a Pipeline, for the command and for the synthesis of the stack; functions get what these have read
 * (shipped.ts). All faults of a file are told at once, each with line, column, key, what is wrong and what to do; never with a secret.
 */
import { SluiceError } from '../errors.ts';
import { checkData } from './check.ts';
import { type ConfigFault, parseConfig } from './document.ts';
import type { Pipeline } from './schema.ts';

/** Faults that one message tells; who has more has given the wrong file. */
const FAULTS_TOLD_MAX = 30;

const MINIMAL = 'A pipeline file begins like this: pipeline: shop; `sluice init URL` writes one.';

export type ConfigCheck =
  | { readonly pipeline: Pipeline; readonly faults: readonly [] }
  | { readonly pipeline: null; readonly faults: readonly ConfigFault[] };

/**
 * The pipeline that `text` (YAML or JSON) says. `fileName` is for messages only; nothing is read from disk.
 * Throws CONFIG_INVALID with every fault in `facts.problem`.
 */
export function readPipeline(text: string, fileName: string): Pipeline {
  const { pipeline, faults } = checkPipeline(text);
  if (pipeline) return pipeline;
  throw configError(faults, fileName);
}

/** As `readPipeline`, with the faults as data, in the order of the file. */
export function checkPipeline(text: string): ConfigCheck {
  const document = parseConfig(text);
  if (document.faults.length > 0) return { pipeline: null, faults: document.faults };
  const data = document.value;
  if (data === null || data === undefined) return refused('The file is empty.');
  if (typeof data !== 'object' || Array.isArray(data)) return refused('The file has no map of options at its top.');

  const { pipeline, findings } = checkData(data);
  if (pipeline) return { pipeline, faults: [] };
  const faults = findings
    .map(({ path, part, problem, remedy }) => ({ ...document.place(path, part), path, problem, remedy }))
    .sort((a, b) => a.line - b.line || a.column - b.column);
  return { pipeline: null, faults };
}

function refused(problem: string): ConfigCheck {
  return { pipeline: null, faults: [{ line: 1, column: 1, path: [], problem, remedy: MINIMAL }] };
}

function configError(faults: readonly ConfigFault[], fileName: string): SluiceError {
  const told = (fault: ConfigFault): string => `${fileName}:${fault.line}:${fault.column}  ${fault.problem}`;
  const [only] = faults;
  if (only && faults.length === 1) {
    return new SluiceError('CONFIG_INVALID', { problem: told(only), remedy: only.remedy, faults: 1 });
  }
  const lines = faults.slice(0, FAULTS_TOLD_MAX).map((fault) => `\n  ${told(fault)} ${fault.remedy}`);
  if (faults.length > FAULTS_TOLD_MAX) lines.push(`\n  and ${faults.length - FAULTS_TOLD_MAX} more`);
  return new SluiceError('CONFIG_INVALID', {
    problem: `${faults.length} faults${lines.join('')}`,
    faults: faults.length,
  });
}

/**
 * From the text of a pipeline file to a Pipeline: the one way in, for the command, the synthesis of the stack and the functions at cold start alike.
 * All faults of a file are told at once, each with line, column, key, what is wrong and what to do; never with a secret.
 */
import type * as z from 'zod';
import { SluiceError } from '../errors.ts';
import { type ConfigFault, parseConfig } from './document.ts';
import { explainIssues } from './explain.ts';
import { checkRules } from './rules.ts';
import { type Pipeline, type PipelineFile, pipelineOf, pipelineSchema } from './schema.ts';

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

  const whole = pipelineSchema.safeParse(data);
  const file = whole.success ? whole.data : soundSections(data, whole.error.issues);
  const findings = [...(whole.success ? [] : explainIssues(whole.error.issues, data)), ...checkRules(file)];
  if (whole.success && findings.length === 0) return { pipeline: pipelineOf(whole.data), faults: [] };
  const faults = findings
    .map(({ path, part, problem, remedy }) => ({ ...document.place(path, part), path, problem, remedy }))
    .sort((a, b) => a.line - b.line || a.column - b.column);
  return { pipeline: null, faults };
}

function refused(problem: string): ConfigCheck {
  return { pipeline: null, faults: [{ line: 1, column: 1, path: [], problem, remedy: MINIMAL }] };
}

/** Sections without a fault of their own, so that a fault in one does not hide what the rules find in others. */
function soundSections(data: object, issues: readonly z.core.$ZodIssue[]): Partial<PipelineFile> {
  const broken = new Set(issues.map((issue) => issue.path[0]));
  const sections: Partial<Record<string, unknown>> = { ...data };
  return Object.fromEntries(
    Object.entries(pipelineSchema.shape)
      .filter(([section]) => !broken.has(section))
      .map(([section, schema]) => [section, schema.parse(sections[section])]),
  );
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

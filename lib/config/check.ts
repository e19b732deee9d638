/**
 * What a pipeline file says, as plain data, against the declarations and the rules: the same at every place where a file is read.
 */
import type * as z from 'zod';
import { explainIssues, type Finding } from './explain.ts';
import { checkRules } from './rules.ts';
import { type Pipeline, type PipelineFile, pipelineOf, pipelineSchema } from './schema.ts';

export type DataCheck =
  | { readonly pipeline: Pipeline; readonly findings: readonly [] }
  | { readonly pipeline: null; readonly findings: readonly Finding[] };

/** Everything that is wrong at once, in no order. */
export function checkData(data: object): DataCheck {
  const whole = pipelineSchema.safeParse(data);
  const file = whole.success ? whole.data : soundSections(data, whole.error.issues);
  const findings = [...(whole.success ? [] : explainIssues(whole.error.issues, data)), ...checkRules(file)];
  if (whole.success && findings.length === 0) return { pipeline: pipelineOf(whole.data), findings: [] };
  return { pipeline: null, findings };
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

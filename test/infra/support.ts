/** Synthesizes the stacks of a pipeline file as `cdk` would, with handlers of one line: what they do is not what these tests are about. */
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { App } from 'aws-cdk-lib';
import { Template } from 'aws-cdk-lib/assertions';
import { afterAll } from 'vitest';
import { FUNCTION_NAMES } from '../../infra/aws/limits.ts';
import { readDeployedPipeline } from '../../infra/aws/pipeline-file.ts';
import { addStacks } from '../../infra/aws/stacks.ts';
import { runDirectory } from '../support/run-directory.ts';

export const ROOT = resolve(import.meta.dirname, '../..');
export const EXAMPLE = join(ROOT, 'examples/pipeline.yaml');

/** The example, with other options in place of its schedule and with more of the target. */
export function pipelineYaml(options: { schedule?: string; target?: string } = {}): string {
  const text = readFileSync(EXAMPLE, 'utf8');
  const [above = ''] = text.split('\nschedule:\n');
  return `${above}\n${indent(options.target)}\nschedule:\n${indent(options.schedule ?? 'every: 5 minutes')}\n`;
}

function indent(lines = ''): string {
  return lines.replaceAll(/^(?=.)/gm, '  ');
}

/** A directory that is removed when the tests of the file are done. */
export function temporaryDirectory(): string {
  const directory = mkdtempSync(join(runDirectory(true) ?? tmpdir(), 'sluice-infra-'));
  // Heard where tests are declared; what one of them makes while it runs goes with the run's directory.
  afterAll(() => rmSync(directory, { recursive: true, force: true }));
  return directory;
}

export interface Synthesized {
  readonly state: Template;
  readonly pipeline: Template;
  /** The cloud assembly. */
  readonly directory: string;
}

export interface SynthesisOptions {
  readonly yaml?: string;
  readonly context?: Readonly<Record<string, unknown>>;
  readonly functions_dir?: string;
  /** Changes the app before it is synthesized. */
  readonly change?: (app: App) => void;
}

/** Throws what `cdk synth` would report: refused input, and what cdk-nag finds that nobody has acknowledged. */
export function synthesize(options: SynthesisOptions = {}): Synthesized {
  const directory = temporaryDirectory();
  const file = join(directory, 'pipeline.yaml');
  writeFileSync(file, options.yaml ?? pipelineYaml());
  const app = new App({ context: { ...cdkContext(), ...options.context }, outdir: join(directory, 'assembly') });
  const stacks = addStacks(app, readDeployedPipeline(file), options.functions_dir ?? oneLineHandlers(directory));
  options.change?.(app);
  app.synth();
  return {
    state: Template.fromStack(stacks.state),
    pipeline: Template.fromStack(stacks.pipeline),
    directory: app.outdir,
  };
}

/** Feature flags change what is made: the tests see the stacks with those of cdk.json. */
function cdkContext(): Record<string, unknown> {
  return (JSON.parse(readFileSync(join(ROOT, 'cdk.json'), 'utf8')) as { context: Record<string, unknown> }).context;
}

function oneLineHandlers(directory: string): string {
  const functions = join(directory, 'functions');
  mkdirSync(functions);
  for (const name of FUNCTION_NAMES) {
    writeFileSync(join(functions, `${name}.ts`), `export const handler = async (): Promise<string> => '${name}';\n`);
  }
  return functions;
}

export interface Resource {
  readonly Type: string;
  readonly DeletionPolicy?: string;
  readonly UpdateReplacePolicy?: string;
  readonly DependsOn?: readonly string[];
  readonly Properties: Readonly<Record<string, unknown>>;
}

/** The resources of a type by logical id. */
export function resourcesOf(template: Template, type: string): Readonly<Record<string, Resource>> {
  return template.findResources(type) as Record<string, Resource>;
}

/** The only resource of a type whose logical id is `id` and CDK's hash. */
export function resourceOf(template: Template, type: string, id: string): Resource {
  const found = Object.entries(resourcesOf(template, type)).filter(
    ([logicalId]) => logicalId.replace(/[0-9A-F]{8}$/, '') === id,
  );
  const [only] = found;
  if (!only || found.length > 1) throw new Error(`${found.length} resources of ${type} are named ${id}`);
  return only[1];
}

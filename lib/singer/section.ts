/**
 * What becomes of Singer's settings: options of a section of the pipeline file, as its lines; what a person has to know of them; and environment variables for what
 * is secret. Pure.
 */
import type * as z from 'zod';
import { comment, scalar, wrapped } from '../config/yaml-text.ts';
import type { Settings } from './settings.ts';

export class Section {
  #lines: string[] = [];
  /** Sentences: what has no counterpart, or means something else. */
  readonly remarks: string[] = [];
  /** Environment variables that the file refers to. */
  readonly environment: string[] = [];
  readonly side: 'source' | 'target';

  constructor(side: 'source' | 'target') {
    this.side = side;
  }

  get lines(): readonly string[] {
    return [`${this.side}:`, ...this.#lines];
  }

  /** Nothing where the value is null. `value`: a text, or what JSON has (YAML reads it). `said`: a comment above it. */
  set(name: string, value: unknown, said: string | null = null): void {
    if (value === null || value === undefined) return;
    if (said !== null) this.#lines.push(...wrapped(comment(said), '  # '));
    this.#lines.push(`  ${name}: ${typeof value === 'string' ? scalar(value) : flow(value)}`);
  }

  /** The same, where the value is within the bounds of the option; else it is left out, and that is said. */
  setWithin(options: z.ZodObject, name: string, value: unknown): void {
    if (value === null || options.shape[name]?.safeParse(value).success === true) this.set(name, value);
    else this.remark(`${name} is left out: its value is out of bounds here (docs/CONFIGURATION.md).`);
  }

  /** Refers to an environment variable of this name, with the section's before it. */
  secret(name: string): string {
    const variable = `${this.side.toUpperCase()}_${name}`;
    this.environment.push(variable);
    return `\${env:${variable}}`;
  }

  remark(sentence: string): void {
    this.remarks.push(`${this.side}: ${sentence}`);
  }

  /** What there is no option for, each with what becomes of it; and what nobody knows. */
  leave(settings: Settings, known: Readonly<Record<string, string>>): void {
    for (const [name, why] of Object.entries(known)) if (settings.has(name)) this.remark(`${name} is left out: ${why}`);
    for (const name of settings.unused()) this.remark(`${name} is left out: Sluice has no such option.`);
  }

  /** A comment of its own. */
  note(sentence: string): void {
    this.#lines.push(...wrapped(comment(sentence), '  # '));
  }
}

/** As a line of YAML: maps and lists in their flow style, texts as scalars. */
export function flow(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(flow).join(', ')}]`;
  if (typeof value === 'string') return scalar(value);
  if (typeof value !== 'object' || value === null) return String(value);
  const entries = Object.entries(value).flatMap(([name, one]) =>
    one === null || one === undefined ? [] : [`${scalar(name)}: ${flow(one)}`],
  );
  return entries.length === 0 ? '{}' : `{ ${entries.join(', ')} }`;
}

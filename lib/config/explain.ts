/**
 * What zod finds wrong, as findings for people: which key, what it must be, what it is instead, what to do. A value that is or may be a secret is never
 * quoted.
 */
import type * as z from 'zod';
import { identifierForm } from './connection.ts';
import { cronFault } from './cron.ts';
import type { Path } from './document.ts';
import { defaultOf, expectation, factsAt, optionsOf, schemaAt } from './expectation.ts';
import { nearestName } from './nearest.ts';
import { parseTablePattern } from './table-pattern.ts';
import { sectionOf, unavailableKey, unavailableKeys, unavailableValue } from './unavailable.ts';

/** A fault that has no place yet. */
export interface Finding {
  readonly path: Path;
  /** What the place shows: a key that should not be there, or a value. */
  readonly part: 'key' | 'value';
  readonly problem: string;
  readonly remedy: string;
}

type Issue = z.core.$ZodIssue;

const SHOWN_CHARACTERS_MAX = 60;
const OPTIONS_LISTED_MAX = 8;

/** Findings for the issues that checking `data` (the whole file) gave. */
export function explainIssues(issues: readonly Issue[], data: unknown): Finding[] {
  const findings = unique(issues.flatMap((issue) => explain(issue, [], data)));
  // A map with an option that is not available is often not whole without it: what it lacks then is noise.
  const refused = findings.filter((finding) => finding.part === 'key').map(({ path }) => sectionOf(path.slice(0, -1)));
  return findings.filter((finding) => {
    const lacks = finding.part === 'value' && valueAt(data, finding.path) === undefined;
    const parent = sectionOf(finding.path.slice(0, -1));
    return !(lacks && refused.includes(parent) && factsAt(finding.path.slice(0, -1))?.secret);
  });
}

/** Several checks can fail for one value: the expectation names them all. */
function unique(findings: readonly Finding[]): Finding[] {
  return [...new Map(findings.map((finding) => [`${finding.part} ${pathText(finding.path)}`, finding])).values()];
}

function explain(issue: Issue, prefix: Path, data: unknown): Finding[] {
  const path = [...prefix, ...issue.path.filter((step): step is string | number => typeof step !== 'symbol')];
  if (issue.code === 'unrecognized_keys') return issue.keys.map((key) => unknownKey([...path, key]));
  if (issue.code === 'invalid_key') {
    const problem = `${pathText(path.slice(0, -1))} has the key ${shown(path.at(-1))}, which must be ${identifierForm}.`;
    return [{ path, part: 'key', problem, remedy: 'Correct the key.' }];
  }
  if (issue.code === 'invalid_union') {
    // The branch that was meant is the one whose type fits, of several that with the least to mend; what is wrong lies deeper in it.
    const [meant, next] = issue.errors
      .filter((branch) => branch.some((inner) => inner.path.length > 0 || inner.code === 'unrecognized_keys'))
      .toSorted((a, b) => faultsIn(a) - faultsIn(b));
    if (meant && (!next || faultsIn(meant) < faultsIn(next))) {
      return meant.flatMap((inner) => explain(inner, path, data));
    }
  }
  return [wrongValue(path, data)];
}

function faultsIn(branch: readonly z.core.$ZodIssue[]): number {
  return branch.reduce((sum, issue) => sum + (issue.code === 'unrecognized_keys' ? issue.keys.length : 1), 0);
}

function unknownKey(path: Path): Finding {
  const key = String(path.at(-1));
  const parent = path.slice(0, -1);
  const section = sectionOf(parent);
  const name = pathText(path);
  const unavailable = unavailableKey(section, key);
  if (unavailable) {
    const problem = `${name} is not available in this version (${unavailable.what}).`;
    return { path, part: 'key', problem, remedy: unavailable.remedy };
  }
  return { path, part: 'key', problem: `${name} is not an option.`, remedy: unknownKeyRemedy(key, parent) };
}

function unknownKeyRemedy(key: string, parent: Path): string {
  const schema = schemaAt(parent);
  const here = schema ? Object.keys(optionsOf(schema)) : [];
  const nearest = nearestName(key, [...here, ...unavailableKeys(sectionOf(parent)).map(([name]) => name)]);
  const elsewhere = [[], ['source'], ['target'], ['tables'], ['schedule']].find((section) => {
    const candidate = schemaAt(section);
    return candidate !== null && Object.hasOwn(optionsOf(candidate), key);
  });
  if (elsewhere?.length === 0) return 'It belongs to the top of the file.';
  if (elsewhere) return `It is an option of ${elsewhere[0]}: move it there.`;
  if (nearest !== null) return `Did you mean ${nearest}?`;
  const few = here.length > 0 && here.length <= OPTIONS_LISTED_MAX;
  return few
    ? `Remove it; the options there are ${here.join(', ')}.`
    : 'Remove it; docs/CONFIGURATION.md lists the options.';
}

function wrongValue(path: Path, data: unknown): Finding {
  const value = valueAt(data, path);
  const facts = factsAt(path);
  const name = pathText(path);
  const key = path.findLast((step) => typeof step === 'string') ?? '';
  const example = facts?.example === undefined ? null : writtenOut(path, key, facts.example);

  const wrong = (problem: string, remedy: string): Finding => ({ path, part: 'value', problem, remedy });
  if (value === undefined) return wrong(`${name} is missing.`, example ? `Add it, for example ${example}` : 'Add it.');
  if (value === null) {
    const remedy = example ? `Write one, for example ${example}, or remove it.` : 'Write one, or remove it.';
    return { path, part: 'key', problem: `${name} has no value.`, remedy };
  }
  if (facts?.secret) return wrong(...wrongSecret(name, key, path, value));
  const unavailable = unavailableValue(path, value);
  if (unavailable) {
    return wrong(
      `${name}: ${shown(value)} is not available in this version (${unavailable.what}).`,
      unavailable.remedy,
    );
  }
  const isCron = ['schedule.cron', 'tables.schedule.cron'].includes(sectionOf(path));
  const cron = isCron && typeof value === 'string' ? cronFault(value) : null;
  if (cron) return wrong(`${name} is ${cron}.`, `Write for example ${example}: every day at six.`);
  const isTable = typeof path.at(-1) === 'number' || key === 'table';
  if (isTable && typeof value === 'string' && parseTablePattern(`public.${value}`)) {
    return wrong(`${name} must name a schema: ${shown(value)}.`, `If its schema is public, write public.${value}`);
  }
  const schema = schemaAt(path);
  const must = schema ? expectation(schema) : 'something else';
  const got = isSecret(path) ? 'what stands there' : shown(value);
  return wrong(`${name} must be ${must}, not ${got}.`, wrongValueRemedy(path, key, example, value));
}

function wrongValueRemedy(path: Path, key: string, example: string | null, value: unknown): string {
  if (typeof value === 'string' && value.startsWith('${env:')) {
    return 'Write the value itself: only secrets are taken from the environment.';
  }
  if (example) return `Write for example ${example}`;
  const schema = schemaAt(path);
  const standard = schema && defaultOf(schema);
  if (standard === null) return 'Correct it, or leave it out.';
  if (typeof standard === 'boolean') return `Write ${key}: true or ${key}: false, without quotes.`;
  const kind = typeof standard === 'number' ? 'a number without quotes, such as' : 'for example';
  return `Write ${kind} the default ${key}: ${standard}`;
}

function isSecret(path: Path): boolean {
  return path.some((_, i) => factsAt(path.slice(0, i + 1))?.secret);
}

function wrongSecret(name: string, key: string, path: Path, value: unknown): [problem: string, remedy: string] {
  const variable = [path[0], key].join('_').toUpperCase();
  const reference = key === 'key' ? 'the path of a file' : `${key}: \${env:${variable}} and set that variable`;
  const iam = key === 'password' ? `; or ${key}: { iam: true } for a token of Amazon RDS` : '';
  const remedy = `Write ${reference}; or ${key}: { secret: NAME, key: KEY } for a secret in AWS Secrets Manager${iam}.`;
  const plain = typeof value !== 'object';
  return [plain ? `${name} is written out, and a secret is never in the file.` : `${name} names no secret.`, remedy];
}

/** `key: example`, or the element alone where the path ends in an index. */
function writtenOut(path: Path, key: string, example: string): string {
  return typeof path.at(-1) === 'number' ? example : `${key}: ${example}`;
}

function pathText(path: Path): string {
  return path
    .map((step, i) => {
      if (typeof step === 'number') return `[${step}]`;
      const plain = /^[A-Za-z0-9_-]{1,60}$/.test(step);
      if (!plain) return `[${shown(step)}]`;
      return i === 0 ? step : `.${step}`;
    })
    .join('');
}

/** A value as a message may show it: short, on one line, and without what stands before an @ (in a URL that is a password). */
function shown(value: unknown): string {
  if (typeof value === 'string') {
    const harmless = value.replaceAll(/\S*@/g, '…@').replaceAll(/(password\s*[=:]\s*)\S+/gi, '$1…');
    return JSON.stringify(
      harmless.length > SHOWN_CHARACTERS_MAX ? `${harmless.slice(0, SHOWN_CHARACTERS_MAX)}…` : harmless,
    );
  }
  if (typeof value === 'number' || typeof value === 'boolean') return String(value);
  if (Array.isArray(value)) return `a list of ${value.length}`;
  return 'a map';
}

function valueAt(data: unknown, path: Path): unknown {
  let value = data;
  for (const step of path) {
    if (typeof value !== 'object' || value === null || !Object.hasOwn(value, step)) return undefined;
    value = (value as Readonly<Record<string | number, unknown>>)[step];
  }
  return value;
}

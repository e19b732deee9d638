/**
 * Regular expressions of a schema, which are somebody's, on values, which are somebody else's: backtracking may take longer than the world lasts, and nothing else
 * runs meanwhile, not even the lease (I8). What cannot take long by its form is tested as it is; all else with a limit of time.
 *
 * https://nodejs.org/api/vm.html#scriptrunincontextcontextifiedobject-options (`timeout`): V8 looks at it while it backtracks.
 */
import { createContext, Script } from 'node:vm';

/** For one test of one value. */
export const PATTERN_MS_MAX = 1_000;
/** Steps of backtracking that take a tenth of a second at most. */
const STEPS_MAX = 1e7;
const SHOWN_CHARACTERS_MAX = 100;

/** What ajv wants of a regular expression. */
export interface BoundedPattern {
  test(text: string): boolean;
  /** By which ajv tells them apart. */
  toString(): string;
}

/** A pattern has not decided in time: the row neither fits nor does not. */
export class PatternTooSlow extends Error {
  override readonly name = 'PatternTooSlow';
  /** As `RowFault.wants` is read, after the name of a column. */
  readonly wants: string;

  constructor(pattern: string) {
    const shown = pattern.length > SHOWN_CHARACTERS_MAX ? `${pattern.slice(0, SHOWN_CHARACTERS_MAX)}…` : pattern;
    const wants = `must be decided by pattern ${JSON.stringify(shown)} within ${PATTERN_MS_MAX} ms`;
    super(wants);
    this.wants = wants;
  }
}

const place: { pattern: RegExp; text: string } = { pattern: /^/u, text: '' };
const context = createContext(place);
const script = new Script('pattern.test(text)');

/** Throws SyntaxError for what is no pattern; its `test` throws PatternTooSlow. */
export function boundedPattern(source: string, flags: string): BoundedPattern {
  const pattern = new RegExp(source, flags);
  const choices = choicesOf(source);
  return {
    test: (text) => {
      if (choices !== null && stepsMax(choices, text.length) <= STEPS_MAX) return pattern.test(text);
      return testWithin(pattern, text);
    },
    toString: () => String(pattern),
  };
}

function testWithin(pattern: RegExp, text: string): boolean {
  Object.assign(place, { pattern, text });
  try {
    return script.runInContext(context, { timeout: PATTERN_MS_MAX }) as boolean;
  } catch (error) {
    if (isTimeout(error)) throw new PatternTooSlow(pattern.source);
    throw error;
  } finally {
    place.text = '';
  }
}

/** It is an Error of the other context: no instance of ours. */
function isTimeout(error: unknown): boolean {
  return (
    typeof error === 'object' && error !== null && 'code' in error && error.code === 'ERR_SCRIPT_EXECUTION_TIMEOUT'
  );
}

/** Where a pattern can begin, and where it can go on in several ways: in as many as the text is long, or in two. */
interface Choices {
  readonly begins_anywhere: boolean;
  readonly lengths: number;
  readonly pairs: number;
}

/** Each place at which a match begins, times each way through. */
function stepsMax({ begins_anywhere, lengths, pairs }: Choices, characters: number): number {
  return (characters + 1) ** (lengths + (begins_anywhere ? 1 : 0)) * 2 ** pairs;
}

const ESCAPED = /\\(?:u\{[^}]*\}|[pP]\{[^}]*\}|k<[^>]*>|[^])/gu;
const CLASS = /\[[^\]]*\]/gu;
const BACK_REFERENCE = /\\[1-9k]/u;
/** A group that comes again may be left in ways without number. */
const GROUP_AGAIN = /\)(?:[*+]|\{)/u;
const OF_LENGTH = /[*+]|\{[0-9]+,[0-9]*\}/gu;
const OF_TWO = /\||\?/gu;

/** Null: no bound by the form. More choices than there are is as good: only few are looked for. */
function choicesOf(source: string): Choices | null {
  const plain = source.replaceAll(ESCAPED, 'x').replaceAll(CLASS, 'x');
  if (BACK_REFERENCE.test(source) || GROUP_AGAIN.test(plain)) return null;
  return {
    begins_anywhere: !source.startsWith('^') || source.includes('|'),
    lengths: (plain.match(OF_LENGTH) ?? []).length,
    pairs: (plain.match(OF_TWO) ?? []).length,
  };
}

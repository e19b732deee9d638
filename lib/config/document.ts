/**
 * The text of a pipeline file as data, with the place of every key and value in it. YAML 1.2, of which JSON is a part.
 *
 * The text is somebody else's: no tags of their own, one document, a bounded size and a bounded count of aliases (I8). Messages about syntax are ours
 * and never quote the text: what stands in the wrong place may be a secret.
 */
import {
  type Document,
  isAlias,
  isMap,
  isScalar,
  isSeq,
  LineCounter,
  parseDocument,
  visit,
  type YAMLError,
} from 'yaml';

export type Path = readonly (string | number)[];

export interface Place {
  /** Both from 1. */
  readonly line: number;
  readonly column: number;
}

/** One thing that is wrong in the file. */
export interface ConfigFault extends Place {
  /** Empty for the file as a whole, and for faults of syntax. */
  readonly path: Path;
  /** A sentence, with the path in it where there is one. */
  readonly problem: string;
  readonly remedy: string;
}

export interface ConfigDocument {
  /** Plain data; undefined when there are faults. */
  readonly value: unknown;
  readonly faults: readonly ConfigFault[];
  /** Where the key or the value of a path stands; for what is not there, its nearest parent. */
  place(path: Path, part: 'key' | 'value'): Place;
}

const TEXT_CHARACTERS_MAX = 1024 * 1024;
export const ALIASES_MAX = 100;
/** One mistake can make a parser stumble many times; the first are what to look at. */
const SYNTAX_FAULTS_MAX = 5;

const START: Place = { line: 1, column: 1 };
const REMEDY_SYNTAX =
  'Correct the YAML there: indent with spaces, one space after each colon, text with special characters in quotes.';
const REMEDY_SIZE = 'A pipeline file is a few pages at most: check that this is one.';
const REMEDY_ALIAS = 'Put a glob that begins with * in quotes: "*.orders".';
/** Readers of maps pass over it or make a prototype of it: what it asks for, a mask perhaps, would be left undone without a word. */
export const KEY_REFUSED = '__proto__';
const REMEDY_KEY =
  'Remove it. A column of that name can be left out (columns: { exclude: [...] }), and a table or schema be meant by a glob.';
const TOO_DEEP = ['Lists and maps are nested too deep.', REMEDY_SIZE] as const;

/** The parser's codes (https://eemeli.org/yaml/#errors) as sentences; what is not here is said to be no valid YAML. */
const SYNTAX: Readonly<Record<string, readonly [problem: string, remedy: string]>> = {
  DUPLICATE_KEY: ['The key stands twice in the same map.', 'Remove one of the two.'],
  TAB_AS_INDENT: ['A tab is used to indent.', 'Indent with spaces.'],
  BAD_INDENT: [
    'The indentation is wrong, or a closing bracket is missing.',
    'Indent with spaces, the keys of one map all alike.',
  ],
  BLOCK_AS_IMPLICIT_KEY: [
    'A map begins on the line of its key.',
    'Begin it on the next line, further indented; or put text that holds a colon in quotes.',
  ],
  MULTIPLE_DOCS: ['A second document begins (---).', 'Keep one document in a file.'],
  MISSING_CHAR: ['A character is missing: a closing quote or bracket, a colon, or a space.', REMEDY_SYNTAX],
  MULTILINE_IMPLICIT_KEY: ['A key goes over more than one line; perhaps a colon is missing.', REMEDY_SYNTAX],
  TAG_RESOLVE_FAILED: ['A tag (!) is not known.', 'Remove it; text that begins with ! must be in quotes.'],
  BAD_ALIAS: ['A value that begins with * is an alias, and its name is missing.', REMEDY_ALIAS],
  NON_STRING_KEY: ['A key is not text.', 'Write it as plain text, in quotes where it has special characters.'],
  RESOURCE_EXHAUSTION: TOO_DEEP,
};

/** Parses `text`. Never throws, whatever the text. */
export function parseConfig(text: string): ConfigDocument {
  if (text.length > TEXT_CHARACTERS_MAX) {
    return broken([fault(START, `The file is longer than ${TEXT_CHARACTERS_MAX} characters.`, REMEDY_SIZE)]);
  }
  const lines = new LineCounter();
  const document = parseDocument(text, {
    version: '1.2',
    schema: 'core',
    strict: true,
    uniqueKeys: true,
    stringKeys: true,
    // !!binary, !!timestamp, !!set and others would make objects of classes, of which no option is one.
    resolveKnownTags: false,
    prettyErrors: false,
    logLevel: 'error',
    lineCounter: lines,
  });
  const placeOf = (offset: number): Place => {
    const { line, col } = lines.linePos(offset);
    return { line: Math.max(1, line), column: Math.max(1, col) };
  };
  const faults = syntaxFaults([...document.errors, ...document.warnings], placeOf);
  if (faults.length > 0) return broken(faults);
  try {
    const unresolved = unresolvedAliases(document, placeOf);
    if (unresolved.length > 0) return broken(unresolved);
    const refused = refusedKeys(document, placeOf);
    if (refused.length > 0) return broken(refused);
    return {
      value: document.toJS({ maxAliasCount: ALIASES_MAX }),
      faults: [],
      place: (path, part) => placeOf(offsetOf(document, path, part)),
    };
  } catch (error) {
    // Both walk the parsed tree: a RangeError is its depth, all else the parser's own limit on aliases of aliases.
    if (error instanceof RangeError) return broken([fault(START, ...TOO_DEEP)]);
    const problem = `The file has more than ${ALIASES_MAX} aliases (*name), counted through each other.`;
    return broken([fault(START, problem, 'Write the values out.')]);
  }
}

function broken(faults: readonly ConfigFault[]): ConfigDocument {
  return { value: undefined, faults, place: () => START };
}

function fault(place: Place, problem: string, remedy: string): ConfigFault {
  return { ...place, path: [], problem, remedy };
}

function syntaxFaults(errors: readonly YAMLError[], placeOf: (offset: number) => Place): ConfigFault[] {
  const exhausted = errors.find((error) => error.code === 'RESOURCE_EXHAUSTION');
  return (exhausted ? [exhausted] : errors.slice(0, SYNTAX_FAULTS_MAX)).map((error) => {
    const [problem, remedy] = SYNTAX[error.code] ?? [`This is not valid YAML (${error.code}).`, REMEDY_SYNTAX];
    return fault(placeOf(error.pos[0]), problem, remedy);
  });
}

function unresolvedAliases(document: Document, placeOf: (offset: number) => Place): ConfigFault[] {
  const faults: ConfigFault[] = [];
  visit(document, {
    Alias(_key, alias) {
      if (alias.resolve(document)) return undefined;
      const problem = 'A value that begins with * is an alias, and nothing before it has that anchor (&).';
      faults.push(fault(placeOf(alias.range?.[0] ?? 0), problem, REMEDY_ALIAS));
      return faults.length < SYNTAX_FAULTS_MAX ? undefined : visit.BREAK;
    },
  });
  return faults;
}

function refusedKeys(document: Document, placeOf: (offset: number) => Place): ConfigFault[] {
  const faults: ConfigFault[] = [];
  visit(document, {
    Pair(_key, { key }) {
      if (!isScalar(key) || key.value !== KEY_REFUSED) return undefined;
      faults.push(fault(placeOf(key.range?.[0] ?? 0), `The key ${KEY_REFUSED} is not taken anywhere.`, REMEDY_KEY));
      return faults.length < SYNTAX_FAULTS_MAX ? undefined : visit.BREAK;
    },
  });
  return faults;
}

/** Offset in the text of the last step of the path that is there. */
function offsetOf(document: Document, path: Path, part: 'key' | 'value'): number {
  let node: unknown = document.contents;
  let offset = startOf(node) ?? 0;
  for (const [depth, step] of path.entries()) {
    if (isAlias(node)) node = node.resolve(document);
    const last = depth === path.length - 1;
    if (isMap(node)) {
      const pair = node.items.find(({ key }) => isScalar(key) && String(key.value) === String(step));
      if (!pair) return offset;
      const key = startOf(pair.key) ?? offset;
      offset = last && part === 'value' ? (startOf(pair.value) ?? key) : key;
      node = pair.value;
    } else if (isSeq(node)) {
      node = node.items[Number(step)];
      offset = startOf(node) ?? offset;
    } else {
      return offset;
    }
  }
  return offset;
}

function startOf(node: unknown): number | undefined {
  if (isMap(node) || isSeq(node) || isScalar(node) || isAlias(node)) return node.range?.[0];
  return undefined;
}

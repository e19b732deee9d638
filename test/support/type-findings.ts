/** What value-roundtrip.test.ts has found, as the page docs/TYPES.md: each cell is a comparison that was made and held. */
import { MAJORS } from './servers.ts';
import { METHODS, type Method } from './type-tables.ts';

export interface Finding {
  /** The source's major version. */
  readonly from: number;
  readonly to: number;
  readonly plugin: string;
  readonly method: Method;
  /** The type as it is declared; `[]` for its array. */
  readonly type: string;
  /** It had no value but NULL. */
  readonly empty: boolean;
  readonly in_key: boolean;
  /** The type on the target. */
  readonly became: 'same' | 'text' | 'numeric';
}

/** Majors of the sources that are run: npm's, and Debian's 15. */
const SOURCES: readonly number[] = [...MAJORS, 15].toSorted((a, b) => a - b);
/** The target of the first table. */
const NEWEST = 18;
const BECAME = { same: 'the same', text: '`text`', numeric: '`numeric`' } as const;

export class TypeFindings {
  readonly #findings: Finding[] = [];

  add(finding: Finding): void {
    this.#findings.push(finding);
  }

  /** How many pairs of servers have been compared. */
  get pairs(): number {
    return new Set(this.#findings.map(({ from, to, plugin }) => `${from} ${to} ${plugin}`)).size;
  }

  /** The whole page, in Markdown. */
  page(): string {
    const newest = this.#findings.filter(({ to, plugin }) => to === NEWEST && plugin === 'pgoutput');
    return `${INTRODUCTION}
## Kept, to PostgreSQL ${NEWEST}

${tableOf(newest)}

## Other targets

Types of which the values are kept, but which the target has under another type. All that is not named here is the same on both sides.

${this.#others()}
${this.#plugins()}`;
  }

  #others(): string {
    const pairs = unique(
      this.#findings.filter(({ plugin }) => plugin === 'pgoutput').map(({ from, to }) => `${from} ${to}`),
    );
    const always = new Set(
      this.#findings.filter(({ to, became }) => to === NEWEST && became === 'text').map(({ type }) => type),
    );
    const lines = pairs.flatMap((pair) => {
      const [from, to] = pair.split(' ').map(Number);
      if (to === NEWEST) return [];
      const found = this.#findings.filter((finding) => finding.from === from && finding.to === to);
      const named = (became: Finding['became']): string =>
        list(unique(found.filter((f) => f.became === became && !always.has(f.type)).map(({ type }) => type)));
      return [`| ${from} | ${to} | ${named('text')} | ${named('numeric')} |`];
    });
    const head = '| source | target | `text` there, besides those that always are | without their modifier |';
    return `${head}\n| --- | --- | --- | --- |\n${lines.join('\n')}\n`;
  }

  /** Other plugins than pgoutput: how many types they brought like pgoutput of the same server, and the others as a table. */
  #plugins(): string {
    const plugins = unique(this.#findings.map(({ plugin }) => plugin)).filter((plugin) => plugin !== 'pgoutput');
    return plugins.map((plugin) => `## By ${plugin}\n\n${REMARKS[plugin] ?? ''}${this.#beside(plugin)}\n`).join('');
  }

  #beside(plugin: string): string {
    const found = this.#findings.filter((finding) => finding.plugin === plugin);
    const servers = unique(found.map(({ from }) => from));
    const reference = this.#findings.filter(
      ({ from, to, plugin: other }) => other === 'pgoutput' && to === NEWEST && servers.includes(from),
    );
    const types = unique([...reference, ...found].map(({ type }) => type));
    const cellsIn = (findings: readonly Finding[], type: string): string =>
      cellsOf(findings.filter((finding) => finding.type === type)).text;
    const others = new Set(types.filter((type) => cellsIn(found, type) !== cellsIn(reference, type)));
    const alike = `Of ${types.length} types and arrays, ${types.length - others.size} have every cell as by pgoutput from the same server (${servers.join(', ')}).`;
    return others.size === 0
      ? alike
      : `${alike} The others:\n\n${tableOf(found.filter(({ type }) => others.has(type)))}`;
  }
}

const REMARKS: Readonly<Record<string, string>> = {
  wal2json: `Debian 12's version, of \`postgresql-15-wal2json\`. It writes NaN and infinities of \`float4\`, \`float8\` and \`numeric\` as null, so they are read from the table; in a key
they could not be found again, and the stream halts: the keys here have none.

`,
};

const INTRODUCTION = `# Types

Written by \`test/pg/value-roundtrip.test.ts\` from what it found: a cell names the major versions of the source on which every edge value of the type
(\`test/support/type-values.ts\`) was printed by the target to the letter as by the source, after the step that the column names. A type's array is
tested with no elements, NULLs, quotes, several dimensions and bounds of its own. The defaults of both databases (DateStyle, TimeZone, xmloption, …) were set
so as to spoil what is written and read without Sluice's own settings. Servers that were run: ${SOURCES.join(', ')}.

- *in a key*: the type is part of the table's primary key, and every step changes or finds rows by it.
- *NULL only*: the type can be a column's, but no SQL makes a value of it.
- Types whose values name objects of their server (\`reg…\`, \`aclitem\`), or that are printed and never read, are \`text\` on the target.
- Before 12, PostgreSQL prints floats with up to 17 digits, later with as few as tell them apart: between such servers, floats were compared bit by bit.
- Enums, domains, composites and the types of extensions are in [ARCHITECTURE.md](ARCHITECTURE.md).
- A value that only newer servers have is refused by an older target, and the stream halts: infinite \`numeric\` before 14, infinite \`interval\` before 17.
- \`"char"\` is \`text\` on a target before 16, which cannot read what later servers print of a value above 127 (\`\\ooo\`). A source before 16 prints it as a byte that is no
  text: it is written as later ones print it, but for arrays, whose stream halts.
`;

function tableOf(findings: readonly Finding[]): string {
  const types = unique(findings.map(({ type }) => type));
  const cells = new Map(types.map((type) => [type, cellsOf(findings.filter((finding) => finding.type === type))]));
  const rows: string[] = [];
  for (const [type, row] of cells) {
    const element = cells.get(type.replace(/\[\]$/, ''));
    if (type.endsWith('[]') && element?.beside === row.beside) continue;
    const array = cells.get(`${type}[]`);
    const name = array?.beside === row.beside ? `\`${type}\`, \`${type}[]\`` : `\`${type}\``;
    rows.push(`| ${name} | ${row.text} |`);
  }
  const head = ['type', ...METHODS, 'in a key', 'on the target'];
  return `| ${head.join(' | ')} |\n|${head.map(() => ' --- |').join('')}\n${rows.join('\n')}`;
}

interface Cells {
  readonly text: string;
  /** An array is never in a key here. */
  readonly beside: string;
}

function cellsOf(findings: readonly Finding[]): Cells {
  const others = findings.filter(({ in_key }) => !in_key);
  const methods = METHODS.map((method) => versions(others.filter((finding) => finding.method === method)));
  const in_key = versions(findings.filter((finding) => finding.in_key));
  const became = unique(findings.map((finding) => BECAME[finding.became])).join(', ');
  const target = findings.every(({ empty }) => empty) ? `${became} (NULL only)` : became;
  return {
    text: [...methods, in_key, target].join(' | '),
    beside: [...methods, target].join(' | '),
  };
}

/** `10–18`: all versions that were run from the first to the last. */
function versions(findings: readonly Finding[]): string {
  const found = new Set(findings.map(({ from }) => from));
  const runs: number[][] = [];
  for (const [at, version] of SOURCES.entries()) {
    if (!found.has(version)) continue;
    const last = runs.at(-1);
    if (last !== undefined && at > 0 && last.at(-1) === SOURCES[at - 1]) last.push(version);
    else runs.push([version]);
  }
  return runs.map((run) => (run.length > 1 ? `${run[0]}–${run.at(-1)}` : `${run[0]}`)).join(', ') || '–';
}

function list(names: readonly string[]): string {
  return names.map((name) => `\`${name}\``).join(', ') || '–';
}

function unique<T>(values: readonly T[]): T[] {
  return [...new Set(values)];
}

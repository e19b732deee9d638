/**
 * The reference page of the pipeline file and its JSON Schema, made from the declarations. `node docs/generate-configuration.ts` writes both;
 * a test fails when they are stale.
 */
import * as z from 'zod';
import { connectionOptions, sslSchema } from './connection.ts';
import { defaultOf, expectation } from './expectation.ts';
import { optionFacts } from './option.ts';
import { scheduleOptions, tableScheduleOptions } from './schedule.ts';
import { pipelineSchema } from './schema.ts';
import { sourceOptions } from './source.ts';
import { sshSchema } from './ssh.ts';
import { tableOptions } from './tables.ts';
import { targetOptions } from './target.ts';
import { unavailableKeys, unavailableValues } from './unavailable.ts';

type Options = Readonly<Record<string, z.core.$ZodType>>;

const JSON_SCHEMA_TITLE = 'Sluice pipeline';

/** A whole file, for the page. A test reads it. */
export const EXAMPLE = `pipeline: shop
source:
  host: db.internal
  user: sluice
  password: \${env:SOURCE_PASSWORD}
  database: shop
  break_at_end_lsn: true
tables:
  - public.*
  - table: public.orders
    target_table: all_orders
target:
  host: warehouse.internal
  user: loader
  password: { secret: prod/warehouse, key: password }
  database: analytics
  default_target_schema: shop
  hard_delete: true
schedule:
  every: 5 minutes
`;

const INTRODUCTION = `<!-- Made by \`node docs/generate-configuration.ts\` from lib/config: change it there. -->
# Configuration

One YAML file (or JSON) describes one pipeline. \`sluice init URL\` writes one from what it finds in a source. The file is checked as a whole
when it is read, when the stack is synthesised, and when a function starts: a key that is not listed here is an error, and each error names line,
column, key and remedy. Editors check it too, with [pipeline.schema.json](pipeline.schema.json): begin the file with
\`# yaml-language-server: $schema=PATH/docs/pipeline.schema.json\`.

\`\`\`yaml
${EXAMPLE}\`\`\`
`;

const SECRETS = `## Secrets

A secret is never in the file. Where one is needed, the file says where it is:

- \`\${env:NAME}\`: an environment variable, on one machine. (Functions on AWS have none: their environment stands in the template.)
- \`{ secret: NAME, key: KEY }\`: an entry of AWS Secrets Manager by name or ARN; \`key\` names a field where the entry's text is a JSON object.
- \`{ iam: true, region: REGION }\`, for the password alone: no secret, but an IAM token of Amazon RDS that is made for each connection. \`region\` may be left out where
  \`host\` is the endpoint's own name. TLS is required. A replication connection takes none, so that the log is read with \`slot_reader: peek\`, and tables without a
  key cannot be followed.
`;

const TABLES = `Each entry is \`schema.table\`, a glob (\`*\` stands for any characters, \`?\` for one, in either half), or a map with these options. Names are
the catalog's own spelling: case counts. A name that holds a dot, a quote, \`*\` or \`?\` is written in double quotes, \`public."odd.name"\`, and
nothing in quotes is a wildcard. A glob that begins with \`*\` needs YAML's quotes: \`"*.orders"\`.

A table that is named must be there, and LOG_BASED must be able to follow it: an ordinary or partitioned, logged table with a primary
key or a replica identity index, or, with \`target.primary_key_required: false\`, without one.
A glob takes the tables that can be followed, and \`doctor\` lists the others with the reason. Schemas of the system and \`_sluice\` are never matched.
`;

const TABLE_SCHEDULE = `\`every\` or \`cron\`. With \`LOG_BASED\`, every window stages the table's changes, and at these times they are loaded; by query, these are the
times at which it is read. A new table is copied at once. \`sluice run --until-caught-up\` and a reset do not wait for them.
`;

/** docs/CONFIGURATION.md. */
export function configurationPage(): string {
  const own = (options: Options): Options =>
    Object.fromEntries(Object.entries(options).filter(([name]) => !Object.hasOwn(connectionOptions, name)));
  return [
    INTRODUCTION,
    section('The file', '', pipelineSchema.shape),
    SECRETS,
    section('Connection: `source` and `target`', '', connectionOptions),
    section('TLS: `ssl` of a connection', '', sslSchema.shape),
    section('SSH tunnel: `ssh` of a connection', '', sshSchema.shape),
    section('Reading the log: `source`', '', own(sourceOptions.shape)),
    section('Tables: `tables`', TABLES, tableOptions.shape),
    section('A schedule of its own: `schedule` of a table', TABLE_SCHEDULE, tableScheduleOptions.shape),
    section('Writing: `target`', '', own(targetOptions.shape)),
    section('Schedule: `schedule`', 'Exactly one of `every`, `cron` and `continuous`.\n', scheduleOptions.shape),
    ...notInThisVersion(),
  ].join('\n');
}

function section(title: string, text: string, options: Options): string {
  const rows = Object.entries(options).map(([name, schema]) => {
    const { sentence = '', unit } = optionFacts(schema) ?? {};
    const type = `${expectation(schema)}${unit ? `; ${unit}` : ''}`;
    return `| \`${name}\` | ${cell(type)} | ${cell(defaultText(schema))} | ${cell(sentence)} |`;
  });
  const head = '| option | value | default | meaning |\n|---|---|---|---|';
  return `## ${title}\n\n${text === '' ? '' : `${text}\n`}${head}\n${rows.join('\n')}\n`;
}

function defaultText(schema: z.core.$ZodType): string {
  const words = optionFacts(schema)?.default_text;
  if (words !== undefined) return words;
  const value = defaultOf(schema);
  return value === null ? 'none' : `\`${value}\``;
}

function notInThisVersion(): string[] {
  const keys = ['source', 'tables', 'target'].flatMap((place) =>
    unavailableKeys(place).map(([key, { what }]) => `| \`${place}\` | \`${key}\` | ${cell(what)} |`),
  );
  const values = unavailableValues().map(
    ([place, value, { what }]) => `| \`${place}\` | \`${value}\` | ${cell(what)} |`,
  );
  if (keys.length + values.length === 0) return [];
  const head = '| in | option or value | what it would be |\n|---|---|---|';
  return [
    `## Not in this version\n\nPlanned, known by name, and refused until they are there.\n\n${head}\n${[...keys, ...values].join('\n')}\n`,
  ];
}

/** Text for a cell of a table; what stands in backquotes is shown as it is. */
function cell(text: string): string {
  return text
    .split('`')
    .map((part, i) => (i % 2 === 1 ? part : part.replaceAll('*', '\\*').replaceAll('<', '&lt;').replaceAll('_', '\\_')))
    .join('`')
    .replaceAll('|', '\\|');
}

/** docs/pipeline.schema.json: what an editor can check without a program (rules between options are not in it). */
export function pipelineJsonSchema(): Record<string, unknown> {
  const schema = z.toJSONSchema(pipelineSchema, {
    io: 'input',
    unrepresentable: 'any',
    override: ({ jsonSchema }) => {
      // zod bounds a whole number by what a double can hold: no bound of ours.
      if (jsonSchema.minimum === Number.MIN_SAFE_INTEGER) delete jsonSchema.minimum;
      if (jsonSchema.maximum === Number.MAX_SAFE_INTEGER) delete jsonSchema.maximum;
    },
  });
  return { title: JSON_SCHEMA_TITLE, ...schema };
}

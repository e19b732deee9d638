/**
 * Checks of how rows are validated (target.validate_records): schemas that no row of their table can fit, or that speak of columns that are not there, and tables whose
 * rows cannot be put aside.
 */
import { nearestName } from '../config/nearest.ts';
import type { StreamDefinition } from '../config/selection.ts';
import { SluiceError } from '../errors.ts';
import { projectionFor, projectionOf } from '../projection/projection.ts';
import { displayName } from '../shape.ts';
import type { Check, Finding } from './finding.ts';

type Found = Omit<Finding, 'check'>;

export const VALIDATION_CHECKS: readonly Check[] = [
  {
    name: 'json_schema',
    run: ({ source, pipeline }) => {
      if (source instanceof SluiceError || !pipeline.target.validate_records) return [];
      return source.selection.streams.flatMap(schemaFindings);
    },
  },
  {
    name: 'on_invalid',
    run: ({ source, pipeline }) => {
      if (source instanceof SluiceError) return [];
      const { validate_records, on_invalid } = pipeline.target;
      if (!validate_records || on_invalid !== 'reject') return [];
      return source.selection.streams.filter(({ table }) => table.key.length === 0).map(keylessFinding);
    },
  },
];

/** What the schema names at its top: columns as the stream has them. */
function schemaFindings({ table, options }: StreamDefinition): Found[] {
  const { json_schema } = options;
  if (json_schema === null || typeof json_schema === 'string') return [];
  const projection = projectionOf(options, '');
  const hidden = projection && projectionFor(projection, table);
  const columns = table.columns.map(({ name }) => name).filter((name) => hidden?.treatmentOf(name) !== 'drop');
  const subject = `table ${displayName(table)}`;
  const { required, properties } = json_schema;
  const missing = namesIn(required).filter((name) => !columns.includes(name));
  const unknown = Object.keys(isMap(properties) ? properties : {}).filter(
    (name) => !columns.includes(name) && !missing.includes(name),
  );
  return [
    ...missing.map((name): Found => {
      const problem = `Its JSON Schema requires column ${name}, which is not there or is not replicated: no row is valid.`;
      return { severity: 'error', subject, problem, remedy: remedyFor(name, columns) };
    }),
    ...unknown.map((name): Found => {
      const problem = `Its JSON Schema speaks of column ${name}, which is not there or is not replicated: nothing is checked by that.`;
      return { severity: 'warning', subject, problem, remedy: remedyFor(name, columns) };
    }),
  ];
}

function remedyFor(name: string, columns: readonly string[]): string {
  const nearest = nearestName(name, columns);
  return nearest === null ? 'Correct the schema (tables.json_schema).' : `Did you mean ${nearest}?`;
}

function keylessFinding({ table }: StreamDefinition): Found {
  const problem =
    'It has no key, so that a row could not be put aside and loaded later: one that is not valid halts it, whatever target.on_invalid says.';
  return { severity: 'warning', subject: `table ${displayName(table)}`, problem, remedy: 'Give it a primary key.' };
}

function namesIn(list: unknown): string[] {
  return Array.isArray(list) ? list.filter((name): name is string => typeof name === 'string') : [];
}

function isMap(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

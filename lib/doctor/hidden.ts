/**
 * Checks of what the pipeline file hides: columns that it names and no table has, and row filters that the source cannot publish. A name with a typing error hides
 * nothing.
 */

import { nearestName } from '../config/nearest.ts';
import { isByQuery } from '../config/queryable.ts';
import type { TableConfig } from '../config/schema.ts';
import type { StreamDefinition } from '../config/selection.ts';
import { SluiceError } from '../errors.ts';
import { unknownColumns } from '../projection/projection.ts';
import { displayName } from '../shape.ts';
import { identityFault, rowFilterFault } from '../slot/row-filter.ts';
import { type Check, type Finding, findingOf } from './finding.ts';
import type { SourceSurvey } from './survey-source.ts';

type Found = Omit<Finding, 'check'>[];

export const HIDDEN_CHECKS: readonly Check[] = [
  {
    name: 'columns_unknown',
    run: ({ source }) => (source instanceof SluiceError ? [] : columnsUnknown(source)),
  },
  {
    name: 'row_filters',
    run: ({ source }) => (source instanceof SluiceError ? [] : rowFilters(source)),
  },
];

/** Of a glob, what none of its tables has. */
function columnsUnknown({ selection }: SourceSurvey): Found {
  const byEntry = new Map<TableConfig, StreamDefinition[]>();
  for (const stream of selection.streams) {
    byEntry.set(stream.options, [...(byEntry.get(stream.options) ?? []), stream]);
  }
  return [...byEntry].flatMap(([entry, streams]) => {
    const [first, ...others] = streams.map(({ table }) => new Set(unknownColumns(table, entry)));
    const unknown = [...(first ?? [])].filter((name) => others.every((names) => names.has(name)));
    const names = streams.flatMap(({ table }) =>
      [...table.columns, ...(table.generated ?? [])].map(({ name }) => name),
    );
    return unknown.map((name) => {
      const nearest = nearestName(name, names);
      return {
        severity: 'warning' as const,
        subject:
          streams.length === 1 && streams[0] ? `table ${displayName(streams[0].table)}` : `tables: ${entry.table}`,
        problem: `The file names column ${name}, which is not there: nothing is hidden or replicated by it.`,
        remedy:
          nearest === null
            ? 'Correct the name; or keep it for a column that is still to come.'
            : `Did you mean ${nearest}?`,
      };
    });
  });
}

function rowFilters({ selection, ground, filters }: SourceSurvey): Found {
  return selection.streams
    .filter(({ options }) => options.where !== null && !isByQuery(options))
    .flatMap((stream) => {
      const read = filters?.get(stream.table.oid);
      const fault =
        rowFilterFault(stream, ground.version) ??
        (read instanceof SluiceError ? read : read ? identityFault(stream.table, read) : null);
      return fault ? [findingOf(`table ${displayName(stream.table)}`, fault)] : [];
    });
}

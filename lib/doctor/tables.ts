/**
 * Checks of the selected tables: what keeps one from being followed, and what a glob has left out. The decision is `config/followable.ts`'s, the same
 * as a window's.
 */
import { followFault } from '../config/followable.ts';
import { SluiceError } from '../errors.ts';
import { displayName } from '../shape.ts';
import type { Check, Finding } from './finding.ts';
import { findingOf } from './finding.ts';

export const TABLE_CHECKS: readonly Check[] = [
  {
    name: 'tables_selected',
    run: ({ source }) => {
      if (source instanceof SluiceError) return [];
      return source.selection.faults.map((fault) => findingOf(subjectOf(fault), fault));
    },
  },
  {
    name: 'tables_left_out',
    run: ({ source }) => {
      if (source instanceof SluiceError) return [];
      const { tables, selection, ground } = source;
      const left = new Set(selection.skipped.map(({ table }) => displayName(table)));
      return tables
        .filter((table) => left.has(displayName(table)))
        .flatMap((table): Omit<Finding, 'check'>[] => {
          const fault = followFault(table, ground.user);
          if (!fault) return [];
          // A view is left out by its nature; a table that lacks something may have been meant.
          const severity = fault.code === 'TABLE_KIND' ? 'info' : 'warning';
          const problem = `It matches a glob and is left out. ${fault.message}`;
          return [{ severity, subject: `table ${displayName(table)}`, problem, remedy: fault.remedy }];
        });
    },
  },
];

function subjectOf({ facts }: SluiceError): string {
  return typeof facts.table === 'string' ? `table ${facts.table}` : 'tables';
}

/**
 * Checks of the selected tables: what keeps one from being followed, and what a glob has left out. The decision is `config/followable.ts`'s, the same
 * as a window's.
 */
import { SluiceError } from '../errors.ts';
import { displayName } from '../shape.ts';
import { fullIdentitySql, isAppendOnly } from '../slot/append-publication.ts';
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
      return source.selection.skipped.map(({ table, fault }): Omit<Finding, 'check'> => {
        // A view is left out by its nature; a table that lacks something may have been meant.
        const severity = fault.code === 'TABLE_KIND' ? 'info' : 'warning';
        const problem = `It matches a glob and is left out. ${fault.message}`;
        return { severity, subject: `table ${displayName(table)}`, problem, remedy: fault.remedy };
      });
    },
  },
  {
    name: 'tables_append_only',
    run: ({ source }) => {
      if (source instanceof SluiceError) return [];
      return source.selection.streams
        .filter(({ table }) => isAppendOnly(table))
        .map(({ table }): Omit<Finding, 'check'> => {
          const problem =
            'It has neither a key nor REPLICA IDENTITY FULL: only INSERT and TRUNCATE are followed, updates and deletes are not.';
          const remedy = `Run: ${fullIdentitySql(table)}; or give it a primary key.`;
          return { severity: 'warning', subject: `table ${displayName(table)}`, problem, remedy };
        });
    },
  },
];

function subjectOf({ facts }: SluiceError): string {
  return typeof facts.table === 'string' ? `table ${facts.table}` : 'tables';
}

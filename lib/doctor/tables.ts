/**
 * Checks of the selected tables: what keeps one from being followed, and what a glob has left out. The decision is `config/followable.ts`'s, the same
 * as a window's.
 */

import { isByQuery } from '../config/queryable.ts';
import type { StreamDefinition } from '../config/selection.ts';
import { lookbackFault, replicationKeyFault } from '../epoch/pages.ts';
import { SluiceError } from '../errors.ts';
import { LSN_COLUMN } from '../lsn-column.ts';
import { displayName, withTypes } from '../shape.ts';
import { fullIdentitySql, isAppendOnly } from '../slot/append-publication.ts';
import { quoteIdentifier, quoteTable } from '../sql-text.ts';
import type { Check, Finding } from './finding.ts';
import { findingOf } from './finding.ts';
import { columnKey, type SourceSurvey } from './survey-source.ts';

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
        .filter(({ table, options }) => !isByQuery(options) && isAppendOnly(table))
        .map(({ table }): Omit<Finding, 'check'> => {
          const problem =
            'It has neither a key nor REPLICA IDENTITY FULL: only INSERT and TRUNCATE are followed, updates and deletes are not.';
          const remedy = `Run: ${fullIdentitySql(table)}; or give it a primary key.`;
          return { severity: 'warning', subject: `table ${displayName(table)}`, problem, remedy };
        });
    },
  },
  {
    name: 'debug_lsn',
    run: ({ source, pipeline }) =>
      source instanceof SluiceError || !pipeline.source.debug_lsn
        ? []
        : source.selection.streams.flatMap((stream) => debugLsn(stream)),
  },
  {
    name: 'replication_key',
    run: ({ source }) =>
      source instanceof SluiceError ? [] : source.selection.streams.flatMap((stream) => replicationKey(source, stream)),
  },
];

/** With source.debug_lsn: tables that have no place for it, and those whose rows do not get it. */
function debugLsn({ table, options }: StreamDefinition): Omit<Finding, 'check'>[] {
  const subject = `table ${displayName(table)}`;
  const others = [...table.columns, ...(table.generated ?? [])];
  if (table.lsn === true && others.some(({ name }) => name === LSN_COLUMN.name)) {
    const fault = new SluiceError('METADATA_COLUMN_TAKEN', { stream: displayName(table), column: LSN_COLUMN.name });
    return [findingOf(subject, fault)];
  }
  if (isByQuery(options) || table.key.length > 0) return [];
  const problem = `It has no key, and its rows get no ${LSN_COLUMN.name}.`;
  return [{ severity: 'info', subject, problem, remedy: 'Give it a primary key; or leave it as it is.' }];
}

/** pg_class.relkind of what can have an index: tables, partitioned ones, materialized views. */
const INDEXED_KINDS = new Set(['r', 'p', 'm']);

/** Of an INCREMENTAL stream: what its runs cost, and what they do not see. */
function replicationKey(
  { types, indexed }: SourceSurvey,
  { table, options }: StreamDefinition,
): Omit<Finding, 'check'>[] {
  const { replication_key, lookback } = options;
  const column = table.columns.find(({ name }) => name === replication_key);
  if (replication_key === null || column === undefined) return [];
  const subject = `table ${displayName(table)}`;
  const [typed = column] = withTypes([column], types);
  const fault = replicationKeyFault(table, typed) ?? lookbackFault(table, typed, lookback);
  if (fault) return [findingOf(subject, fault)];
  const remark = (problem: string, remedy: string): Omit<Finding, 'check'> => ({
    severity: 'info',
    subject,
    problem,
    remedy,
  });
  const found: Omit<Finding, 'check'>[] = [];
  if (indexed && INDEXED_KINDS.has(table.kind) && !indexed.has(columnKey(table.oid, replication_key))) {
    const problem = `No index begins with its replication key ${replication_key}: each run reads the whole table to find what is new.`;
    found.push(remark(problem, `Run: CREATE INDEX ON ${quoteTable(table)} (${quoteIdentifier(replication_key)});`));
  }
  if (!column.not_null && table.kind !== 'v') {
    const problem = `Its replication key ${replication_key} may be NULL: rows without a value are read with every run.`;
    const remedy = `Where it never is, run: ALTER TABLE ${quoteTable(table)} ALTER ${quoteIdentifier(replication_key)} SET NOT NULL;`;
    found.push(remark(problem, remedy));
  }
  if (lookback === null) {
    const problem = `A row that is committed later than another with a greater ${replication_key} is never seen, for there is no lookback.`;
    found.push(
      remark(
        problem,
        'Set lookback to more than the longest transaction that writes to it, unless its values are only given out one commit after another.',
      ),
    );
  }
  return found;
}

function subjectOf({ facts }: SluiceError): string {
  return typeof facts.table === 'string' ? `table ${facts.table}` : 'tables';
}

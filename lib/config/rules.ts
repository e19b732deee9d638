/**
 * What options must say together. Each rule looks at sections that are valid in themselves, so that one reading of a file lists every fault.
 */
import { conditionFault } from './condition.ts';
import { connectionFindings, walsenderFindings } from './connection-rules.ts';
import { isSameDatabase, targetOf } from './destination.ts';
import type { Path } from './document.ts';
import type { Finding } from './explain.ts';
import { isReservedSchema } from './followable.ts';
import { projectionFindings } from './projection-rules.ts';
import { scheduleFindings } from './schedule-rules.ts';
import type { PipelineFile } from './schema.ts';
import { exactName, formatTableName, isGlob, parseTablePattern } from './table-pattern.ts';
import { validationFindings } from './validation-rules.ts';

type Source = PipelineFile['source'];
type Target = PipelineFile['target'];
type Tables = PipelineFile['tables'];

const SIDES = ['source', 'target'] as const;

/** Findings of all rules over the sections that are given. */
export function checkRules(file: Partial<PipelineFile>): Finding[] {
  const { source, target, tables } = file;
  return [
    ...SIDES.flatMap((side) => connectionFindings(side, file[side])),
    ...walsenderFindings(file),
    ...(target ? targetFindings(target) : []),
    ...(tables ? tableFindings(tables) : []),
    ...(tables ?? []).flatMap((entry, i) => projectionFindings(entry, i, file)),
    ...scheduleFindings(file),
    ...validationFindings(file),
    ...(source ? [...pageFindings(source), ...secondaryFindings(source)] : []),
    ...(source && target && tables ? sameTableFindings(source, target, tables) : []),
  ];
}

function finding(path: Path, part: Finding['part'], problem: string, remedy: string): Finding {
  return { path, part, problem, remedy };
}

function targetFindings(target: Target): Finding[] {
  const findings: Finding[] = [];
  if (target.hard_delete && target.add_metadata_columns === false) {
    findings.push(
      finding(
        ['target', 'add_metadata_columns'],
        'value',
        'target.add_metadata_columns is false, and target.hard_delete needs these columns.',
        'Remove add_metadata_columns (hard_delete turns it on), or set hard_delete: false.',
      ),
    );
  }
  findings.push(...indexFindings(target));
  const schemas: [Path, string | null][] = [
    [['target', 'default_target_schema'], target.default_target_schema],
    ...Object.entries(target.schema_mapping).map(([from, to]): [Path, string] => [
      ['target', 'schema_mapping', from],
      to,
    ]),
  ];
  return [...findings, ...schemas.flatMap(([path, schema]) => reservedFindings(path, schema))];
}

function indexFindings({ indices, hard_delete }: Target): Finding[] {
  return Object.entries(indices).flatMap(([table, wanted]) => {
    const pattern = parseTablePattern(table);
    if (!pattern || exactName(pattern) === null) {
      const problem = `target.indices names ${table}, which is no table: it must be schema.table, without wildcards.`;
      return [finding(['target', 'indices', table], 'key', problem, 'Name one source table for each list of indexes.')];
    }
    return wanted.flatMap(({ unique, where }, i) => {
      const path = ['target', 'indices', table, i];
      const fault = where === null ? null : conditionFault(where);
      if (fault !== null) {
        const problem = `target.indices: where of an index of ${table} ${fault}`;
        return [finding(path, 'value', problem, 'Write one condition in SQL, as it would stand between brackets.')];
      }
      if (unique && !hard_delete) {
        const problem =
          'A unique index needs target.hard_delete: rows that stay after their deletion keep their values.';
        return [finding(path, 'value', problem, 'Set hard_delete: true, or remove `unique`.')];
      }
      if (unique && where !== null) {
        const problem =
          'A unique index with a condition cannot be checked at commit, only row by row, which a batch is not in the order for.';
        return [finding(path, 'value', problem, 'Remove `unique` or `where`.')];
      }
      return [];
    });
  });
}

function reservedFindings(path: Path, schema: string | null): Finding[] {
  if (schema === null || !isReservedSchema(schema)) return [];
  const problem = `Schema ${schema} is the system's or Sluice's own, and no place for tables.`;
  return [finding(path, 'value', problem, 'Choose another schema.')];
}

function tableFindings(tables: Tables): Finding[] {
  return tables.flatMap((entry, i) => {
    const pattern = parseTablePattern(entry.table);
    const findings = reservedFindings(['tables', i, 'target_schema'], entry.target_schema);
    findings.push(...methodFindings(entry, i));
    if (!pattern) return findings;
    if (isGlob(pattern) && entry.target_table !== null) {
      const problem = `tables[${i}].target_table names one table, and ${entry.table} may match many.`;
      findings.push(
        finding(['tables', i, 'target_table'], 'key', problem, 'Name the one table in table, or use target_schema.'),
      );
    }
    if (!pattern.schema.glob && isReservedSchema(pattern.schema.text)) {
      const problem = `tables[${i}] is of schema ${pattern.schema.text}, which is the system's or Sluice's own and is not replicated.`;
      findings.push(finding(['tables', i], 'value', problem, 'Remove it.'));
    }
    return findings;
  });
}

/** What one replication method needs, and what belongs to others. */
function methodFindings(
  { replication_method: method, replication_key, lookback, key_properties }: Tables[number],
  i: number,
): Finding[] {
  const findings: Finding[] = [];
  const only = (key: string, methods: string): void => {
    const problem = `tables[${i}].${key} belongs to ${methods}, and replication_method is ${method}.`;
    findings.push(finding(['tables', i, key], 'key', problem, 'Remove it, or change replication_method.'));
  };
  if (method === 'INCREMENTAL' && replication_key === null) {
    const problem = `tables[${i}].replication_key is missing: INCREMENTAL follows a column.`;
    findings.push(finding(['tables', i], 'key', problem, 'Add it, as in: replication_key: updated_at'));
  }
  if (method !== 'INCREMENTAL' && replication_key !== null) only('replication_key', 'INCREMENTAL');
  if (method !== 'INCREMENTAL' && lookback !== null) only('lookback', 'INCREMENTAL');
  if (method === 'LOG_BASED' && key_properties !== null) only('key_properties', 'INCREMENTAL and FULL_TABLE');
  const twice = key_properties?.find((name, at) => key_properties.indexOf(name) !== at);
  if (twice !== undefined) {
    const problem = `tables[${i}].key_properties names ${twice} twice.`;
    findings.push(finding(['tables', i, 'key_properties'], 'value', problem, 'Name each column once.'));
  }
  return findings;
}

/** Two names of one option. */
function pageFindings({ itersize, batch_fetch_limit }: Source): Finding[] {
  if (itersize === undefined || batch_fetch_limit === undefined) return [];
  const problem = 'source.batch_fetch_limit is given beside source.itersize, which is the same.';
  return [finding(['source', 'batch_fetch_limit'], 'key', problem, 'Keep one of them.')];
}

/** A replica is an address beside that of the primary. */
function secondaryFindings({ use_secondary, secondary_host, secondary_port, host, port }: Source): Finding[] {
  if (secondary_host === null && secondary_port !== undefined) {
    const problem = 'source.secondary_port is given without source.secondary_host.';
    return [finding(['source', 'secondary_port'], 'key', problem, 'Add secondary_host, or remove secondary_port.')];
  }
  if (!use_secondary) return [];
  if (secondary_host === null || host === null) {
    const lacking = secondary_host === null ? 'secondary_host' : 'host';
    const problem = `source.use_secondary is given without source.${lacking}.`;
    const remedy = `Add ${lacking}: NAME; or remove use_secondary.`;
    return [finding(['source', 'use_secondary'], 'key', problem, remedy)];
  }
  if (secondary_host.toLowerCase() !== host.toLowerCase() || (secondary_port ?? port) !== port) return [];
  const problem = 'source.secondary_host is source.host itself.';
  return [finding(['source', 'secondary_host'], 'value', problem, 'Name the replica, or remove use_secondary.')];
}

/** Tables that are named, and the same for globs when the source is known (`selection.ts`). */
function sameTableFindings(source: Source, target: Target, tables: Tables): Finding[] {
  const findings: Finding[] = [];
  const entries = new Map<string, { index: number; to: string }>();
  for (const [index, entry] of tables.entries()) {
    const pattern = parseTablePattern(entry.table);
    const name = pattern && exactName(pattern);
    if (!name) continue;
    entries.set(formatTableName(name), { index, to: formatTableName(targetOf(name, entry, target)) });
  }
  const writers = new Map<string, string>();
  for (const [from, { index, to }] of entries) {
    const other = writers.get(to);
    if (other !== undefined) {
      const problem = `${other} and ${from} would both be written to ${to}.`;
      findings.push(
        finding(['tables', index], 'value', problem, 'Give one of them another target_schema or target_table.'),
      );
    }
    writers.set(to, other ?? from);
    if (isSameDatabase(source, target) && entries.has(to)) {
      const problem = `${from} would be written to ${to} in the database that it is read from.`;
      const remedy = 'Name another target database, or a target_schema or target_table that is not replicated.';
      findings.push(finding(['tables', index], 'value', problem, remedy));
    }
  }
  return findings;
}

/**
 * Checks of the target: reached, writable, and a place for every stream that is the stream's own (I12).
 */
import { SluiceError } from '../errors.ts';
import { targetEncodingFault } from '../load/encoding.ts';
import { versionText } from '../postgres/session.ts';
import { displayName, type SourceType, type TableName, type TypeName } from '../shape.ts';
import { quoteIdentifier, quoteTable } from '../sql-text.ts';
import type { Check, Finding, Survey } from './finding.ts';
import { findingOf } from './finding.ts';
import type { TargetSurvey, TargetTable } from './survey-target.ts';

const TARGET_VERSION_MIN = 100_000;
/** Of the columns that a finding is about. */
const COLUMNS_SHOWN_MAX = 5;

type Found = readonly Omit<Finding, 'check'>[];

function onceReached(name: string, run: (target: TargetSurvey, survey: Survey) => Found): Check {
  return { name, run: (survey) => (survey.target instanceof SluiceError ? [] : run(survey.target, survey)) };
}

export const TARGET_CHECKS: readonly Check[] = [
  {
    name: 'target_connection',
    run: ({ target }) => (target instanceof SluiceError ? [findingOf('target', target)] : []),
  },
  onceReached('target_server', ({ server }) => {
    if (server.version < TARGET_VERSION_MIN) {
      const facts = {
        side: 'target',
        version: versionText(server.version),
        minimum: versionText(TARGET_VERSION_MIN),
      };
      return [findingOf('target', new SluiceError('VERSION_UNSUPPORTED', facts))];
    }
    const fault = targetEncodingFault(server.encoding);
    return fault ? [findingOf('target', fault)] : [];
  }),
  onceReached('target_writable', ({ server }, { pipeline }) => {
    if (!server.in_recovery && !server.read_only) return [];
    const reason = server.in_recovery ? 'it is a standby' : 'default_transaction_read_only is on';
    const { host, port } = pipeline.target;
    return [findingOf('target', new SluiceError('TARGET_READ_ONLY', { host: host ?? 'embedded', port, reason }))];
  }),
  onceReached('target_rights', targetRights),
  onceReached('target_tables', targetTables),
  onceReached('target_types', targetTypes),
  onceReached('target_ledger', ({ streams }, { pipeline, chain }) => {
    if (!Array.isArray(streams) || chain === undefined) return [];
    const expected = chain?.incarnation ?? 'a new one';
    return streams
      .filter((row) => row.pipeline === pipeline.pipeline && row.incarnation !== expected)
      .map(({ stream, incarnation: found }) =>
        findingOf(`stream ${stream}`, new SluiceError('LEDGER_INCARNATION', { stream, found, expected })),
      );
  }),
];

/** The right to make what is missing, and to write into what is there. */
function targetRights({ server, schemas, streams }: TargetSurvey): Found {
  const { user, database } = server;
  const role = quoteIdentifier(user);
  const found: Omit<Finding, 'check'>[] = [];
  const lacks = (reason: string, sql: string): void => {
    found.push(findingOf('target', new SluiceError('TARGET_NOT_ALLOWED', { user, reason, sql })));
  };
  const missing = schemas.filter(({ there }) => !there).map(({ name }) => name);
  if (missing.length > 0 && !server.creates_in_database) {
    const sql = `GRANT CREATE ON DATABASE ${quoteIdentifier(database)} TO ${role}`;
    lacks(`it may not make schema ${missing.join(', ')}.`, sql);
  }
  for (const { name } of schemas.filter(({ there, writable }) => there && !writable)) {
    lacks(
      `it may not make tables in schema ${name}.`,
      `GRANT USAGE, CREATE ON SCHEMA ${quoteIdentifier(name)} TO ${role}`,
    );
  }
  if (streams === 'unreadable') {
    lacks(
      'it may not use the tables of schema _sluice, which another role has made.',
      `GRANT ALL ON ALL TABLES IN SCHEMA _sluice TO ${role}`,
    );
  }
  return found;
}

/** Each place is free, or holds what this very stream has made; and it is not where the stream comes from. */
function targetTables({ server, tables, streams }: TargetSurvey, { pipeline, source }: Survey): Found {
  if (source instanceof SluiceError) return [];
  const there = new Map(tables.map((table) => [keyOf(table), table]));
  const rows = Array.isArray(streams) ? streams : [];
  const owners = new Map(rows.map((row) => [keyOf({ schema: row.target_schema, table: row.target_table }), row]));
  // Whatever they are called, two addresses of one database are found out by the cluster's own id.
  const same =
    server.system_identifier === source.ground.system_identifier && server.database === pipeline.source.database;
  const read = new Set(same ? source.selection.streams.map((stream) => keyOf(stream.source)) : []);

  const found: Omit<Finding, 'check'>[] = [];
  for (const { id, target } of source.selection.streams) {
    const table = there.get(keyOf(target));
    const owner = owners.get(keyOf(target));
    const ours = owner?.pipeline === pipeline.pipeline && owner.stream === id;
    const reason = read.has(keyOf(target))
      ? 'source and target are the same database, and it is a table that is replicated.'
      : owner && !ours
        ? `in _sluice.streams it belongs to pipeline ${owner.pipeline}, stream ${owner.stream}.`
        : table && !(ours && owner.made) && streams !== 'unreadable'
          ? 'it exists, and Sluice did not make it.'
          : null;
    if (reason) {
      const facts = { stream: id, table: displayName(target), reason };
      found.push(findingOf(`table ${displayName(target)}`, new SluiceError('TARGET_TABLE_TAKEN', facts)));
    } else if (table && !table.owned) {
      found.push(notOwned(table, server.user));
    }
  }
  return found;
}

/** Columns whose type the target neither has nor is given: they will be text, and hold what the source prints. */
function targetTypes({ types_lacking }: TargetSurvey, { source, pipeline }: Survey): Found {
  if (source instanceof SluiceError) return [];
  const makes = pipeline.target.custom_types === 'create';
  return types_lacking.flatMap((lacking) => {
    const name = `${lacking.schema}.${lacking.name}`;
    const used = source.selection.streams.flatMap(({ table }) =>
      [...table.columns, ...(table.generated ?? [])]
        .filter(({ type_oid }) => isMadeOf(source.types.get(type_oid), lacking, makes))
        .map((column) => `${displayName(table)}.${column.name}`),
    );
    if (used.length === 0) return [];
    const more = used.length > COLUMNS_SHOWN_MAX ? ` and ${used.length - COLUMNS_SHOWN_MAX} more` : '';
    const columns = used.slice(0, COLUMNS_SHOWN_MAX).join(', ') + more;
    const remedy =
      lacking.extension === null
        ? 'If it shall keep its type, make the type on the target before the first copy (the row of a table is always text).'
        : `If it shall keep its type, run on the target before the first copy: CREATE EXTENSION ${quoteIdentifier(lacking.extension)}`;
    return {
      severity: lacking.extension === null ? 'info' : 'warning',
      subject: `type ${name}`,
      problem: `The target does not have it: it will be text there, in ${columns}.`,
      remedy,
    };
  });
}

/** `makes`: domains and composites are made on the target; otherwise they are text, whatever they are made of. */
function isMadeOf(type: SourceType | undefined, part: TypeName, makes: boolean): boolean {
  switch (type?.kind) {
    case undefined:
    case 'enum':
      return false;
    case 'array':
      return isMadeOf(type.element.type, part, makes);
    case 'domain':
      return makes && isMadeOf(type.base.type, part, makes);
    case 'composite':
      return makes && type.attributes.some((attribute) => isMadeOf(attribute.type, part, makes));
    case 'named':
      return type.schema === part.schema && type.name === part.name;
    default:
      return type satisfies never;
  }
}

function notOwned(table: TargetTable, user: string): Omit<Finding, 'check'> {
  const reason = `${displayName(table)} is owned by another role, and only its owner may change or replace it.`;
  const sql = `ALTER TABLE ${quoteTable(table)} OWNER TO ${quoteIdentifier(user)}`;
  return findingOf(`table ${displayName(table)}`, new SluiceError('TARGET_NOT_ALLOWED', { user, reason, sql }));
}

function keyOf({ schema, table }: TableName): string {
  return JSON.stringify([schema, table]);
}

/**
 * Checks of the source: reached, its ground, slot, publication, and the limits that a slot lives by. The faults of the ground are those that stop a
 * window (`slot/ground.ts`); what else is found here would hurt later.
 */

import { isByQuery } from '../config/queryable.ts';
import type { Pipeline } from '../config/schema.ts';
import type { StreamDefinition } from '../config/selection.ts';
import { asSluiceError, SluiceError } from '../errors.ts';
import { displayName } from '../shape.ts';
import { appendOperations, appendPublicationName, appendState, isAppendOnly } from '../slot/append-publication.ts';
import { clusterFault, readingFault, serverFault, slotFault } from '../slot/ground.ts';
import { needsWriterLock, type PublicationState, type Publishable, publicationStep } from '../slot/publication.ts';
import { tableList } from '../slot/publication-members.ts';
import { refusedUpdates } from '../slot/refused-updates.ts';
import { slotRoom } from '../slot/room.ts';
import { publishedFilter } from '../slot/row-filter.ts';
import { quoteIdentifier } from '../sql-text.ts';
import { logsTruncate } from '../window/truncated.ts';
import type { Check, Finding, Survey } from './finding.ts';
import { findingOf } from './finding.ts';
import type { SourceSurvey } from './survey-source.ts';

/** Settings of a session are taken from this version on; before, the server's own wal_sender_timeout ends a window that is busy. */
const SESSION_TIMEOUT_SINCE = 120_000;
const WAL_SENDER_TIMEOUT_MS_MIN = 60_000;
const WAL_KEEP_LIMIT_SINCE = 130_000;
/** WAL that a slot holds beyond this is worth a word. */
const SLOT_WAL_BYTES_MAX = 10 * 1024 ** 3;
const SECONDS_PER_DAY = 86_400;

type Found = readonly Omit<Finding, 'check'>[];

/** A check that has nothing to say while the source cannot be asked. */
function onceReached(name: string, run: (source: SourceSurvey, survey: Survey) => Found): Check {
  return { name, run: (survey) => (survey.source instanceof SluiceError ? [] : run(survey.source, survey)) };
}

/** A check of what only the log needs: nothing to say where all is read by query, and no slot of ours keeps the log. */
function onceFollowed(name: string, run: (source: SourceSurvey, survey: Survey) => Found): Check {
  return onceReached(name, (source, survey) => (isSlotless(source, survey) ? [] : run(source, survey)));
}

function isSlotless({ selection: { streams } }: SourceSurvey, { chain }: Survey): boolean {
  const hasChain = chain !== undefined && chain !== null && chain.kind !== 'genesis';
  return !hasChain && streams.length > 0 && streams.every(({ options }) => isByQuery(options));
}

/** A window's own, or for the copy of a table without a key (lib/epoch/exact-snapshot.ts). */
function needsWalsender({ selection }: SourceSurvey, { source }: Pipeline): boolean {
  return source.slot_reader === 'stream' || logged(selection.streams).some(({ table }) => table.key.length === 0);
}

const expectations = ({ pipeline, chain }: Survey) => {
  const { host, port, database, replication_slot: slot, plugin, failover, create_slot } = pipeline.source;
  const begun = chain?.kind === 'genesis';
  return {
    host: host ?? 'embedded',
    port,
    database,
    slot,
    plugin,
    failover,
    create_slot,
    // Without a state to look at, nobody can say whose a slot is.
    slot_intended: begun || chain === undefined,
    head: begun ? null : (chain ?? null),
  };
};

export const SOURCE_CHECKS: readonly Check[] = [
  {
    name: 'source_connection',
    run: ({ source }) => (source instanceof SluiceError ? [findingOf('source', source)] : []),
  },
  onceReached('source_server', (source, survey) => {
    const { ground } = source;
    const fault = isSlotless(source, survey) ? readingFault(ground) : serverFault(ground, expectations(survey));
    return fault ? [findingOf('source', fault)] : [];
  }),
  onceFollowed('source_replication', (source, { replication, pipeline }) => {
    // A role without the right has been told so.
    if (!replication || !source.ground.may_replicate || !needsWalsender(source, pipeline)) return [];
    return [findingOf('source', replication)];
  }),
  onceFollowed('source_cluster', ({ ground }, survey) => {
    const expected = expectations(survey);
    const fault = clusterFault(ground, expected);
    if (fault) return [findingOf('source', fault)];
    if (!expected.head || ground.timeline === expected.head.timeline) return [];
    const problem = `The source was promoted since the last window: timeline ${ground.timeline}, before ${expected.head.timeline}.`;
    const remedy =
      'The slot has survived. Changes that the old primary had sent here and not to this server would differ: set synchronized_standby_slots (17+), and compare with `sluice verify`.';
    return [{ severity: 'warning', subject: 'source', problem, remedy }];
  }),
  onceFollowed('slot', ({ ground }, survey) => {
    const expected = expectations(survey);
    const { slot } = ground;
    const fault = slotFault(slot, expected);
    const subject = `slot ${expected.slot}`;
    if (fault) return [findingOf(subject, fault)];
    if (!slot) return [{ severity: 'info', subject, problem: 'It will be made by the first window.', remedy: null }];
    const { active_pid: pid, active_application: application_name, active_client: client } = slot;
    return pid === null
      ? []
      : [
          findingOf(
            subject,
            new SluiceError('SLOT_ACTIVE', { slot: expected.slot, pid, application_name, client }),
            'warning',
          ),
        ];
  }),
  onceFollowed('slot_room', (source, { pipeline }) => {
    const { ground, limits } = source;
    const found: Omit<Finding, 'check'>[] = [];
    const subject = 'source';
    if (!ground.slot && pipeline.source.create_slot && limits.slots_used >= limits.slots_max) {
      found.push(findingOf(subject, new SluiceError('SLOTS_EXHAUSTED', {})));
    } else if (
      !ground.slot?.active_pid &&
      limits.senders_used >= limits.senders_max &&
      needsWalsender(source, pipeline)
    ) {
      const problem = `All ${limits.senders_max} WAL senders are in use: a window could not read.`;
      found.push({
        severity: 'error',
        subject,
        problem,
        remedy: 'Raise max_wal_senders on the source and restart it.',
      });
    }
    return found;
  }),
  onceFollowed('slot_wal', slotWal),
  onceFollowed('source_plugin', ({ plugin }) => (plugin ? [findingOf('source', plugin)] : [])),
  onceFollowed('plugin_numbers', wal2jsonNumbers),
  onceFollowed('publication', publications),
  onceFollowed('source_truncate', ({ ground }) => {
    if (logsTruncate(ground.version)) return [];
    const problem =
      'PostgreSQL 10 does not tell of TRUNCATE in the log: a table that was truncated, or written anew by VACUUM FULL or CLUSTER, is copied anew (target.on_truncate: ignore leaves it).';
    const remedy = 'Keep VACUUM FULL and CLUSTER of large tables rare; or update the server.';
    return [{ severity: 'info', subject: 'source', problem, remedy }];
  }),
  onceFollowed('wal_sender_timeout', ({ ground, limits }, { pipeline }) => {
    if (pipeline.source.slot_reader === 'peek') return [];
    const { wal_sender_timeout_ms } = limits;
    if (ground.version >= SESSION_TIMEOUT_SINCE || wal_sender_timeout_ms === 0) return [];
    if (wal_sender_timeout_ms >= WAL_SENDER_TIMEOUT_MS_MIN) return [];
    const problem = `wal_sender_timeout is ${wal_sender_timeout_ms} ms, and cannot be set by a session before PostgreSQL 12: windows may be cut off.`;
    return [
      {
        severity: 'warning',
        subject: 'source',
        problem,
        remedy: "Run: ALTER SYSTEM SET wal_sender_timeout = '5min'; SELECT pg_reload_conf();",
      },
    ];
  }),
];

/** What becomes of the slot when nobody reads it. */
function slotWal({ ground, limits }: SourceSurvey, { pipeline }: Survey): Found {
  const found: Omit<Finding, 'check'>[] = [];
  const subject = `slot ${pipeline.source.replication_slot}`;
  if (limits.slot_wal_keep_mb === -1) {
    const problem =
      'max_slot_wal_keep_size is not limited: if windows stop, the slot keeps all WAL until the disk of the source is full.';
    const remedy =
      "Run: ALTER SYSTEM SET max_slot_wal_keep_size = '50GB'; SELECT pg_reload_conf();  with what the disk can spare.";
    found.push({ severity: 'warning', subject, problem, remedy });
  } else if (ground.version < WAL_KEEP_LIMIT_SINCE) {
    const problem =
      'Before PostgreSQL 13 nothing limits the WAL that a slot keeps: if windows stop, the disk of the source fills up.';
    found.push({ severity: 'warning', subject, problem, remedy: 'Watch the free disk of the source, or upgrade it.' });
  }
  const room = ground.slot && slotRoom(ground.slot);
  if (room?.at_risk && ground.slot?.wal_status !== 'lost') {
    const left = Math.floor((room.safe_wal_bytes ?? 0) / 1024 ** 2);
    const problem =
      ground.slot?.wal_status === 'unreserved'
        ? 'It has fallen so far behind that the next checkpoint may remove WAL that it needs.'
        : `The source can write ${left} MB more before it gives the slot up (max_slot_wal_keep_size).`;
    const remedy = 'Run a window now, and raise max_slot_wal_keep_size.';
    found.push({ severity: 'warning', subject, problem, remedy });
  } else if (limits.slot_wal_bytes !== null && limits.slot_wal_bytes > SLOT_WAL_BYTES_MAX) {
    const problem = `It holds ${Math.round(limits.slot_wal_bytes / 1024 ** 3)} GB of WAL on the source.`;
    found.push({
      severity: 'warning',
      subject,
      problem,
      remedy: 'Run windows more often, or find the long transaction that keeps it back.',
    });
  }
  const idle_seconds = limits.idle_slot_timeout_seconds;
  if (idle_seconds) {
    const { schedule } = pipeline;
    const between_seconds =
      schedule.kind === 'continuous' ? 0 : schedule.kind === 'every' ? schedule.every_seconds : SECONDS_PER_DAY;
    const severity = between_seconds >= idle_seconds ? 'error' : 'warning';
    const problem = `idle_replication_slot_timeout removes a slot that nobody has read for ${idle_seconds} seconds.`;
    const remedy =
      'Run: ALTER SYSTEM SET idle_replication_slot_timeout = 0; SELECT pg_reload_conf();  or run windows more often than that.';
    found.push({ severity, subject, problem, remedy });
  }
  return found;
}

function logged(streams: readonly StreamDefinition[]): StreamDefinition[] {
  return streams.filter(({ options }) => !isByQuery(options));
}

/** float4, float8, numeric. */
const NUMBERS: ReadonlySet<number> = new Set([700, 701, 1700]);

/** NaN and the infinities are looked up by the key (lib/decode/number-doubts.ts): where they may be in the key itself, nothing can be. */
function wal2jsonNumbers({ selection }: SourceSurvey, { pipeline }: Survey): Found {
  if (pipeline.source.plugin !== 'wal2json') return [];
  return logged(selection.streams).flatMap(({ table }): Found => {
    const column = table.columns.find(({ name, type_oid }) => table.key.includes(name) && NUMBERS.has(type_oid));
    if (!column) return [];
    const problem = `Column ${column.name} of its key can be NaN, which wal2json before 2.6 prints as null: the stream would halt there.`;
    const remedy = 'If such values occur, use wal2json 2.6 or newer, or source.plugin: pgoutput.';
    return [{ severity: 'warning', subject: `table ${table.schema}.${table.table}`, problem, remedy }];
  });
}

/** Whether the window will be able to publish what is selected: tables that are only appended to by a publication of their own. */
function publications(source: SourceSurvey, { pipeline }: Survey): Found {
  // wal2json needs none.
  if (pipeline.source.plugin === 'wal2json') return [];
  const { publication_name: name } = pipeline.source;
  const { publication, append_publication, rights, selection } = source;
  const [appends, whole] = [true, false].map((only) =>
    logged(selection.streams).filter(({ table }) => isAppendOnly(table) === only),
  ) as [StreamDefinition[], StreamDefinition[]];
  const more = append_publication ?? { state: null, owned: false };
  const refused = refusedUpdates(
    name,
    publication,
    appends.map(({ table }) => table),
  ).map(({ table, problem, remedy }) => ({
    severity: 'warning' as const,
    subject: `table ${displayName(table)}`,
    problem,
    remedy,
  }));
  return [
    ...refused,
    ...publicationOf(source, pipeline, {
      name,
      state: publication,
      owned: rights.owns_publication,
      streams: whole,
      appends: false,
    }),
    ...publicationOf(source, pipeline, { ...more, name: appendPublicationName(name), streams: appends, appends: true }),
  ];
}

/** With its row filter, as the window asks for it. */
function publishable(stream: StreamDefinition, { filters }: SourceSurvey): Publishable {
  const filter = publishedFilter(stream);
  const read = filters?.get(stream.table.oid);
  if (filter === null || read === undefined || read instanceof SluiceError) return stream.table;
  return { ...stream.table, filter, printed: read.text };
}

interface Publishing {
  readonly name: string;
  readonly state: PublicationState | null;
  /** The role may alter it. */
  readonly owned: boolean;
  readonly streams: readonly StreamDefinition[];
  readonly appends: boolean;
}

function publicationOf(source: SourceSurvey, pipeline: Pipeline, publishing: Publishing): Found {
  const { name, owned: owns, streams, appends } = publishing;
  const subject = `publication ${name}`;
  const { ground, rights, owned } = source;
  if (streams.length === 0) return [];
  let { state } = publishing;
  try {
    if (state && appends) state = appendState(name, state, ground.version);
  } catch (error) {
    return [findingOf(subject, asSluiceError(error))];
  }
  const step = publicationStep(
    name,
    state,
    streams.map((stream) => publishable(stream, source)),
    { version: ground.version, operations: appends ? appendOperations(ground.version) : null },
  );
  if (step.kind === 'ready') return [];
  if (step.kind === 'fault') return [findingOf(subject, step.fault)];

  const added = new Set(step.tables.map(({ schema, table }) => `${schema}\0${table}`));
  // Who alters settings needs no table.
  const foreign = (step.alters ? [] : streams).filter(
    ({ table }) => added.has(`${table.schema}\0${table.table}`) && !owned.has(table.oid),
  );
  const [first] = foreign;
  const lacks = state
    ? owns
      ? null
      : 'the publication is owned by another role'
    : rights.creates_in_database
      ? null
      : `it lacks CREATE on database ${quoteIdentifier(pipeline.source.database)}`;
  const reason = lacks ?? (first ? `${first.table.schema}.${first.table.table} is owned by another role` : null);
  if (reason === null) {
    const count = `${step.tables.length} ${state ? 'more ' : ''}${step.tables.length === 1 ? 'table' : 'tables'}`;
    const problem = step.alters
      ? `The next window will change its settings: ${step.sql}.`
      : `It will ${state ? 'get' : 'be made for'} ${count} by the next window.`;
    return [{ severity: 'info', subject, problem, remedy: null }];
  }
  const locked = state !== null && needsWriterLock(ground.version);
  const sql = locked
    ? `BEGIN; LOCK TABLE ${tableList(step.tables)} IN SHARE ROW EXCLUSIVE MODE; ${step.sql}; COMMIT`
    : step.sql;
  return [
    findingOf(
      subject,
      new SluiceError('PUBLICATION_NOT_ALLOWED', { user: ground.user, publication: name, reason, sql }),
    ),
  ];
}

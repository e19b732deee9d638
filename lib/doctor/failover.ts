/**
 * What it takes for a slot to be there on a standby that is promoted (source.failover), as far as the primary tells. The rest is the standby's own.
 *
 * https://www.postgresql.org/docs/current/logical-replication-failover.html
 */
import type { Client } from 'pg';
import { SluiceError } from '../errors.ts';
import type { Ground } from '../ports.ts';
import { one } from '../postgres/session.ts';
import { failoverFault } from '../slot/failover.ts';
import { quoteLiteral } from '../sql-text.ts';
import type { Check, Finding } from './finding.ts';

export interface FailoverSurvey {
  /** synchronized_standby_slots: physical slots that must have what a window is given. */
  readonly waits_for: readonly string[];
  /** Physical slots, by which standbys read. */
  readonly standbys: readonly { readonly name: string; readonly active: boolean }[];
}

const STANDBY =
  "primary_slot_name, hot_standby_feedback = on, sync_replication_slots = on, and primary_conninfo with the source's dbname";

/** The setting is a list of names, as identifiers are written. */
const FAILOVER_SQL = `
  SELECT ARRAY(SELECT btrim(name, ' "') FROM regexp_split_to_table(current_setting('synchronized_standby_slots', true), ',') AS name
                WHERE btrim(name) <> '') AS waits_for,
         COALESCE((SELECT json_agg(json_build_object('name', slot_name, 'active', active) ORDER BY slot_name)
            FROM pg_replication_slots WHERE slot_type = 'physical'), '[]') AS standbys`;

export async function surveyFailover(client: Client): Promise<FailoverSurvey> {
  return one((await client.query<FailoverSurvey>(FAILOVER_SQL)).rows);
}

type Found = readonly Omit<Finding, 'check'>[];

export const FAILOVER_CHECKS: readonly Check[] = [
  {
    name: 'slot_failover',
    run: ({ source, pipeline, replication }) => {
      if (source instanceof SluiceError) return [];
      const { ground, failover: survey } = source;
      const { failover: wanted, replication_slot: slot } = pipeline.source;
      // Told by the check of the server.
      if (failoverFault(ground.version, wanted)) return [];
      return [
        ...changeFindings(ground, slot, wanted, replication),
        ...(wanted && survey ? failoverFindings(survey, slot) : []),
      ];
    },
  },
];

/** A slot that is there and is not as the file says: a window changes it, where it may open a walsender's connection. */
function changeFindings(
  { slot: row, may_replicate }: Ground,
  slot: string,
  wanted: boolean | null,
  replication: SluiceError | null,
): Found {
  const is = row?.failover ?? null;
  if (wanted === null || is === null || is === wanted) return [];
  const subject = `slot ${slot}`;
  const state = wanted
    ? 'source.failover is on, and the slot is not kept on standbys'
    : 'source.failover is off, and the slot is kept on standbys';
  if (replication === null && may_replicate) {
    return [{ severity: 'info', subject, problem: `${state}: the next window changes it.`, remedy: null }];
  }
  const why = replication?.message ?? 'The role may not.';
  return [
    {
      severity: 'warning',
      subject,
      problem: `${state}; no window can change that, for only a replication connection can. ${why}`,
      remedy: `While no window runs, as a role that may open one: psql 'dbname=… replication=database' -c 'ALTER_REPLICATION_SLOT ${slot} (FAILOVER ${wanted})'; or set source.failover: ${is}.`,
    },
  ];
}

function failoverFindings({ waits_for, standbys }: FailoverSurvey, slot: string): Found {
  const subject = `slot ${slot}`;
  const setting = (names: readonly string[]): string =>
    `Run on the source: ALTER SYSTEM SET synchronized_standby_slots = ${quoteLiteral(names.join(', '))}; SELECT pg_reload_conf();`;
  const stalled = waits_for.flatMap((name): Found => {
    const standby = standbys.find((each) => each.name === name);
    if (standby?.active) return [];
    const state = standby === undefined ? 'which does not exist' : 'which no standby reads now';
    const problem = `synchronized_standby_slots names ${name}, ${state}: windows are given nothing until one does.`;
    const left = waits_for.filter((other) => other !== name);
    const remedy = `Start that standby; or go on without it. ${setting(left)}`;
    return [{ severity: standby === undefined ? 'error' : 'warning', subject, problem, remedy }];
  });
  const names = standbys.map(({ name }) => name);
  if (names.length === 0) {
    const problem = 'source.failover is on, and no standby has a physical slot: the slot is kept nowhere else.';
    return [...stalled, { severity: 'warning', subject, problem, remedy: `Give the standby ${STANDBY}.` }];
  }
  if (waits_for.length === 0) {
    const problem =
      'synchronized_standby_slots is empty: a window may read what the standby does not have yet, and if that is promoted then, its log ends before the chain (CLUSTER_BEHIND).';
    // One that nobody reads would keep windows waiting.
    const reading = standbys.filter(({ active }) => active).map(({ name }) => name);
    return [{ severity: 'warning', subject, problem, remedy: setting(reading.length > 0 ? reading : names) }];
  }
  const problem = `It is kept on standbys that have ${STANDBY}: see there that pg_replication_slots has it, with synced and not temporary.`;
  return [...stalled, { severity: 'info', subject, problem, remedy: null }];
}

/**
 * What the doctor asks the replica of the source (source.use_secondary), and what it says of it: whether rows can be read from it, how far it is
 * behind, and whether its queries will be broken off.
 */
import type { Client } from 'pg';
import { replicaFault, type ServerSeen, seeServer } from '../epoch/secondary.ts';
import { SluiceError } from '../errors.ts';
import { type Connect, one, onSource } from '../postgres/session.ts';
import type { Check, Finding } from './finding.ts';
import { findingOf } from './finding.ts';

export interface SecondarySurvey {
  readonly server: ServerSeen;
  readonly limits: SecondaryLimits;
}

export interface SecondaryLimits {
  /** Age of the newest transaction that it has replayed; null: none yet, or it does not say. Grows while nothing is written on the primary. */
  readonly lag_seconds: number | null;
  /** ms that replaying waits for a query in its way; -1: for ever. */
  readonly standby_delay_ms: number;
  readonly apply_delay_ms: number;
  readonly feedback: boolean;
  /** Its libraries sort text in another way than those with which the database's indexes were made. False where the version cannot tell (before 15). */
  readonly sorts_otherwise: boolean;
}

/** Behind by more than this is worth a word: each copy waits for as long. */
const LAG_SECONDS_MAX = 300;
/** A chunk takes longer than that. */
const STANDBY_DELAY_MS_MIN = 60_000;

/** to_jsonb: columns that only later versions have. */
const LIMITS_SQL = `
  SELECT EXTRACT(epoch FROM now() - pg_last_xact_replay_timestamp())::float8 AS lag_seconds,
         (SELECT setting::float8 FROM pg_settings WHERE name = 'max_standby_streaming_delay') AS standby_delay_ms,
         COALESCE((SELECT setting::float8 FROM pg_settings WHERE name = 'recovery_min_apply_delay'), 0) AS apply_delay_ms,
         current_setting('hot_standby_feedback')::bool AS feedback`;
const COLLATION_SINCE = 150_000;
const COLLATION_SQL = `
  SELECT COALESCE(datcollversion <> pg_database_collation_actual_version(oid), false) AS sorts_otherwise
    FROM pg_database WHERE datname = current_database()`;

export async function surveySecondary(connect: Connect): Promise<SecondarySurvey> {
  return await onSource(connect, 'be examined', async (client: Client) => {
    const { rows } = await client.query<Omit<SecondaryLimits, 'sorts_otherwise'>>(LIMITS_SQL);
    return {
      server: await seeServer(client),
      limits: { ...one(rows), sorts_otherwise: await sortsOtherwise(client) },
    };
  });
}

async function sortsOtherwise(client: Client): Promise<boolean> {
  const { rows: versions } = await client.query<{ has: boolean }>(
    `SELECT current_setting('server_version_num')::int4 >= ${COLLATION_SINCE} AS has`,
  );
  if (!one(versions).has) return false;
  return one((await client.query<{ sorts_otherwise: boolean }>(COLLATION_SQL)).rows).sorts_otherwise;
}

const SUBJECT = 'replica';

function warning(problem: string, remedy: string): Omit<Finding, 'check'> {
  return { severity: 'warning', subject: SUBJECT, problem, remedy };
}

export const SECONDARY_CHECKS: readonly Check[] = [
  {
    name: 'replica_connection',
    run: ({ secondary }) => (secondary instanceof SluiceError ? [findingOf(SUBJECT, secondary)] : []),
  },
  {
    name: 'replica_server',
    run: ({ secondary, source }) => {
      if (!secondary || secondary instanceof SluiceError || source instanceof SluiceError) return [];
      const fault = replicaFault(secondary.server, source.ground);
      return fault ? [findingOf(SUBJECT, fault)] : [];
    },
  },
  {
    name: 'replica_limits',
    run: ({ secondary }) => {
      if (!secondary || secondary instanceof SluiceError || !secondary.server.in_recovery) return [];
      const { lag_seconds, standby_delay_ms, apply_delay_ms, feedback, sorts_otherwise } = secondary.limits;
      const found: Omit<Finding, 'check'>[] = [];
      if (apply_delay_ms > 0) {
        const problem = `It replays ${apply_delay_ms / 1000} seconds late on purpose, and each copy waits for as long.`;
        found.push(warning(problem, 'Name a replica without recovery_min_apply_delay.'));
      } else if ((lag_seconds ?? 0) > LAG_SECONDS_MAX) {
        const problem = `The newest transaction that it has replayed is ${Math.round(lag_seconds ?? 0)} seconds old: it is behind, or nothing is written on the primary.`;
        found.push(
          warning(problem, 'Look at pg_stat_replication on the primary; a copy waits until it has caught up.'),
        );
      }
      if (!feedback && standby_delay_ms >= 0 && standby_delay_ms < STANDBY_DELAY_MS_MIN) {
        const problem = `Replaying breaks off a query that is in its way after ${standby_delay_ms / 1000} seconds; a chunk of a copy may be read again and again.`;
        const remedy =
          'Run on the replica: ALTER SYSTEM SET hot_standby_feedback = on; or raise max_standby_streaming_delay; then SELECT pg_reload_conf().';
        found.push(warning(problem, remedy));
      }
      if (sorts_otherwise) {
        const problem =
          'It sorts text in another way than the indexes of the database do: queries by them may miss rows.';
        found.push(warning(problem, "Give it the same operating system's libraries as the primary, or name another."));
      }
      return found;
    },
  },
];

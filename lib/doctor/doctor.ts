/**
 * `doctor`: asks both sides what a window and a loader would need, and says what stands in their way, with what mends it. Changes nothing.
 *
 * First everything is asked (the surveys), then every check of the register looks at the answers. To add a check: put it into the list of its area.
 */
import type { Pipeline } from '../config/schema.ts';
import { asSluiceError, SluiceError } from '../errors.ts';
import { closeClient } from '../postgres/connection.ts';
import type { Connect } from '../postgres/session.ts';
import { FAILOVER_CHECKS } from './failover.ts';
import type { ChainSeen, Check, Finding, Survey } from './finding.ts';
import { SEVERITIES } from './finding.ts';
import { HIDDEN_CHECKS } from './hidden.ts';
import { READER_CHECKS } from './readers.ts';
import { SCHEDULE_CHECKS } from './schedules.ts';
import { SECONDARY_CHECKS, surveySecondary } from './secondary.ts';
import { SOURCE_CHECKS } from './source.ts';
import { surveySource } from './survey-source.ts';
import { surveyTarget } from './survey-target.ts';
import { TABLE_CHECKS } from './tables.ts';
import { TARGET_CHECKS } from './target.ts';
import { VALIDATION_CHECKS } from './validation.ts';

export const CHECKS: readonly Check[] = [
  ...SOURCE_CHECKS,
  ...FAILOVER_CHECKS,
  ...SECONDARY_CHECKS,
  ...TABLE_CHECKS,
  ...HIDDEN_CHECKS,
  ...SCHEDULE_CHECKS,
  ...TARGET_CHECKS,
  ...VALIDATION_CHECKS,
  ...READER_CHECKS,
];

export interface DoctorInput {
  readonly pipeline: Pipeline;
  /** Each opens a connection of its own, which is closed here. `replication` opens a walsender's, on which nothing is asked. */
  readonly connect: {
    readonly source: Connect;
    readonly replication: Connect;
    readonly target: Connect;
    /** Null or left out: no replica is used. */
    readonly secondary?: Connect | null;
  };
  /** The chain's head; null: there is no chain yet; left out: nobody looked, and what hangs on it is not checked. */
  readonly chain?: ChainSeen;
}

/** All findings, errors first. What stands in the way of asking is a finding as well: nothing is thrown but a fault of Sluice. */
export async function doctor(input: DoctorInput): Promise<Finding[]> {
  return findingsOf(await surveyed(input));
}

/** What every check has to say of one survey; errors first, otherwise in the order of the register. Pure. */
export function findingsOf(survey: Survey): Finding[] {
  const findings = CHECKS.flatMap(({ name, run }) => run(survey).map((found): Finding => ({ check: name, ...found })));
  return SEVERITIES.flatMap((severity) => findings.filter((finding) => finding.severity === severity));
}

/** Asks both sides, and judges nothing: for `findingsOf`. Throws only a fault of Sluice. */
export async function surveyed({ pipeline, connect, chain }: DoctorInput): Promise<Survey> {
  const [source, replication, secondary] = await Promise.all([
    surveySource(connect.source, pipeline).catch(known),
    opens(connect.replication),
    connect.secondary ? surveySecondary(connect.secondary).catch(known) : null,
  ]);
  const targets = source instanceof SluiceError ? [] : source.selection.streams.map((stream) => stream.target);
  const types = source instanceof SluiceError ? [] : [...source.types.values()];
  const readers = pipeline.target.default_target_schema_select_permissions;
  const target = await surveyTarget(connect.target, targets, types, readers).catch(known);
  return { pipeline, chain, source, replication, target, secondary };
}

async function opens(connect: Connect): Promise<SluiceError | null> {
  try {
    await closeClient(await connect());
    return null;
  } catch (error) {
    return known(error);
  }
}

/** A fault of connecting or of the server is an answer; a mistake in Sluice is not. */
function known(error: unknown): SluiceError {
  const fault = asSluiceError(error);
  if (fault.code === 'UNEXPECTED') throw error;
  return fault;
}

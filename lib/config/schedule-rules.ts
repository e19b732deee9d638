/**
 * What the options of a schedule must say together: the pipeline's, and those of tables.
 */
import type { Path } from './document.ts';
import type { Finding } from './explain.ts';
import { scheduleOf, type TableSchedule } from './schedule.ts';
import type { PipelineFile } from './schema.ts';
import { longestCronGap, timesText } from './times.ts';

type Schedule = NonNullable<PipelineFile['schedule']>;

/** Each has a timer of its own on AWS. */
export const TABLE_SCHEDULES_MAX = 50;
const DAY_MS = 86_400_000;

export function scheduleFindings({ schedule, tables = [], target }: Partial<PipelineFile>): Finding[] {
  const findings = schedule
    ? timesFindings(['schedule'], schedule, 'Add one of every: 5 minutes, cron or continuous: true.')
    : [];
  const different = new Set<string>();
  for (const [i, { schedule: own, replication_method }] of tables.entries()) {
    if (own === null) continue;
    const path = ['tables', i, 'schedule'];
    const faults = timesFindings(path, own, 'Add every: 1 hour, or cron; or remove schedule.');
    findings.push(...faults);
    if (target?.consistency === 'transaction' && replication_method === 'LOG_BASED') {
      const problem = `${nameOf(path)} loads the table by itself, and target.consistency: transaction loads all tables up to one commit.`;
      findings.push({ path, part: 'key', problem, remedy: 'Remove one of the two.' });
    }
    if (faults.length > 0 || own.paused) continue;
    if (target && replication_method === 'LOG_BASED')
      findings.push(...retentionFindings(path, own, target.stage_retention_days));
    different.add(timesText(scheduleOf(own)));
    if (different.size === TABLE_SCHEDULES_MAX + 1) {
      const problem = `tables have more than ${TABLE_SCHEDULES_MAX} different schedules.`;
      findings.push({ path, part: 'value', problem, remedy: 'Let tables share schedules.' });
    }
  }
  return findings;
}

/** `none`: what to do where it says no time. */
function timesFindings(path: Path, schedule: Schedule | TableSchedule, none: string): Finding[] {
  const name = nameOf(path);
  const kinds = [
    ...(schedule.every === undefined ? [] : ['every']),
    ...(schedule.cron === undefined ? [] : ['cron']),
    ...('continuous' in schedule && schedule.continuous === true ? ['continuous'] : []),
  ];
  const findings: Finding[] = [];
  const fault = (at: Path, problem: string, remedy: string): void => {
    findings.push({ path: at, part: 'key', problem, remedy });
  };
  if (kinds.length > 1) {
    const known = path[0] === 'schedule' ? 'every, cron and continuous' : 'every and cron';
    fault(
      [...path, kinds[1] ?? ''],
      `${name} has ${kinds.join(' and ')}, and can follow only one.`,
      `Keep one of ${known}.`,
    );
  }
  if (kinds.length === 0 && !schedule.paused) fault(path, `${name} says no time.`, none);
  if (schedule.anchor !== undefined && schedule.every === undefined) {
    fault([...path, 'anchor'], `${name}.anchor is given without ${name}.every.`, 'Add every, or remove anchor.');
  }
  if (schedule.timezone !== undefined && schedule.cron === undefined && schedule.anchor === undefined) {
    const problem = `${name}.timezone is given without a time of day that it could be for (cron or anchor).`;
    fault([...path, 'timezone'], problem, 'Remove it, or add cron or anchor.');
  }
  return findings;
}

/** What is staged waits for the load, and the stage keeps it only so long. */
function retentionFindings(path: Path, own: TableSchedule, retention_days: number): Finding[] {
  const schedule = scheduleOf(own);
  const gap_ms =
    schedule.kind === 'every'
      ? schedule.every_seconds * 1000
      : schedule.kind === 'cron'
        ? longestCronGap(schedule.cron, schedule.timezone)
        : null;
  if (gap_ms === null || gap_ms < retention_days * DAY_MS) return [];
  const problem = `${nameOf(path)} leaves up to ${Math.ceil(gap_ms / DAY_MS)} days between two loads, and the stage keeps what waits for ${retention_days} (target.stage_retention_days).`;
  return [{ path, part: 'value', problem, remedy: 'Raise target.stage_retention_days, or load more often.' }];
}

function nameOf(path: Path): string {
  return path.map((step, i) => (typeof step === 'number' ? `[${step}]` : i === 0 ? step : `.${step}`)).join('');
}

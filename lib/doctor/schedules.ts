/**
 * Checks of tables with a schedule of their own (`tables[].schedule`): what nobody loads for the time being. That a schedule fits the other options is checked
 * when the file is read (config/schedule-rules.ts).
 */
import { isByQuery } from '../config/queryable.ts';
import { SluiceError } from '../errors.ts';
import { displayName } from '../shape.ts';
import type { Check, Finding } from './finding.ts';

export const SCHEDULE_CHECKS: readonly Check[] = [
  {
    name: 'tables_paused',
    run: ({ source, pipeline }) => {
      if (source instanceof SluiceError) return [];
      const days = pipeline.target.stage_retention_days;
      return source.selection.streams
        .filter(({ options }) => options.schedule?.paused === true)
        .map(({ table, options }): Omit<Finding, 'check'> => {
          const subject = `table ${displayName(table)}`;
          if (isByQuery(options)) {
            return { severity: 'info', subject, problem: 'It is paused, and not read.', remedy: REMEDY };
          }
          const problem = `It is paused: its changes are staged, not loaded, and the stage keeps them for ${days} days (target.stage_retention_days). After that it can only be copied anew.`;
          return { severity: 'warning', subject, problem, remedy: REMEDY };
        });
    },
  },
];

const REMEDY = 'When it shall go on: set paused: false in its schedule, or remove it.';

/**
 * What a function's log line says to a person who watches a run; most lines say nothing to him. Pure.
 */
import { bytes, counted, printable } from '../view/text.ts';

export interface Remark {
  readonly level: 'info' | 'warning' | 'error';
  readonly lines: readonly string[];
}

/** Not when: that differs from one to the next, and the same is told once. */
const AGAIN = 'A step failed and is tried again';

type Facts = Readonly<Record<string, unknown>>;

/** `tableOf`: a stream's table, by its id. Null: nothing to say. */
export function remarkOf(record: Facts, tableOf: (stream: string) => string): Remark | null {
  const table = typeof record.stream === 'string' ? printable(tableOf(record.stream)) : textOf(record.table);
  switch (record.event) {
    case 'captured':
      return info(`Taken in by cut ${textOf(record.cut)}, to be copied: ${listOf(record.tables)}`);
    case 'epoch_done':
      return record.chunks_equal === undefined
        ? info(`${table} is copied: ${counted(Number(record.rows), 'row')}`)
        : info(
            `${table} is compared: ${textOf(record.chunks_equal)} of ${counted(Number(record.chunks), 'chunk')} the same, ${counted(Number(record.rows), 'row')} copied`,
          );
    case 'stream_halted':
      return {
        level: 'error',
        lines: [`${table} is halted: ${errorText(record)}`, `  Remedy: ${textOf(record.remedy)}`],
      };
    case 'capture_waits_for_writers':
      return warning(
        `${listOf(record.tables)} cannot be taken in yet: open transactions may have written before (process ${listOf(record.processes)}).`,
        `  ${textOf(record.remedy)}`,
      );
    case 'capture_postponed':
      return warning(
        `${listOf(record.tables)} cannot be taken in yet: ${textOf(record.message)}`,
        `  Remedy: ${textOf(record.remedy)}`,
      );
    case 'transaction_unfinished':
      return warning(
        `Transaction ${textOf(record.xid)} is longer than a window: ${counted(Number(record.changes), 'change')} of ${listOf(record.tables)} staged in ${counted(Number(record.windows), 'window')}; the next goes on behind it.`,
      );
    case 'window_came_to_nothing':
      return warning('The window came to its end before the source had sent anything.', `  ${textOf(record.remedy)}`);
    case 'transaction_begun_anew':
      return warning(`Transaction ${textOf(record.xid)} is read from its beginning: ${textOf(record.reason)}`);
    case 'table_not_followed':
      return warning(`Not followed: ${errorText(record)}`);
    case 'captured_anew':
      return warning(`${table} is copied anew: ${textOf(record.reason)}`);
    case 'updates_refused':
      return warning(textOf(record.problem), `  Remedy: ${textOf(record.remedy)}`);
    case 'table_recopied':
      return warning(`${table} is copied anew: ${textOf(record.message)}`);
    case 'column_kept':
      return warning(
        `${table}: the source has dropped column ${textOf(record.column)}, and it stays on the target, where something is built on it`,
      );
    case 'append_only':
      return warning(
        `${table} has no key: only what is added to it is followed, not what is changed or deleted.`,
        `  ${textOf(record.remedy)}`,
      );
    case 'generated_column_left_out':
      return warning(
        `${table}: the generated column ${textOf(record.column)} is left out, for the target cannot compute it: ${textOf(record.reason)}`,
      );
    case 'generated_column_plain':
      return info(
        `${table}: the generated column ${textOf(record.column)} is a plain one, for the target cannot compute it: ${textOf(record.reason)}`,
      );
    case 'epoch_given_up':
      return warning(
        `The ${textOf(record.kind)} of ${table} ends before it is done, and the stream goes on: ${errorText(record)}`,
        `  Remedy: ${textOf(record.remedy)}`,
      );
    case 'keys_read_again':
      return info(
        `${table}: ${counted(Number(record.keys), 'row')} that the log does not tell enough of ${Number(record.keys) === 1 ? 'is' : 'are'} read again`,
      );
    case 'index_not_made':
      return warning(`${table}: the index on (${listOf(record.columns)}) is not made: ${textOf(record.reason)}`);
    case 'swap_waits_for_lock':
      return info(`${table} cannot be swapped in yet, for somebody reads the old one; it is tried again`);
    case 'stream_resumed':
      return info(`${table} goes on: what halted it (${textOf(record.code)}) is over`);
    case 'slot_at_risk':
      return warning(
        `The source can write ${bytes(Number(record.safe_wal_bytes ?? 0))} more before it gives the slot up.`,
        '  Remedy: raise max_slot_wal_keep_size on the source, or run windows more often.',
      );
    case 'target_went_back':
      return warning(
        `The target is of an earlier time than what was loaded into it (${table}: cut ${textOf(record.cut)}, before ${textOf(record.known_cut)}): it was restored. What is staged is loaded again.`,
      );
    case 'position_given_up':
      return warning(
        `A new replication slot ${textOf(record.slot)} is made, for the place in the log is gone: ${textOf(record.code)}: ${textOf(record.reason)}`,
      );
    case 'resync_copies_anew':
      return warning(`${table} is copied anew, not compared: ${textOf(record.reason)}`);
    case 'stream_begins_anew':
      return warning(`${table} is copied anew: ${textOf(record.reason)}`);
    case 'stream_released':
      return warning(`${table} is no longer followed`);
    case 'zombie_ended':
      return warning(
        `Ended process ${textOf(record.pid)} on the source, which a window that was killed had left behind`,
      );
    case 'bell_retried':
      return warning(`${AGAIN}: ${errorText(record.error)}`);
    case 'bell_failed':
      return {
        level: 'error',
        lines: [`${AGAIN}: ${errorText(record.error)}`, `  Remedy: ${textOf(factsOf(record.error).remedy)}`],
      };
    case 'doorbell_not_rung':
    case 'stage_abandon_failed':
    case 'bell_not_delayed':
      return warning(`${textOf(record.event).replaceAll('_', ' ')}: ${errorText(record.error ?? record)}`);
    case 'bell_invalid':
      return warning(errorText(record.error));
    case 'analyze_failed':
      return warning(`${table} could not be analysed on the target: ${textOf(record.reason)}`);
    default:
      return null;
  }
}

function info(...lines: string[]): Remark {
  return { level: 'info', lines };
}

function warning(...lines: string[]): Remark {
  return { level: 'warning', lines };
}

function errorText(error: unknown): string {
  const { code, message } = factsOf(error);
  return `${textOf(code)}: ${textOf(message)}`;
}

function factsOf(value: unknown): Facts {
  return typeof value === 'object' && value !== null ? { ...value } : {};
}

function textOf(value: unknown): string {
  return typeof value === 'string' || typeof value === 'number' ? printable(String(value)) : '?';
}

function listOf(value: unknown): string {
  return Array.isArray(value) ? value.map(textOf).join(', ') : textOf(value);
}

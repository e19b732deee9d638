/** The time of a commit as wal2json prints it, with timestamptz_to_str: ISO, in the session's time zone, with an offset of hours, minutes and seconds. */
import type { JsonBytes } from './json-bytes.ts';

const TIME = /^(\d{4,})-(\d\d)-(\d\d) (\d\d):(\d\d):(\d\d)(?:\.(\d{1,6}))?([+-])(\d\d)(?::(\d\d))?(?::(\d\d))?$/;

/** Reads a string; microseconds since the Unix epoch, exact in a double until the year 2255. */
export function commitTime(json: JsonBytes): number {
  const text = json.name();
  const [, year, month, day, hour, minute, second, fraction, sign, ...offset] = TIME.exec(text) ?? [];
  if (year === undefined) throw json.fault('no time of a commit');
  const seconds =
    Date.UTC(Number(year), Number(month) - 1, Number(day), Number(hour), Number(minute), Number(second)) / 1000;
  const [hours = 0, minutes = 0, more = 0] = offset.map((part) => Number(part ?? 0));
  const behind_seconds = (sign === '-' ? -1 : 1) * (hours * 3600 + minutes * 60 + more);
  return (seconds - behind_seconds) * 1_000_000 + Number((fraction ?? '').padEnd(6, '0'));
}

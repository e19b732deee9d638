/**
 * What wal2json says beside its messages: a change of a row that nothing identifies (REPLICA IDENTITY NOTHING, no key) is not printed, and the server sends
 * a warning in its place. No publication makes the source refuse such changes, so this is the only word of them in the log.
 *
 * On the path between the reader and the window, which has the stream copied anew. Pure.
 */
import { SluiceError } from '../errors.ts';
import { displayName, type TableName } from '../shape.ts';

/** Names stand in it as they are, without a word of escaping: so they are looked for, and not read. */
const NOT_PRINTED = /^no (?:tuple identifier|old tuple data) for (?:UPDATE|DELETE) in table (".*")$/s;
/** Format 1, without the schema. */
const NOT_PRINTED_1 = /^table (".*") without primary key or replica identity is nothing$/s;

/** Those of `streams` whose change a warning may be about. */
export function unprinted<Stream extends TableName>(warning: string, streams: readonly Stream[]): Stream[] {
  const [, name] = NOT_PRINTED.exec(warning) ?? NOT_PRINTED_1.exec(warning) ?? [];
  if (name === undefined) return [];
  return streams.filter(({ schema, table }) => name === `"${table}"` || name === `"${schema}"."${table}"`);
}

export function unprintedFault(stream: TableName): SluiceError {
  const what = 'the log left out a change of a row that nothing identified (REPLICA IDENTITY NOTHING, or no key).';
  return new SluiceError('TABLE_REWRITTEN', { stream: displayName(stream), what });
}

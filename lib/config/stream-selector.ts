/**
 * Which streams the user means by an argument of a command: an id as `status` prints it, a table, or a glob.
 */
import type { TableName } from '../shape.ts';
import { matchesPattern, parseTablePattern } from './table-pattern.ts';

/** The streams that `argument` names, in their order; empty for none. An id names at most one, and goes before a table of that name. */
export function findStreams<S extends { readonly id: string; readonly source: TableName }>(
  argument: string,
  streams: readonly S[],
): S[] {
  const byId = streams.filter((stream) => stream.id === argument);
  if (byId.length > 0) return byId;
  const pattern = parseTablePattern(argument);
  return pattern ? streams.filter((stream) => matchesPattern(pattern, stream.source)) : [];
}

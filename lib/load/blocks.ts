/**
 * What every way of loading a block shares: the rights that its statements want, the check of its rows, and the reading of one that is not used.
 *
 * On the path under apply.ts (segments) and chunk.ts (chunks into a shadow).
 */
import { Writable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { asSluiceError, SluiceError } from '../errors.ts';
import type { SegmentSource } from '../ports.ts';
import { displayName } from '../shape.ts';
import { quoteIdentifier, quoteTable } from '../sql-text.ts';
import type { Block } from '../stage/segment.ts';
import type { Purpose, Session } from './session.ts';
import type { TableForm } from './sql.ts';

export function mayMakeTemps(session: Session): Purpose {
  return {
    action: 'make temporary tables',
    grant_sql: `GRANT TEMPORARY ON DATABASE ${quoteIdentifier(session.database)} TO ${quoteIdentifier(session.user)}`,
  };
}

export function mayWrite(session: Session, { name }: Pick<TableForm, 'name'>): Purpose {
  return {
    action: `write to ${displayName(name)}`,
    grant_sql: `GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON ${quoteTable(name)} TO ${quoteIdentifier(session.user)}`,
  };
}

/** The rows that COPY took are those that the header tells of: a truncated text would otherwise load as a shorter one. */
export function assertRows(stream: string, block: Block, rows: number): void {
  if (block.rows === null || block.rows === rows) return;
  const reason = `a block of ${block.rows} rows holds ${rows}`;
  throw new SluiceError('STAGE_CORRUPT', { object: `(a segment of ${stream})`, stream, reason });
}

/** Reads a block that is not used to its end, so that the next one can be read, and its checks are made. */
export async function drain(segment: SegmentSource, index: number): Promise<void> {
  const nowhere = new Writable({ write: (_chunk, _encoding, done) => done() });
  await pipeline(segment.block(index), nowhere).catch((error: unknown) => {
    throw asSluiceError(error);
  });
}

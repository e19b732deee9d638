/**
 * What a server says when it refuses or ends the reading of a slot, as one of our errors: the same for the walsender's stream and the function's calls. Pure.
 * SQLSTATEs of https://www.postgresql.org/docs/current/errcodes-appendix.html, as START_REPLICATION, the functions and the decoding raise them.
 */
import { SluiceError } from '../errors.ts';
import { formatLsn, LSN_ZERO } from '../lsn.ts';
import { hidesNoValue, isServerError, networkReason } from '../postgres/faults.ts';

/** `fields`: of the ErrorResponse, by their letter. `version`: of the server, as server_version_num. */
export function slotFault(slot: string, fields: ReadonlyMap<string, string>, version = 0): SluiceError {
  const sqlstate = fields.get('C') ?? '';
  const message = fields.get('M') ?? '';
  switch (sqlstate) {
    case '55006': // object_in_use: "replication slot … is active for PID n"
      return new SluiceError('SLOT_ACTIVE', { slot, pid: Number(/PID (\d+)/.exec(message)?.[1] ?? 0) });
    case '42501': // insufficient_privilege
      return new SluiceError('REPLICATION_NOT_ALLOWED', { user: 'of this connection', user_sql: 'CURRENT_USER' });
    case '55000': // object_not_in_prerequisite_state: WAL removed, slot invalidated
      return new SluiceError('SLOT_LOST', { slot, reason: message });
    case '42704': // undefined_object: the slot, or (while decoding) the publication
      return isOfPublication(fields)
        ? new SluiceError('PUBLICATION_LATE', { slot, publication: /"(.*)"/.exec(message)?.[1] ?? '' })
        : new SluiceError('SLOT_MISSING', { slot, lsn: formatLsn(LSN_ZERO), known: false });
    default:
      if (isOfSize(sqlstate, fields)) return new SluiceError('LOG_ROW_TOO_LARGE', { slot });
      // undefined_file: by this routine the plugin's library, by another one of the log
      if (sqlstate === '58P01' && fields.get('R') === 'internal_load_library') {
        const major = Math.floor(version / 10_000);
        return new SluiceError('PLUGIN_MISSING', { plugin: 'wal2json', major, reason: message });
      }
      // A row filter, or the output of a type, may have failed on a value.
      return new SluiceError('SLOT_STREAM_FAILED', {
        sqlstate,
        reason: `SQLSTATE ${sqlstate}: ${hidesNoValue(sqlstate) ? message : 'an error whose text may hold values (the source has it in its log)'}`,
      });
  }
}

/** The same of an error that `pg` has thrown. What is a SluiceError already stays as it is. */
export function thrownSlotFault(slot: string, error: unknown, version: number): SluiceError {
  if (error instanceof SluiceError) return error;
  if (isServerError(error)) {
    const routine = 'routine' in error && typeof error.routine === 'string' ? error.routine : '';
    const fields: [string, string][] = [
      ['C', error.code],
      ['M', error.message],
      ['R', routine],
    ];
    return slotFault(slot, new Map(fields), version);
  }
  const reason = networkReason(error) ?? (error instanceof Error ? error.message : String(error));
  return new SluiceError('SLOT_STREAM_FAILED', { reason }, { cause: error });
}

/** What PostgreSQL says where a text is more than MaxAllocSize: palloc (elog: in no other language), or a buffer that grows (ERRCODE_PROGRAM_LIMIT_EXCEEDED). */
function isOfSize(sqlstate: string, fields: ReadonlyMap<string, string>): boolean {
  if (sqlstate === 'XX000') return fields.get('M')?.startsWith('invalid memory alloc request size') ?? false;
  return sqlstate === '54000' && fields.get('R') === 'enlargeStringInfo';
}

/** By the routine that raised it; or by the message, which may be in another language, and without the names in it. */
function isOfPublication(fields: ReadonlyMap<string, string>): boolean {
  const message = fields.get('M') ?? '';
  return fields.get('R') === 'get_publication_oid' || message.replaceAll(/"[^"]*"/g, '').includes('publication');
}

/**
 * Which databases can be a target by their encoding. Text on its way is UTF-8 (I6); another encoding would refuse characters that the source has, and
 * SQL_ASCII would count bytes where the source counts characters. So a target is UTF8, or nothing is made there.
 */
import { SluiceError } from '../errors.ts';
import type { Session } from './session.ts';

/** `encoding`: getdatabaseencoding() of the target. */
export function targetEncodingFault(encoding: string): SluiceError | null {
  if (encoding === 'UTF8') return null;
  const reason = 'it would refuse characters that the source may have';
  return new SluiceError('ENCODING_UNSUPPORTED', { side: 'target', encoding, reason });
}

/** Throws ENCODING_UNSUPPORTED. */
export async function assertEncoding(session: Session): Promise<void> {
  const { rows } = await session.query<{ encoding: string }>('SELECT getdatabaseencoding() AS encoding', []);
  const fault = targetEncodingFault(rows[0]?.encoding ?? 'unknown');
  if (fault) throw fault;
}

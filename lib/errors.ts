/**
 * What is thrown: a code of the catalogue (error-catalogue.ts) with its facts. The catalogue says what it means and whether to try again; here it is
 * made, recognised, and told apart by whom it stops.
 */
import { CATALOGUE, type Disposition, type Facts } from './error-catalogue.ts';
import { toldError } from './postgres/server-error.ts';

export type { Facts } from './error-catalogue.ts';

export type ErrorCode = keyof typeof CATALOGUE;
export const ERROR_CODES = Object.keys(CATALOGUE) as ErrorCode[];

/**
 * Faults of the ground that every stream stands on. They halt no stream: when the ground is mended, everything goes on by itself.
 */
const GROUND_FAULTS: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  'CONNECTION_FAILED',
  'AUTHENTICATION_FAILED',
  'DATABASE_MISSING',
  'TLS_FAILED',
  'SECRET_UNREADABLE',
  'SSH_UNREACHABLE',
  'SSH_HOST_KEY',
  'SSH_KEY_UNREADABLE',
  'SSH_KEY_REFUSED',
  'SSH_FORWARDING_REFUSED',
  // What a temporary slot needs, for the copy of a table without a key.
  'SLOTS_EXHAUSTED',
  'REPLICATION_NOT_ALLOWED',
  'WAL_LEVEL',
  // A switch-over under way: a position, or a publication, is asked for on the wrong one of two servers.
  'SOURCE_IS_STANDBY',
  'SOURCE_READ_ONLY',
  'REPLICA_UNFIT',
  'TARGET_READ_ONLY',
  'ENCODING_UNSUPPORTED',
  'VERSION_UNSUPPORTED',
  'AWS_TRANSIENT',
  'AWS_DENIED',
  'AWS_MISSING',
]);

export class SluiceError extends Error {
  readonly code: ErrorCode;
  readonly facts: Facts;
  override readonly name = 'SluiceError';

  constructor(code: ErrorCode, facts: Facts = {}, options?: ErrorOptions) {
    super(CATALOGUE[code].meaning(facts), options);
    this.code = code;
    this.facts = facts;
  }

  get disposition(): Disposition {
    return CATALOGUE[this.code].disposition;
  }

  /** This fault is one stream's own, and waits for a person: the stream halts, the others go on. */
  get haltsStream(): boolean {
    return this.disposition === 'halt' && !GROUND_FAULTS.has(this.code);
  }

  /** The log does not hold what one stream needs: it is copied anew, and nobody has to do anything. */
  get copiesAnew(): boolean {
    return this.disposition === 'recopy';
  }

  get remedy(): string {
    return CATALOGUE[this.code].remedy(this.facts);
  }
}

/** Any thrown thing as a SluiceError; what is none becomes UNEXPECTED, with its message and its cause kept. */
export function asSluiceError(thrown: unknown): SluiceError {
  if (thrown instanceof SluiceError) return thrown;
  const reason = thrown instanceof Error ? `${thrown.name}: ${toldError(thrown).message}` : String(thrown);
  return new SluiceError('UNEXPECTED', { reason }, { cause: thrown });
}

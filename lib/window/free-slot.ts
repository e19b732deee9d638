/**
 * A slot that is in use after the lease was won (design §3, Window): our own zombie, or a stranger.
 *
 * A function that was killed leaves its backend behind until the server notices. It is waited for, and then ended, if its application_name carries a lease
 * token older than ours. Anybody else is named and left alone.
 */
import { SluiceError } from '../errors.ts';
import type { Clock, Ground, Log, Source } from '../ports.ts';
import { IDENTIFIER_BYTES_MAX } from '../sql-text.ts';

const ZOMBIE_WAIT_MS = 3_000;
const SLOT_WAIT_MS_MAX = 20_000;
const SLOT_POLL_MS = 250;
/** Of each pause: so that two who wait do not meet again and again. */
const JITTER = 0.5;

/** `sluice/shop` and token 7 → `sluice/shop#7`; cut to what PostgreSQL keeps of an application_name. */
export function sessionName(application_name: string, session: string): string {
  const suffix = `#${session}`;
  let prefix = application_name;
  while (Buffer.byteLength(prefix) + suffix.length > IDENTIFIER_BYTES_MAX) prefix = prefix.slice(0, -1);
  return `${prefix}${suffix}`;
}

/** The token in a session's name, if it is one of ours; null: a stranger. */
export function sessionToken(name: string | null, application_name: string): number | null {
  const [, token] = /#(\d+)$/.exec(name ?? '') ?? [];
  return token !== undefined && name === sessionName(application_name, token) ? Number(token) : null;
}

/** Resolves when nobody reads the slot. Throws SLOT_ACTIVE, naming who does. */
export async function freeSlot(
  ports: { readonly source: Source; readonly clock: Clock; readonly log: Log; readonly random: () => number },
  first: Ground,
  own: { readonly slot: string; readonly application_name: string; readonly token: number },
): Promise<void> {
  const { source, clock, log } = ports;
  const began_ms = clock.now();
  let ground = first;
  let ended: number | null = null;
  while (ground.slot && ground.slot.active_pid !== null) {
    const { active_pid: pid, active_application, active_client: client } = ground.slot;
    const token = sessionToken(active_application, own.application_name);
    const waited_ms = clock.now() - began_ms;
    const ours = token !== null && token < own.token;
    if (waited_ms >= (ours ? SLOT_WAIT_MS_MAX : ZOMBIE_WAIT_MS)) {
      throw new SluiceError('SLOT_ACTIVE', { slot: own.slot, pid, application_name: active_application, client });
    }
    if (ours && waited_ms >= ZOMBIE_WAIT_MS && ended !== pid) {
      log.warn('zombie_ended', { pid, application_name: active_application });
      await source.terminate(pid);
      ended = pid;
    }
    await clock.sleep(SLOT_POLL_MS * (1 - JITTER + 2 * JITTER * ports.random()));
    ground = await source.look();
  }
}

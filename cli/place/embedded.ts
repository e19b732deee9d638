/**
 * The embedded servers of a pipeline, as a person may look into them: with psql, and without a password in anything that is printed.
 */
import { writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { type Addresses, SIDES, type Side } from '../../infra/local/databases.ts';
import type { DatabaseAddress } from '../../infra/local/state.ts';

export interface EmbeddedDoor {
  readonly side: Side;
  /** Without the password. */
  readonly url: string;
  /** To be typed into a shell. */
  readonly command: string;
}

/** Writes the passwords where psql reads them (`<state>/pgpass`), and says how to get in. Nothing for sides that the pipeline names. */
export async function openDoors(addresses: Addresses, state: string): Promise<EmbeddedDoor[]> {
  const path = join(resolve(state), 'pgpass');
  const embedded = SIDES.flatMap((side) => {
    const address = addresses[side];
    return address === null ? [] : [{ side, address }];
  });
  if (embedded.length === 0) return [];
  await writeFile(path, embedded.map(({ address }) => passLine(address)).join(''), { mode: 0o600 });
  return embedded.map(({ side, address }) => {
    const url = urlOf(address);
    return { side, url, command: `PGPASSFILE=${shellWord(path)} psql ${url}` };
  });
}

/** https://www.postgresql.org/docs/current/libpq-pgpass.html; nothing in it needs an escape: the password is base64url. */
function passLine({ host, port, user, password }: DatabaseAddress): string {
  return `${host}:${port}:*:${user}:${password}\n`;
}

function urlOf({ host, port, user, database }: DatabaseAddress): string {
  return `postgresql://${user}@${host}:${port}/${database}`;
}

export function shellWord(text: string): string {
  return /^[\w./:@%+=-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`;
}

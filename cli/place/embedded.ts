/**
 * The embedded servers of a pipeline, as a person may look into them: with psql, and without a password in anything that is printed.
 */
import { writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { type Addresses, SIDES, type Side } from '../../infra/local/databases.ts';
import type { DatabaseAddress } from '../../infra/local/state.ts';

export interface Doors {
  /** For PGPASSFILE. */
  readonly pgpass: string;
  /** Without a password. */
  readonly urls: readonly { readonly side: Side; readonly url: string }[];
}

/** Writes the passwords where psql reads them (`<state>/pgpass`), and says where to knock. Null: the pipeline names both sides. */
export async function openDoors(addresses: Addresses, state: string): Promise<Doors | null> {
  const embedded = SIDES.flatMap((side) => {
    const address = addresses[side];
    return address === null ? [] : [{ side, address }];
  });
  if (embedded.length === 0) return null;
  const pgpass = join(resolve(state), 'pgpass');
  await writeFile(pgpass, embedded.map(({ address }) => passLine(address)).join(''), { mode: 0o600 });
  return { pgpass, urls: embedded.map(({ side, address }) => ({ side, url: urlOf(address) })) };
}

/** What to type to look into the embedded servers. */
export function doorLines({ pgpass, urls }: Doors): string[] {
  return [`export PGPASSFILE=${shellWord(pgpass)}`, ...urls.map(({ side, url }) => `psql ${url}   # ${side}`)];
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

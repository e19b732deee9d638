/**
 * Keys of rows that the target refused and that wait (`_sluice.quarantine`): written in the transaction that leaves the rows out (I4), so that no later change is
 * mixed with what the target kept of them (I7). The rows themselves lie in the stage, and the ledger knows of them.
 */
import type { Aside, Quarantined } from '../ports.ts';
import { quoteLiteral } from '../sql-text.ts';
import { isOwner, type Owner } from './control.ts';
import type { Session } from './session.ts';

const TABLE = '_sluice.quarantine';

export class QuarantinedKeys {
  #session: Session;
  #owner: Owner;
  #aside: Aside;
  /** By key: under which id it waits. */
  #ids: Map<string, string>;
  /** Beside these. */
  readonly #others: number;
  readonly #added = new Set<string>();
  readonly #gone = new Set<string>();

  private constructor(session: Session, owner: Owner, aside: Aside, ids: Map<string, string>, others = 0) {
    this.#session = session;
    this.#owner = owner;
    this.#aside = aside;
    this.#ids = ids;
    this.#others = others;
  }

  /** Of the stream's own table. What is not `aside.kept` has been read again, discarded or expired: it is forgotten here as well. */
  static async read(session: Session, owner: Owner, aside: Aside): Promise<QuarantinedKeys> {
    const { rows } = await session.query<{ key: string; reject: string }>(
      `SELECT key, reject FROM ${TABLE} WHERE ${isOwner(owner)}`,
      [],
    );
    const keys = new QuarantinedKeys(session, owner, aside, new Map(rows.map(({ key, reject }) => [key, reject])));
    for (const { key, reject } of rows) if (!aside.kept.has(reject)) keys.clear(key);
    return keys;
  }

  /** Of a copy that takes its place: a chunk has to do with no key of another, but all of them count. */
  static async ofCopy(session: Session, owner: Owner, aside: Aside): Promise<QuarantinedKeys> {
    const { rows } = await session.query<{ others: string }>(
      `SELECT count(*)::text AS others FROM ${TABLE} WHERE ${isOwner(owner)} AND epoch = $1::int8 AND plan = $2`,
      [aside.epoch, aside.plan],
    );
    return new QuarantinedKeys(session, owner, aside, new Map(), Number(rows[0]?.others));
  }

  /** None of these waits. */
  get isEmpty(): boolean {
    return this.#ids.size === 0;
  }

  /** Rows that wait, of the stream or of its copy. */
  get waiting(): number {
    return this.#ids.size + this.#others;
  }

  has(key: string): boolean {
    return this.#ids.has(key);
  }

  add(key: string): void {
    if (this.#ids.has(key)) this.#gone.add(key);
    this.#ids.set(key, this.#aside.id);
    this.#added.add(key);
  }

  /** The row is in, or gone. */
  clear(key: string): void {
    if (!this.#ids.delete(key)) return;
    this.#gone.add(key);
    this.#added.delete(key);
  }

  clearAll(): void {
    for (const key of this.#ids.keys()) this.clear(key);
  }

  byId(): Quarantined {
    const ids = new Map<string, Set<string>>();
    for (const [key, id] of this.#ids) {
      const keys = ids.get(id) ?? new Set();
      ids.set(id, keys.add(key));
    }
    return ids;
  }

  /** Writes what has changed since the last time. */
  async save(): Promise<void> {
    const { pipeline, stream } = this.#owner;
    if (this.#gone.size > 0) {
      const sql = `DELETE FROM ${TABLE} WHERE ${isOwner(this.#owner)} AND key = ANY ($1::text[])`;
      await this.#session.query(sql, [[...this.#gone]]);
    }
    if (this.#added.size > 0) {
      const sql = `INSERT INTO ${TABLE} (pipeline, stream, key, reject, epoch, plan) SELECT $1, $2, unnest($3::text[]), $4, $5::int8, $6`;
      const { id, epoch, plan } = this.#aside;
      await this.#session.query(sql, [pipeline, stream.stream, [...this.#added], id, epoch, plan]);
    }
    this.#gone.clear();
    this.#added.clear();
  }
}

/** A copy takes the table's place: what was refused before is in it, or was left out of it by the same plan. */
export function forgetQuarantinedSql(owner: Owner, epoch: number, plan: string): string {
  return `DELETE FROM ${TABLE} WHERE ${isOwner(owner)} AND (epoch, plan) IS DISTINCT FROM (${epoch}, ${quoteLiteral(plan)})`;
}

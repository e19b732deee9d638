/**
 * Keys that a chunk brought, where its rows are applied in several sets (divert.ts): what is done about rows that it did not bring (replace.ts) has to know all of
 * them. A row that was refused was brought as well: the target keeps what it had of it.
 */
import { Readable } from 'node:stream';
import { mayMakeTemps } from './blocks.ts';
import { attempt } from './refusals.ts';
import type { Session } from './session.ts';
import { columnIn, copySql, type Landed, landedColumns, makeTempApartSql } from './sql.ts';

export class KeptKeys {
  readonly landed: Landed;
  #session: Session;

  private constructor(session: Session, landed: Landed) {
    this.#session = session;
    this.landed = landed;
  }

  /** `types`: of the table's columns (types-there.ts). */
  static async make(
    session: Session,
    types: ReadonlyMap<string, string>,
    temp: string,
    key: readonly string[],
  ): Promise<KeptKeys> {
    const landed = { temp, kind: 'upsert', columns: key, key } as const;
    await session.run(makeTempApartSql(types, landed), mayMakeTemps(session));
    return new KeptKeys(session, landed);
  }

  /** Those of rows that have landed. */
  async addLanded(rows: Landed): Promise<void> {
    const columns = this.landed.key.map(columnIn(rows));
    await this.#session.run(`INSERT INTO ${this.landed.temp} SELECT ${columns.join(', ')} FROM ${rows.temp}`);
  }

  /** Of a row that was refused, as a line of COPY text; a key that the target cannot even read it does not have. */
  async addRefused(line: Buffer): Promise<void> {
    const sql = copySql(this.landed.temp, landedColumns(this.landed));
    await attempt(this.#session, async () => {
      await this.#session.copy(sql, Readable.from([line]));
    });
  }
}

/**
 * Applies segments to a stream's table, inside a transaction that somebody else begins and ends (I4): each block by COPY into a temporary table,
 * and from there as one set (sql.ts).
 *
 * On the path it is what `load` does with each segment, and what a backfill does with its chunks. An absent column is never written (I7).
 */
import { Writable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { asSluiceError, SluiceError } from '../errors.ts';
import type { SegmentSource } from '../ports.ts';
import { displayName, type Shape } from '../shape.ts';
import { quoteIdentifier, quoteTable } from '../sql-text.ts';
import type { Block } from '../stage/segment.ts';
import type { Owner } from './control.ts';
import { addColumnsSql, addMetadataSql, typedColumns } from './ddl.ts';
import { beforeRekeySql, besideDeleteSql, besideUpsertSql, forgetDoubtsSql } from './doubts.ts';
import { assertNoMetadataNames, columnAt, grownShape, growthOf, keyNames } from './growth.ts';
import type { Purpose, Session } from './session.ts';
import {
  copySql,
  deleteSql,
  type Landed,
  landedColumns,
  makeTempSql,
  markAllDeletedSql,
  markDeletedSql,
  rekeySql,
  type TableForm,
  truncateSql,
  updateSql,
  upsertSql,
} from './sql.ts';

/** What the pipeline file says of the target's tables. */
export interface LoadOptions {
  /** Deletes rows. Turns the metadata columns on, as in target-postgres. */
  readonly hard_delete: boolean;
  readonly add_metadata_columns: boolean;
  readonly on_truncate: 'apply' | 'ignore' | 'halt';
}

export function wantsMetadata(options: LoadOptions): boolean {
  return options.hard_delete || options.add_metadata_columns;
}

/**
 * What becomes of a deletion. Without metadata columns there is nowhere to mark it: then rows stay, and a change of key leaves the row of the old
 * key, as target-postgres does.
 */
type Deletions = 'delete' | 'mark' | 'ignore';

export interface Applied {
  readonly session: Session;
  readonly owner: Owner;
  readonly options: LoadOptions;
  readonly form: TableForm;
  /** The rows may be newer than what is applied to them (doubts.ts). */
  readonly catchingUp: boolean;
  /** Called, in the transaction, whenever the table has been altered. */
  readonly saveForm: (form: TableForm) => Promise<void>;
}

export class Applier {
  #session: Session;
  #owner: Owner;
  #stream: string;
  #options: LoadOptions;
  #form: TableForm;
  #catchingUp: boolean;
  #saveForm: (form: TableForm) => Promise<void>;
  /** Temporary tables of this transaction by kind and columns; each is empty between blocks. */
  #landed = new Map<string, Landed>();

  constructor({ session, owner, options, form, catchingUp, saveForm }: Applied) {
    this.#session = session;
    this.#owner = owner;
    this.#stream = owner.stream.stream;
    this.#options = options;
    this.#form = form;
    this.#catchingUp = catchingUp;
    this.#saveForm = saveForm;
  }

  /**
   * Resolves with the number of rows that were copied. Throws SHAPE_CHANGED, METADATA_COLUMN_TAKEN, TRUNCATE_HALTED, what the segment's
   * blocks throw, and what `targetFault` makes of the rest.
   */
  async apply(segment: SegmentSource): Promise<number> {
    const { shape, operation, blocks } = segment.header;
    await this.grow(shape);
    if (operation === 'truncate') {
      await this.#truncate(segment.header.extracted_at);
      return 0;
    }
    await this.#makeTemps(shape, blocks);
    const marks: Landed[] = [];
    let rows = 0;
    for (const [index, block] of blocks.entries()) {
      if (this.#isUnused(block)) {
        await drain(segment, index);
        continue;
      }
      const landed = this.#landedFor(shape, block);
      rows += await this.#copy(segment, index, block, landed);
      // A key may have a mark beside its row (segment.ts): the row was written, then deleted.
      if (block.kind === 'delete' && this.#deletions === 'mark') marks.push(landed);
      else await this.#applyLanded(landed, segment.header.extracted_at);
    }
    for (const landed of marks) await this.#applyLanded(landed, segment.header.extracted_at);
    return rows;
  }

  /** Alters the table for what the shape, or the options, have more than it. Readers wait for the transaction's end from here on. */
  async grow(shape: Shape): Promise<void> {
    const { name, metadata } = this.#form;
    const added = growthOf(this.#stream, this.#form.shape, shape);
    // Columns that are there are kept true, also where the option has been turned off since.
    const metadataAdded = !metadata && wantsMetadata(this.#options);
    if (added.length === 0 && !metadataAdded) return;
    const form = { name, shape: grownShape(this.#form.shape, added), metadata: metadata || metadataAdded };
    if (form.metadata) assertNoMetadataNames(this.#stream, form.shape);
    const statements: string[] = [];
    if (added.length > 0) statements.push(addColumnsSql(name, await typedColumns(this.#session, added)));
    if (metadataAdded) statements.push(addMetadataSql(name));
    await this.#session.run(statements.join('; '), { action: `alter ${displayName(name)}` });
    this.#form = form;
    await this.#saveForm(form);
  }

  /** Deletions that are not applied say nothing, but while the stream catches up: then they tell what is not sure. */
  #isUnused({ kind }: Block): boolean {
    return kind === 'delete' && this.#deletions === 'ignore' && !this.#catchingUp;
  }

  get #deletions(): Deletions {
    if (this.#options.hard_delete) return 'delete';
    return this.#form.metadata ? 'mark' : 'ignore';
  }

  async #truncate(extracted_at: string): Promise<void> {
    const { on_truncate } = this.#options;
    if (on_truncate === 'halt') throw new SluiceError('TRUNCATE_HALTED', { stream: this.#stream });
    if (on_truncate === 'ignore' || this.#deletions === 'ignore') return;
    const form = this.#form;
    const statements = [
      this.#deletions === 'delete' ? truncateSql(form) : markAllDeletedSql(form, extracted_at),
      ...(this.#catchingUp ? [forgetDoubtsSql(this.#owner)] : []),
    ];
    await this.#session.run(statements.join('; '), mayWrite(this.#session, form));
  }

  /** The temporary tables that the segment needs and the transaction lacks, in one trip. */
  async #makeTemps(shape: Shape, blocks: readonly Block[]): Promise<void> {
    const statements: string[] = [];
    for (const block of blocks) {
      if (this.#isUnused(block)) continue;
      const key = landedKey(shape, block);
      if (this.#landed.has(key)) continue;
      const temp = `pg_temp._sluice_${this.#landed.size + 1}`;
      const landed = { temp, kind: block.kind, columns: namesOf(shape, block), key: keyNames(shape) };
      this.#landed.set(key, landed);
      statements.push(makeTempSql(this.#form, landed));
    }
    if (statements.length > 0) await this.#session.run(statements.join('; '), mayMakeTemps(this.#session));
  }

  #landedFor(shape: Shape, block: Block): Landed {
    const landed = this.#landed.get(landedKey(shape, block));
    if (landed === undefined) throw new RangeError('a block without its temporary table');
    return landed;
  }

  async #copy(segment: SegmentSource, index: number, block: Block, landed: Landed): Promise<number> {
    const columns = landedColumns(landed);
    const rows = await this.#session.copy(copySql(landed.temp, columns), segment.block(index), {
      action: `copy into ${landed.temp}`,
      copied: landed.columns.map((name, i) => ({ column: `c${i}`, name })),
    });
    assertRows(this.#stream, block, rows);
    return rows;
  }

  /** Applies what has landed, and empties the temporary table in the same trip. */
  async #applyLanded(landed: Landed, extracted_at: string): Promise<void> {
    const statements = [...this.#statementsFor(landed, extracted_at), `TRUNCATE ${landed.temp}`];
    await this.#session.run(statements.join('; '), mayWrite(this.#session, this.#form));
  }

  #statementsFor(landed: Landed, extracted_at: string): string[] {
    const form = this.#form;
    const { kind } = landed;
    const doubts = (statements: typeof beforeRekeySql): string[] =>
      this.#catchingUp ? statements(this.#owner, form, landed) : [];
    switch (kind) {
      case 'rekey':
        return [...doubts(beforeRekeySql), ...rekeySql(form, landed, extracted_at)];
      case 'delete':
        return [...this.#deleteSql(landed, extracted_at), ...doubts(besideDeleteSql)];
      case 'upsert':
        return [upsertSql(form, landed, extracted_at), ...doubts(besideUpsertSql)];
      case 'update':
        return [updateSql(form, landed, extracted_at) ?? []].flat();
      default:
        return kind satisfies never;
    }
  }

  #deleteSql(landed: Landed, extracted_at: string): string[] {
    switch (this.#deletions) {
      case 'delete':
        return [deleteSql(this.#form, landed)];
      case 'mark':
        return [markDeletedSql(this.#form, landed, extracted_at)];
      case 'ignore':
        return [];
      default:
        return this.#deletions satisfies never;
    }
  }
}

function namesOf(shape: Shape, { columns }: Block): string[] {
  return columns.map((index) => columnAt(shape, index).name);
}

function landedKey(shape: Shape, block: Block): string {
  return JSON.stringify([block.kind, namesOf(shape, block), block.kind === 'rekey' ? keyNames(shape) : []]);
}

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
async function drain(segment: SegmentSource, index: number): Promise<void> {
  const nowhere = new Writable({ write: (_chunk, _encoding, done) => done() });
  await pipeline(segment.block(index), nowhere).catch((error: unknown) => {
    throw asSluiceError(error);
  });
}

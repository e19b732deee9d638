/**
 * Applies segments to a stream's table, inside a transaction that somebody else begins and ends (I4): each block by COPY into a temporary table,
 * and from there as one set (sql.ts).
 *
 * On the path it is what `load` does with each segment, and what a backfill does with its chunks. An absent column is never written (I7).
 */
import { Readable } from 'node:stream';
import { SluiceError } from '../errors.ts';
import type { Clock, SegmentSource } from '../ports.ts';
import { displayName, mayChangeUnseen, type Shape } from '../shape.ts';
import type { Block, SegmentHeader } from '../stage/segment.ts';
import { alterTable } from './alter.ts';
import type { Applied, AppliedChunk } from './applied.ts';
import { assertRows, drain, mayMakeTemps, mayWrite } from './blocks.ts';
import { assertNoMetadataNames } from './columns.ts';
import type { Owner } from './control.ts';
import { addMetadataSql } from './ddl.ts';
import type { Diverter, Groups } from './divert.ts';
import {
  beforeRekeySql,
  beforeUpdateSql,
  besideDeleteSql,
  besideUpsertSql,
  forgetDoubtsSql,
  readAgainSql,
} from './doubts.ts';
import { reshapeFlattened } from './flatten-reshape.ts';
import { deepen, FILL_BYTES_MAX, type FlattenedTable, flattenLanded } from './flatten-table.ts';
import { generatedNames } from './generated.ts';
import { KeptKeys } from './kept-keys.ts';
import { withKeyOperators } from './key-operators.ts';
import { addCopiesSql, takeCopiesSql } from './multiset.ts';
import { keysOf, landedKey, type Named, namesOf } from './named.ts';
import { insertNew } from './new-rows.ts';
import { type LoadOptions, wantsMetadata } from './options.ts';
import { type Deletions, replaceSql } from './replace.ts';
import type { Step } from './reshape.ts';
import { reshapeTable } from './reshape-table.ts';
import type { Session } from './session.ts';
import {
  copySql,
  deleteAllSql,
  deleteSql,
  type Landed,
  landedColumns,
  makeTempApartSql,
  makeTempSql,
  markAllDeletedSql,
  markDeletedSql,
  rekeySql,
  type TableForm,
  truncateSql,
  updateSql,
  upsertSql,
} from './sql.ts';
import { typesDiffer } from './type-history.ts';
import { typesThere } from './types-there.ts';

/** SQLSTATE invalid_text_representation: no label of the enum, or not as many attributes as the composite has. */
const INVALID_TEXT = '22P02';

export class Applier {
  #session: Session;
  #owner: Owner;
  #stream: string;
  #options: LoadOptions;
  #form: TableForm;
  #catchingUp: boolean;
  #saveForm: (form: TableForm) => Promise<void>;
  #clock: Pick<Clock, 'now'>;
  #chunk: AppliedChunk | null;
  /** Temporary tables of this transaction by kind and columns; each is empty between blocks. */
  #landed = new Map<string, Landed>();
  #temps = 0;
  #flattening: FlattenedTable;
  #temp_prefix: string;
  /** Where refused rows go; null: the first is thrown. */
  #diverter: Diverter | null = null;
  /** Keys that are new to the source are taken to be new here, until one is not. */
  #trustsNew: boolean;

  constructor({ session, owner, options, form, catchingUp, clock, log, saveForm, chunk, number }: Applied) {
    this.#session = session;
    this.#owner = owner;
    this.#stream = owner.stream.stream;
    this.#options = options;
    this.#form = form;
    this.#catchingUp = catchingUp;
    this.#saveForm = saveForm;
    this.#clock = clock;
    this.#chunk = chunk ?? null;
    this.#trustsNew = !catchingUp && this.#chunk === null && options.hard_delete;
    this.#flattening = {
      session,
      stream: owner.stream.stream,
      log,
      level: options.data_flattening_max_level ?? 0,
      fill_bytes_max: FILL_BYTES_MAX,
      form: () => this.#form,
      change: async (changed) => {
        this.#form = changed;
        await this.#saveForm(changed);
      },
      lock: async () => {
        if (this.#chunk !== null) this.#form = { ...this.#form, shape: await this.#chunk.lockForm() };
      },
    };
    this.#temp_prefix = number === undefined ? '_sluice_' : `_sluice_${number}_`;
  }

  /** From now on refused rows go there; those of a table without a key are thrown all the same. */
  divert(diverter: Diverter): void {
    this.#diverter = diverter;
    this.#trustsNew = false;
  }

  /**
   * Resolves with the number of rows that were copied. Throws TABLE_REWRITTEN, SHAPE_CHANGED, METADATA_COLUMN_TAKEN, TRUNCATE_HALTED, what the segment's
   * blocks throw, and what `targetFault` makes of the rest.
   */
  async apply(segment: SegmentSource): Promise<number> {
    const { operation, blocks } = segment.header;
    const named = await this.#reshape(segment.header);
    this.#form = await withKeyOperators(this.#session, this.#form);
    if (operation === 'truncate') {
      await this.#truncate(segment.header.extracted_at);
      return 0;
    }
    await this.#makeTemps(named, blocks);
    if (this.#diverter !== null && named.key.length > 0) {
      return await this.#diverter.apply(segment, await this.#groupsOf(segment.header, named));
    }
    const marks: Landed[] = [];
    let rows = 0;
    for (const [index, block] of blocks.entries()) {
      if (this.#isUnused(block)) {
        await drain(segment, index);
        continue;
      }
      const landed = this.#landedFor(named, block);
      const copied = await this.#copy(segment.header, segment.block(index), landed);
      assertRows(this.#stream, block, copied);
      rows += copied;
      // A key may have a mark beside its row (segment.ts): the row was written, then deleted.
      if (block.kind === 'delete' && this.#deletions === 'mark') marks.push(landed);
      else await this.#applyLanded(landed, segment.header.extracted_at, this.#chunkSql(segment.header, named, landed));
    }
    for (const landed of marks) await this.#applyLanded(landed, segment.header.extracted_at);
    return rows;
  }

  /** Alters the table for what the segment's shape, or the options, ask of it. Resolves with what the segment's columns are called there. */
  async #reshape({ shape: segment, described }: SegmentHeader): Promise<Named> {
    await this.addMetadata();
    const { on_type_change, on_drop_column, custom_types } = this.#options;
    const { name, metadata } = this.#form;
    const now_ms = this.#clock.now();
    const reshaped = reshapeTable({
      stream: this.#stream,
      table: this.#form.shape,
      segment,
      described,
      catching_up: this.#catchingUp,
      on_type_change,
      on_drop_column,
      now_ms,
      is_copy: this.#chunk !== null,
    });
    const { is_changed, names } = reshaped;
    const beside = reshapeFlattened(this.#form.shape, reshaped.shape, reshaped.steps, now_ms);
    const steps = [...beside.steps, ...reshaped.steps];
    const { shape } = beside;
    if (steps.length > 0) {
      if (metadata) assertNoMetadataNames(this.#stream, shape);
      await alterTable(this.#session, name, steps, custom_types);
    }
    // Chunks load side by side: what a type has come to be is noted by the next cut.
    const notesTypes = !this.#catchingUp && this.#chunk === null;
    if (is_changed || (notesTypes && typesDiffer(this.#form.shape, shape))) {
      await this.#changeForm({ name, shape, metadata });
    }
    if (this.#chunk === null) await this.deepen(steps);
    // What the table computes by itself is not written to it, also where the log brings it.
    const computed = generatedNames(shape);
    const columns = names.map((written) => (written !== null && computed.has(written) ? null : written));
    return { columns, key: segment.key.flatMap((index) => columns[index] ?? []) };
  }

  /** What the table is made for by now. */
  get shape(): Shape {
    return this.#form.shape;
  }

  /** Columns that are there are kept true, also where the option has been turned off since. */
  async addMetadata(): Promise<void> {
    const { name, shape, metadata } = this.#form;
    if (metadata || !wantsMetadata(this.#options)) return;
    assertNoMetadataNames(this.#stream, shape);
    await this.#session.run(addMetadataSql(name), { action: `alter ${displayName(name)}` });
    await this.#changeForm({ name, shape, metadata: true });
  }

  /** Columns beside json columns, in rows that are there, as deep as the option says by now; `steps` have been taken. Throws TABLE_REWRITTEN. */
  async deepen(steps: readonly Step[]): Promise<void> {
    const filled = steps.flatMap((step) => (step.kind === 'add' && step.missing !== null ? [step.column.name] : []));
    await deepen(this.#flattening, filled);
  }

  /** The table is another one now: temporary tables that were made after it are not. */
  async #changeForm(form: TableForm): Promise<void> {
    this.#form = form;
    this.#landed.clear();
    await this.#saveForm(form);
  }

  /** Deletions that are not applied say nothing, but while the stream catches up: then they tell what is not sure. */
  #isUnused({ kind }: Block): boolean {
    if (kind === 'erase') return this.#deletions === 'ignore';
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
    this.#diverter?.truncated();
    const form = this.#form;
    const statements = [
      this.#deletions === 'delete' ? this.#emptySql(form) : markAllDeletedSql(form, extracted_at),
      ...(this.#catchingUp ? [forgetDoubtsSql(this.#owner)] : []),
    ];
    await this.#session.run(statements.join('; '), mayWrite(this.#session, form));
  }

  /** A TRUNCATE empties the table for readers of older snapshots too, who would see it empty beside the other tables as they were (MVCC Caveats of the manual). */
  #emptySql(form: TableForm): string {
    return this.#options.consistency === 'transaction' && !this.#catchingUp ? deleteAllSql(form) : truncateSql(form);
  }

  /** The temporary tables that the segment needs and the transaction lacks, in one trip. */
  async #makeTemps(named: Named, blocks: readonly Block[]): Promise<void> {
    const statements: string[] = [];
    // Chunks that load side by side may alter the table for keys that they bring (lockForm): each must come to the row's lock without one on the table.
    const types = this.#chunk === null ? null : await typesThere(this.#session, this.#form.name);
    for (const block of blocks) {
      if (this.#isUnused(block)) continue;
      const key = landedKey(named, block);
      if (this.#landed.has(key)) continue;
      const temp = `pg_temp.${this.#temp_prefix}${++this.#temps}`;
      const landed = { temp, kind: block.kind, columns: namesOf(named, block), key: named.key };
      this.#landed.set(key, landed);
      statements.push(types === null ? makeTempSql(this.#form, landed) : makeTempApartSql(types, landed));
    }
    if (statements.length > 0) await this.#session.run(statements.join('; '), mayMakeTemps(this.#session));
  }

  #landedFor(named: Named, block: Block): Landed {
    const landed = this.#landed.get(landedKey(named, block));
    if (landed === undefined) throw new RangeError('a block without its temporary table');
    return landed;
  }

  /** The same, for any lines of a block alone. */
  async #groupsOf(header: SegmentHeader, named: Named): Promise<Groups> {
    const kept = this.#chunk && (await this.#makeKept(named));
    return {
      isUnused: (block) => this.#isUnused(block),
      isLast: ({ kind }) => kind === 'delete' && this.#deletions === 'mark',
      apply: async (block, _index, text) => {
        // A try may have altered the table, for keys of json that it brought.
        await this.#makeTemps(named, [block]);
        const landed = this.#landedFor(named, block);
        await this.#copy(header, Readable.from([text]), landed);
        await kept?.addLanded(landed);
        await this.#applyLanded(landed, header.extracted_at);
      },
      refused: async (key) => await kept?.addRefused(key),
      finish: async () => {
        const statements = kept === null ? [] : this.#chunkSql(header, named, kept.landed);
        if (statements.length > 0) await this.#session.run(statements.join('; '), mayWrite(this.#session, this.#form));
      },
      remember: () => {
        const [form, landed] = [this.#form, new Map(this.#landed)];
        return () => {
          this.#form = form;
          this.#landed = landed;
        };
      },
    };
  }

  async #makeKept({ key }: Named): Promise<KeptKeys> {
    const types = await typesThere(this.#session, this.#form.name);
    return await KeptKeys.make(this.#session, types, `pg_temp.${this.#temp_prefix}kept`, key);
  }

  async #copy(header: SegmentHeader, lines: Readable, landed: Landed): Promise<number> {
    const columns = landedColumns(landed);
    const purpose = {
      action: `copy into ${landed.temp}`,
      copied: landed.columns.map((name, i) => ({ column: `c${i}`, name: name ?? `column ${i + 1}` })),
    };
    return await this.#session.copy(copySql(landed.temp, columns), lines, purpose).catch((error: unknown) => {
      throw this.#typeChanged(header, error) ?? error;
    });
  }

  /** A change that was written before its type was changed, and that the type no longer takes. A chunk's values are of the same moment as its types. */
  #typeChanged({ shape, described }: SegmentHeader, error: unknown): SluiceError | null {
    const refused = error instanceof SluiceError && error.facts.sqlstate === INVALID_TEXT;
    if (!refused || described === undefined || !mayChangeUnseen(shape.columns)) return null;
    const what = `a value does not fit its type, which was changed since (${error.facts.reason}).`;
    return new SluiceError('TABLE_REWRITTEN', { stream: this.#stream, what }, { cause: error });
  }

  /** Applies what has landed, and empties the temporary table in the same trip. */
  async #applyLanded(landed: Landed, extracted_at: string, more: readonly string[] = []): Promise<void> {
    if (landed.kind === 'remove' || landed.kind === 'erase') await this.#take(landed, extracted_at);
    const whole = await flattenLanded(this.#flattening, landed);
    if (landed.kind === 'insert' && this.#trustsNew) {
      this.#trustsNew = await insertNew(this.#session, this.#form, whole, extracted_at, landed.temp);
      if (this.#trustsNew) return;
    }
    const statements = [...this.#statementsFor(whole, extracted_at), ...more, `TRUNCATE ${landed.temp}`];
    await this.#session.run(statements.join('; '), mayWrite(this.#session, this.#form));
  }

  /** Throws ROWS_UNKNOWN: the table lacks copies of a row that the source had. */
  async #take(landed: Landed, extracted_at: string): Promise<void> {
    const marked = landed.kind === 'erase' && this.#deletions === 'mark' ? { extracted_at } : null;
    const sql = takeCopiesSql(this.#form, landed, marked);
    const { rows } = await this.#session.run(sql, mayWrite(this.#session, this.#form));
    const missing = Number(rows[0]?.missing);
    if (missing === 0) return;
    const what =
      'were changed or deleted on the source, and the target table does not have them (it has no key to know them by)';
    throw new SluiceError('ROWS_UNKNOWN', { stream: this.#stream, rows: missing, what });
  }

  /** Beside a chunk's rows: what it says of rows that it does not have, and of keys that were in doubt. */
  #chunkSql({ shape, extracted_at }: SegmentHeader, named: Named, landed: Landed): string[] {
    if (this.#chunk === null) return [];
    const { range, replaces } = this.#chunk;
    const form = this.#form;
    const nameOf = (column: string): string => {
      const name = named.columns[shape.columns.findIndex(({ name: there }) => there === column)];
      if (name == null) throw new RangeError(`a range by column ${column}, which the table does not have`);
      return name;
    };
    const rest = replaces ? replaceSql(form, landed, range, nameOf, { deletions: this.#deletions, extracted_at }) : [];
    if (!this.#catchingUp) return rest;
    return [...rest, ...readAgainSql(this.#owner, form, landed, replaces ? keysOf(range, form, nameOf) : [])];
  }

  #statementsFor(landed: Landed, extracted_at: string): string[] {
    const form = this.#form;
    const { kind } = landed;
    // What a chunk brings was not filled by the log.
    const doubts = (statements: typeof beforeRekeySql): string[] =>
      this.#catchingUp && this.#chunk === null ? statements(this.#owner, form, landed) : [];
    switch (kind) {
      case 'rekey':
        return [...doubts(beforeRekeySql), ...rekeySql(form, landed, extracted_at)];
      case 'delete':
        return [...this.#deleteSql(landed, extracted_at), ...doubts(besideDeleteSql)];
      case 'insert':
      case 'upsert':
        return [upsertSql(form, landed, extracted_at), ...doubts(besideUpsertSql)];
      case 'update':
        return [...doubts(beforeUpdateSql), ...[updateSql(form, landed, extracted_at) ?? []].flat()];
      case 'add':
        return [addCopiesSql(form, landed, extracted_at)];
      case 'remove':
      case 'erase':
        return [];
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

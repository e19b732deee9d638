/**
 * Asks the source's catalog what the log does not say of the tables in a cut, before the cut is staged: numbers of columns, what older rows have in a new
 * one, and types that are not PostgreSQL's own.
 *
 * On the path between cut and stage. A table is asked for once for each description of it in the log, so that a cut in which nothing is new costs no
 * query; but types whose definition grows without a word in the log (a label of an enum) are asked for at each cut that may have their values.
 */
import type { CapturedStream } from '../cut/captured.ts';
import type { DescribedBy, Share } from '../cut/share.ts';
import { SluiceError } from '../errors.ts';
import type { Source } from '../ports.ts';
import { projectedDescription } from '../projection/table.ts';
import {
  customTypeOids,
  displayName,
  mayChangeUnseen,
  type Shape,
  type SourceType,
  type TableDescription,
  withTypes,
} from '../shape.ts';
import type { SegmentHeader } from '../stage/segment.ts';

/** A share with what the catalog says of its table (null: the table is gone). Its shape has the definitions of its types. */
export interface DescribedShare extends Share {
  readonly described?: SegmentHeader['described'] | null;
}

export class Describing {
  #source: Pick<Source, 'describe'>;
  /** By OID: the newest message that the description covers; null: there was no such table any more. */
  #tables = new Map<number, { readonly message: number; readonly table: TableDescription | null }>();
  #types = new Map<number, SourceType | null>();
  /** By stream: what is hidden of its columns. */
  #hidden: ReadonlyMap<string, CapturedStream>;

  constructor(source: Pick<Source, 'describe'>, streams: readonly CapturedStream[] = []) {
    this.#source = source;
    this.#hidden = new Map(streams.flatMap((stream) => (stream.projection ? [[stream.stream, stream]] : [])));
  }

  /** The shares of one part, each with its description. Asks the source at most once. Throws what `Source.describe` throws. */
  async describe(shares: readonly Share[]): Promise<DescribedShare[]> {
    const unknown = shares.filter(({ relation }) => !this.#covers(relation));
    const tables = new Set(unknown.map(({ relation }) => relation.oid));
    const types = new Set(
      shares.flatMap(({ shape }) => customTypeOids(shape.columns)).filter((oid) => this.#mayHaveGrown(oid)),
    );
    if (tables.size + types.size > 0) {
      const described = await this.#source.describe([...tables], [...types]);
      for (const { oid, message } of unknown.map(({ relation }) => relation)) {
        const covered = Math.max(message, this.#tables.get(oid)?.message ?? 0);
        this.#tables.set(oid, { message: covered, table: described.tables.get(oid) ?? null });
      }
      for (const oid of types) this.#types.set(oid, described.types.get(oid) ?? null);
    }
    return shares.map((share) => ({
      ...share,
      shape: this.#typed(share.shape),
      described: this.#described(share),
    }));
  }

  #covers({ oid, message }: DescribedBy): boolean {
    return (this.#tables.get(oid)?.message ?? 0) >= message;
  }

  #mayHaveGrown(oid: number): boolean {
    const known = this.#types.get(oid);
    return known === undefined || (known !== null && mayChangeUnseen([{ type: known }]));
  }

  #described({ stream, relation: { oid, newest } }: Share): DescribedShare['described'] {
    const table = this.#tables.get(oid)?.table ?? null;
    if (table === null) return null;
    const hidden = this.#hidden.get(stream);
    if (!hidden?.projection) return { ...table, current: newest };
    assertHidden(table, hidden);
    return projectedDescription({ ...table, current: newest }, hidden.projection);
  }

  #typed(shape: Shape): Shape {
    const known = new Map<number, SourceType>();
    for (const oid of customTypeOids(shape.columns)) {
      const type = this.#types.get(oid);
      if (type) known.set(oid, type);
    }
    return known.size === 0 ? shape : { ...shape, columns: withTypes(shape.columns, known) };
  }
}

/**
 * Nothing is staged while a hidden column may have come under another name, or in what is computed from it: the next window knows all of them by their numbers
 * (window/projecting.ts). Throws SOURCE_TRANSIENT.
 */
function assertHidden({ columns }: TableDescription, stream: CapturedStream): void {
  const { projection, known } = stream;
  const shown = columns.find(
    ({ number, name, dropped, generated }) =>
      !dropped &&
      projection?.treatmentOf(name) === 'keep' &&
      (known?.numbers.has(number) || (generated !== '' && !known?.columns.has(name))),
  );
  if (shown === undefined) return;
  const reason = `column ${shown.name} of ${displayName(stream)} has come up while its changes were read, and may have values that the pipeline file hides`;
  throw new SluiceError('SOURCE_TRANSIENT', { reason, sqlstate: 'none' });
}

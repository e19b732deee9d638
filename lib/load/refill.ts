/**
 * Brings a copy's rows into the table that they are for, where that stays because something depends on it (swap.ts): constraints, triggers, policies of the target's own
 * meet all of them at once. With an `Aside` those that are refused are found by bisection over the copy's pages, and put aside.
 */
import type { SluiceError } from '../errors.ts';
import type { Aside } from '../ports.ts';
import type { Shape, TableName } from '../shape.ts';
import { quoteIdentifier, quoteTable } from '../sql-text.ts';
import { shownRow } from '../validation/rejected.ts';
import { applyAllBut } from './bisect.ts';
import { columnAt } from './columns.ts';
import type { Owner } from './control.ts';
import { Diverter } from './divert.ts';
import { QuarantinedKeys } from './quarantined-keys.ts';
import { attempt, checkDeferred } from './refusals.ts';
import type { Session } from './session.ts';

interface Refill {
  readonly table: TableName;
  readonly shadow: TableName;
  /** Names, in both tables. */
  readonly columns: readonly string[];
  /** Of the copy. */
  readonly shape: Shape;
}

/** Both tables have these columns; a table may have none. */
export function refillSql(table: TableName, shadow: TableName, names: readonly string[], where = ''): string {
  const columns = names.map(quoteIdentifier).join(', ');
  const into = `${quoteTable(table)}${columns === '' ? '' : ` (${columns})`}`;
  return `INSERT INTO ${into} SELECT ${columns} FROM ${quoteTable(shadow)} AS s${where === '' ? '' : ` WHERE ${where}`}`;
}

/** A place in the copy: some of its pages, or rows of one page. */
const inPages = (from: number, to: number): string => `s.ctid >= '(${from},0)'::tid AND s.ctid < '(${to},0)'::tid`;
const amongRows = (ctids: readonly string[]): string =>
  `s.ctid = ANY (ARRAY[${ctids.map((ctid) => `'${ctid}'`).join(', ')}]::tid[])`;

/** Throws what `Diverter.refuse` throws. Rows that are refused are tried once more when all others are in. */
export async function refillBut(session: Session, owner: Owner, aside: Aside, refill: Refill): Promise<void> {
  const keys = await QuarantinedKeys.ofCopy(session, owner, aside);
  const diverter = new Diverter(session, owner, aside, { checks: true, keys });
  const take = (where: string): Promise<SluiceError | null> =>
    attempt(session, async () => {
      await session.run(refillSql(refill.table, refill.shadow, refill.columns, where));
      await checkDeferred(session);
    });
  const pages: number[] = [];
  await applyAllBut<SluiceError>(
    {
      attempt: (from, to) => take(inPages(from, to)),
      refuse: (page, refusal) => {
        pages.push(page);
        if (pages.length > diverter.searched_max) throw diverter.tooMany(refusal);
      },
    },
    0,
    await pagesOf(session, refill.shadow),
  );
  const left: string[] = [];
  for (const page of pages) {
    const ctids = await rowsAt(session, refill.shadow, page);
    await applyAllBut<SluiceError>(
      {
        attempt: (from, to) => take(amongRows(ctids.slice(from, to))),
        refuse: (row, refusal) => {
          left.push(ctids[row] as string);
          if (left.length > diverter.searched_max) throw diverter.tooMany(refusal);
        },
      },
      0,
      ctids.length,
    );
  }
  const refused: [ctid: string, refusal: SluiceError][] = [];
  await applyAllBut<SluiceError>(
    {
      attempt: (from, to) => take(amongRows(left.slice(from, to))),
      refuse: (row, refusal) => void refused.push([left[row] as string, refusal]),
    },
    0,
    left.length,
  );
  for (const [ctid, refusal] of refused) await diverter.refuse(await rowAt(session, refill, ctid), refusal);
  await diverter.keep();
}

async function pagesOf(session: Session, shadow: TableName): Promise<number> {
  const { rows } = await session.query<{ pages: string }>(
    "SELECT ceil(pg_relation_size($1::regclass) / current_setting('block_size')::numeric)::text AS pages",
    [quoteTable(shadow)],
  );
  return Number(rows[0]?.pages);
}

async function rowsAt(session: Session, shadow: TableName, page: number): Promise<string[]> {
  const { rows } = await session.query<{ ctid: string }>(
    `SELECT s.ctid::text AS ctid FROM ${quoteTable(shadow)} AS s WHERE ${inPages(page, page + 1)}`,
    [],
  );
  return rows.map(({ ctid }) => ctid);
}

/** As it is put aside. */
async function rowAt(session: Session, { shadow, shape }: Refill, ctid: string) {
  const names = shape.columns.map(({ name }) => name);
  const { rows } = await session.query<{ values: (string | null)[] }>(
    `SELECT ARRAY[${names.map((name) => `s.${quoteIdentifier(name)}::text`).join(', ')}] AS values FROM ${quoteTable(shadow)} AS s WHERE s.ctid = $1::tid`,
    [ctid],
  );
  const values = rows[0]?.values ?? [];
  const key = {
    columns: shape.key.map((index) => columnAt(shape, index).name),
    values: shape.key.map((index) => values[index] ?? ''),
  };
  return { operation: 'copy' as const, key, row: shownRow(names, values) };
}

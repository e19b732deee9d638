/**
 * Rows that were left out, for a terminal: the list of tables, and one row with its reasons. Pure.
 */
import type { RejectsOf, ShownReject } from '../../lib/validation/rejects.ts';
import { count, fit, printable, table, wrap } from './text.ts';

const NAME_WIDTH_MIN = 16;

export function rejectsPage(streams: readonly RejectsOf[], width: number): string[] {
  if (streams.length === 0) return ['No rows are put aside.'];
  const lines = table(
    streams,
    [
      { title: 'table', text: ({ table: name }) => printable(name), shrinks_to: NAME_WIDTH_MIN },
      { title: 'rows', align: 'right', text: ({ rows }) => count(rows) },
      { title: 'first', text: ({ first_at }) => first_at },
      { title: 'last', text: ({ last_at }) => last_at },
    ],
    width,
  );
  return [
    ...lines,
    '',
    ...wrap(
      '`sluice rejects TABLE` shows the rows with their reasons; --load reads them again, --discard forgets them.',
      width,
    ),
  ];
}

/** Which row, why, and what it was. */
export function rejectLines(
  { table: name, key, operation, rejected_at, faults, row }: ShownReject,
  width: number,
): string[] {
  const which = key.columns.map((column, i) => `${column} = ${key.values[i]}`).join(', ');
  return [
    fit(printable(`${name} (${which}): ${operation}, put aside ${rejected_at}`), width),
    ...faults.flatMap(({ column, keyword, wants }) =>
      wrap(printable(`${column === null ? 'the row' : `column ${column}`} ${wants} (${keyword})`), width, '  '),
    ),
    ...Object.entries(row).map(([column, text]) => fit(printable(`    ${column}: ${text ?? 'NULL'}`), width)),
  ];
}

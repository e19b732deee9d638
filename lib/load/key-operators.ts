/**
 * The operators that compare a key's columns, where the type is not PostgreSQL's own: `=` of an extension lies in the extension's schema, which is not
 * on the pinned search path (and citext would be compared as text, which no index of its key serves).
 *
 * On the path: before a segment is applied. The operator is that of the key's own index, so that both agree on what is the same.
 * https://www.postgresql.org/docs/current/catalog-pg-amop.html
 */
import type { TypeUse } from '../shape.ts';
import { quoteTable } from '../sql-text.ts';
import { columnAt } from './columns.ts';
import type { Session } from './session.ts';
import type { TableForm } from './sql.ts';

/** $1 the table's OID → column of its primary key and the operator, as SQL writes it. Strategy 3 of a B-tree is equality. */
const OPERATORS_SQL = `
  SELECT a.attname::text AS name, format('OPERATOR(%I.%s)', n.nspname, o.oprname) AS operator
  FROM pg_index i
  CROSS JOIN LATERAL unnest(i.indkey::int2[], i.indclass::oid[]) AS k (attnum, opclass)
  JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
  JOIN pg_opclass c ON c.oid = k.opclass
  JOIN pg_amop m ON m.amopfamily = c.opcfamily AND m.amoplefttype = c.opcintype AND m.amoprighttype = c.opcintype AND m.amopstrategy = 3
  JOIN pg_operator o ON o.oid = m.amopopr
  JOIN pg_namespace n ON n.oid = o.oprnamespace
  WHERE i.indrelid = $1::regclass AND i.indisprimary`;

/** The form with the operators of its key; as it is where `=` will do. */
export async function withKeyOperators(session: Session, form: TableForm): Promise<TableForm> {
  const { shape } = form;
  if (!shape.key.some((index) => isNamed(columnAt(shape, index)))) return form;
  const { rows } = await session.query<{ name: string; operator: string }>(OPERATORS_SQL, [quoteTable(form.name)]);
  return { ...form, equals: new Map(rows.map(({ name, operator }) => [name, operator])) };
}

function isNamed({ type }: TypeUse): boolean {
  return type?.kind === 'domain' ? isNamed(type.base) : type?.kind === 'named';
}

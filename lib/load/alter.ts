/**
 * Carries out what `reshape` has found, on the target's table: renames, drops, changes of type and new columns, in one trip. Readers wait for the end of
 * the transaction from here on.
 */
import { displayName, type TableName } from '../shape.ts';
import { quoteIdentifier, quoteLiteral, quoteTable } from '../sql-text.ts';
import { typedColumns } from './ddl.ts';
import { dependentsFault } from './faults.ts';
import type { Step } from './reshape.ts';
import type { Session } from './session.ts';
import type { CustomTypes } from './types.ts';

const id = quoteIdentifier;

/** Throws TARGET_DEPENDENTS where something else on the target is built on a column, and what `targetFault` makes of the rest. */
export async function alterTable(
  session: Session,
  table: TableName,
  steps: readonly Step[],
  custom_types: CustomTypes,
): Promise<void> {
  const statements: string[] = [];
  for (const step of steps) statements.push(...(await statementsOf(session, step, custom_types)));
  if (statements.length === 0) return;
  const purpose = {
    action: `alter ${displayName(table)}`,
    grant_sql: `ALTER TABLE ${quoteTable(table)} OWNER TO ${id(session.user)}`,
  };
  try {
    await session.run(
      statements.map((statement) => `ALTER TABLE ${quoteTable(table)} ${statement}`).join('; '),
      purpose,
    );
  } catch (error) {
    throw dependentsFault(error);
  }
}

async function statementsOf(session: Session, step: Step, custom_types: CustomTypes): Promise<string[]> {
  switch (step.kind) {
    case 'rename':
      return [`RENAME COLUMN ${id(step.from)} TO ${id(step.to)}`];
    case 'drop':
      return [`DROP COLUMN ${id(step.name)}`];
    case 'retype': {
      const [before, now] = await typedColumns(session, [step.before, step.column], custom_types);
      // What is text here may have been and be any two types of the source.
      if (before === undefined || now === undefined || before.type === now.type) return [];
      return [`ALTER COLUMN ${id(now.name)} TYPE ${now.type} USING ${id(now.name)}::${now.type}`];
    }
    case 'add': {
      const [added] = await typedColumns(session, [step.column], custom_types);
      const definition = `ADD COLUMN ${id(step.column.name)} ${added?.type ?? 'text'}`;
      if (step.missing === null) return [definition];
      // Rows that are there get the value without being written; new ones bring their own.
      return [
        `${definition} DEFAULT ${quoteLiteral(step.missing)}`,
        `ALTER COLUMN ${id(step.column.name)} DROP DEFAULT`,
      ];
    }
    default:
      return step satisfies never;
  }
}

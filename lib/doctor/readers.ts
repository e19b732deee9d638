/**
 * Roles that are to read what is made on the target (target.default_target_schema_select_permissions): there, and such that the loading role may let them. None of it keeps
 * a row waiting, so it is a warning at most.
 */
import type { Client } from 'pg';
import { SluiceError } from '../errors.ts';
import { quoteIdentifier } from '../sql-text.ts';
import type { Check } from './finding.ts';

export interface ReaderSurvey {
  readonly role: string;
  readonly there: boolean;
  /** Schemas that it may not use, and that the loading role may not let it use. */
  readonly closed: readonly string[];
}

/** $1 roles, $2 schemas of the target tables. `public` is everybody. */
const READERS_SQL = `
  SELECT w.name AS role, w.name = 'public' OR r.oid IS NOT NULL AS there,
         ARRAY(SELECT n.nspname::text FROM pg_namespace n
                WHERE n.nspname = ANY ($2::text[])
                  AND NOT has_schema_privilege(CASE WHEN w.name = 'public' THEN 0::oid ELSE r.oid END, n.oid, 'USAGE')
                  AND NOT has_schema_privilege(n.oid, 'USAGE WITH GRANT OPTION')
                ORDER BY 1) AS closed
    FROM unnest($1::text[]) AS w (name) LEFT JOIN pg_roles r ON r.rolname = w.name
   ORDER BY w.name`;

export async function surveyReaders(
  client: Client,
  readers: readonly string[],
  schemas: readonly string[],
): Promise<readonly ReaderSurvey[]> {
  if (readers.length === 0) return [];
  return (await client.query<ReaderSurvey>(READERS_SQL, [readers, schemas])).rows;
}

export const READER_CHECKS: readonly Check[] = [
  {
    name: 'target_readers',
    run: ({ target }) => {
      if (target instanceof SluiceError) return [];
      return (target.readers ?? []).flatMap(({ role, there, closed }) => {
        const subject = `role ${role}`;
        if (!there) {
          const problem = 'target.default_target_schema_select_permissions names it, and the target does not have it.';
          const remedy = `Run: CREATE ROLE ${quoteIdentifier(role)}; or take it out of the list.`;
          return [{ severity: 'warning', subject, problem, remedy }];
        }
        const to = role === 'public' ? 'PUBLIC' : quoteIdentifier(role);
        return closed.map((schema) => ({
          severity: 'warning' as const,
          subject,
          problem: `It may not use schema ${schema} of the target, and ${target.server.user} may not let it.`,
          remedy: `Run: GRANT USAGE ON SCHEMA ${quoteIdentifier(schema)} TO ${to}`,
        }));
      });
    },
  },
];

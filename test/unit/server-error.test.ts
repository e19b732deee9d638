/** Which of a server's words may be told: none that may hold a row's value, whatever SQLSTATE a function or a trigger has chosen for them. */
import { describe, expect, test } from 'vitest';
import { isOfProcedure, type ServerError, serverReason, toldError } from '../../lib/postgres/server-error.ts';

const VALUE = 'a-value-of-a-row';

function serverError(code: string, fields: Partial<ServerError> = {}): ServerError {
  return Object.assign(new Error(`it says "${VALUE}"`), { code, severity: 'ERROR', ...fields });
}

describe('the message is told', () => {
  test.each<[string, string, Partial<ServerError>]>([
    ['of a name in our statement', '42P01', { position: '15' }],
    ['of syntax in a condition', '42601', { position: '3' }],
    ['of a setting in a condition', '22023', { position: '3' }],
    ['of a right that is missing', '42501', { routine: 'aclcheck_error' }],
    ['of a type in a row filter', '42804', {}],
    ['of the server', '53300', {}],
    ['of a role', '28P01', {}],
    ['within a COPY', '54000', { where: 'COPY t, line 1' }],
  ])('%s', (_what, code, fields) => {
    expect(serverReason(serverError(code, fields))).toContain(VALUE);
  });
});

describe('the message is kept back', () => {
  test.each<[string, string, Partial<ServerError>]>([
    ['of data', '22P02', {}],
    ['of a constraint', '23505', { constraint: 'c' }],
    ['of a function that raises as the server does', '42501', { routine: 'exec_stmt_raise' }],
    [
      'of a statement that a function has composed',
      '42703',
      { position: '8', where: 'PL/pgSQL function f(text) line 1 at EXECUTE' },
    ],
    ['of a function, in the language of the server', '53300', { where: 'PL/pgSQL-Funktion f(text) Zeile 1 bei RAISE' }],
    ['of another language', '58000', { where: 'PL/Python function "f"' }],
    ['of a table by a value', '42P01', { routine: 'RangeVarGetRelidExtended' }],
    ['of a time zone by a value', '22023', {}],
    ['of a search by a value', '42601', {}],
    ['of a schema by a value', '3F000', {}],
  ])('%s', (_what, code, fields) => {
    const error = serverError(code, fields);
    expect(serverReason(error)).not.toContain(VALUE);
    const { message, stack } = toldError(error);
    expect(message + stack).not.toContain(VALUE);
    expect(message).toContain(code);
  });
});

test('what quotes nothing is told', () => {
  const error = Object.assign(serverError('42601'), {
    message: 'cannot insert multiple commands into a prepared statement',
  });
  expect(serverReason(error)).toBe(error.message);
  for (const quoted of ['„x“', '»x«', '“x”', "'x'", '「x」'])
    expect(serverReason(Object.assign(serverError('42601'), { message: `syntax of ${quoted}` }))).toBe(
      'an error whose text may hold values',
    );
});

test('only what names its language, or was raised, is of a procedure', () => {
  expect(isOfProcedure(serverError('42501', { where: 'COPY t, line 1' }))).toBe(false);
  expect(isOfProcedure(serverError('P0001', { routine: 'exec_stmt_raise' }))).toBe(true);
});

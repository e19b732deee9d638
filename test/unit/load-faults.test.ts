/**
 * Goal: every SQLSTATE is retried or halts as the table says, and no text of the server's that may quote a row comes out of it.
 * Method: every known SQLSTATE, and classes nobody knows, with a canary in each text of the error.
 */
import { inspect } from 'node:util';
import { DatabaseError } from 'pg';
import { describe, expect, test } from 'vitest';
import { asSluiceError, SluiceError } from '../../lib/errors.ts';
import { conditionName, KNOWN_SQLSTATES } from '../../lib/load/conditions.ts';
import { copyPlace, type TargetContext, targetFault } from '../../lib/load/faults.ts';

const CANARY = 'canary-7f3a';
const SERVER = { host: 'db', port: 5432, user: 'loader', password: CANARY, database: 'shop' };
const CONTEXT: TargetContext = { stream: 'public.t', table: 's.t', action: 'write to s.t', server: SERVER };

function serverError(code: string, fields: Partial<DatabaseError> = {}): DatabaseError {
  return Object.assign(new DatabaseError(`it said "${CANARY}"`, 1, 'error'), {
    code,
    severity: 'ERROR',
    detail: `Failing row contains (${CANARY}).`,
    hint: CANARY,
    where: `COPY x, line 3, column c1: "${CANARY}"`,
    internalQuery: CANARY,
    ...fields,
  });
}

/** What a fault may be, by the first characters of the SQLSTATE; the longest that fits counts. */
const EXPECTED: Readonly<Record<string, string>> = {
  '08': 'TARGET_TRANSIENT',
  '08P01': 'UNEXPECTED',
  '09': 'TARGET_REJECTS',
  '0A': 'TARGET_REJECTS',
  '21': 'TARGET_REJECTS',
  '22': 'TARGET_REJECTS',
  '23': 'TARGET_REJECTS',
  '25': 'UNEXPECTED',
  '25006': 'TARGET_READ_ONLY',
  '25P03': 'TARGET_TRANSIENT',
  '25P04': 'TARGET_TRANSIENT',
  '27': 'TARGET_REJECTS',
  '28': 'AUTHENTICATION_FAILED',
  '2B': 'TARGET_DEPENDENTS',
  '2D': 'UNEXPECTED',
  '38': 'TARGET_REJECTS',
  '39': 'TARGET_REJECTS',
  '3B': 'UNEXPECTED',
  '3D': 'DATABASE_MISSING',
  '3F': 'TARGET_REJECTS',
  '40': 'TARGET_TRANSIENT',
  '42': 'TARGET_REJECTS',
  '42501': 'TARGET_NOT_ALLOWED',
  '42601': 'UNEXPECTED',
  '44': 'TARGET_REJECTS',
  '53': 'TARGET_TRANSIENT',
  '54': 'TARGET_REJECTS',
  '55': 'TARGET_REJECTS',
  '55006': 'TARGET_TRANSIENT',
  '55P03': 'TARGET_TRANSIENT',
  '57': 'TARGET_TRANSIENT',
  '57P04': 'DATABASE_MISSING',
  '58': 'UNEXPECTED',
  '58000': 'TARGET_TRANSIENT',
  '58030': 'TARGET_TRANSIENT',
  P0: 'TARGET_REJECTS',
  XX: 'UNEXPECTED',
  ZZ: 'TARGET_REJECTS', // RAISE … USING ERRCODE = 'ZZ001', by a trigger on the target
};

const STATES = [...KNOWN_SQLSTATES, '25P04', '22ABC', 'ZZ001', '53999', '55999'];

describe('what the server says', () => {
  test.each(STATES)('%s', (code) => {
    const fault = targetFault(serverError(code), CONTEXT);
    expect(fault.code).toBe(EXPECTED[code] ?? EXPECTED[code.slice(0, 2)]);
    expect(fault.message + fault.remedy + (fault.stack ?? '')).not.toContain(CANARY);
    expect(inspect(fault, { depth: Infinity, showHidden: true })).not.toContain(CANARY);
    expect(JSON.stringify([fault, fault.facts, fault.cause])).not.toContain(CANARY);
    expect(fault.facts.sqlstate).toBe(code);
  });

  test.each(['simple_heap_update', 'simple_heap_delete'])(
    'somebody changed the same row of the catalog (%s): tried again',
    (routine) => {
      expect(targetFault(serverError('XX000', { routine }), CONTEXT).code).toBe('TARGET_TRANSIENT');
    },
  );

  test('no room for locks: the setting that the hint names, in whatever language', () => {
    const full = serverError('53200', { hint: 'Vielleicht müssen Sie max_locks_per_transaction erhöhen.' });
    const fault = targetFault(full, CONTEXT);
    expect(fault).toMatchObject({ code: 'TARGET_TRANSIENT', facts: { setting: 'max_locks_per_transaction' } });
    expect(fault.remedy).toContain('raise max_locks_per_transaction');
    expect(targetFault(serverError('53200'), CONTEXT).remedy).toContain('work_mem');
  });

  test('names come out: table, column, constraint, and the line of the COPY', () => {
    const error = serverError('23514', { table: 't', column: undefined, constraint: 'positive' });
    expect(targetFault(error, CONTEXT).message).toBe(
      'The target refuses rows of public.t: check_violation at table t, constraint positive, line 3 (SQLSTATE 23514)',
    );
    const copied = [
      { column: 'c0', name: 'id' },
      { column: 'c1', name: 'Price' },
    ];
    expect(targetFault(serverError('22P02'), { ...CONTEXT, copied }).message).toContain('at column Price, line 3 (');
  });

  test('what is left of the cause says where in PostgreSQL it arose', () => {
    const { cause } = targetFault(
      serverError('22P02', { routine: 'pg_strtoint32_safe', file: 'numutils.c', table: 't' }),
      CONTEXT,
    );
    expect(cause).toMatchObject({
      message: 'invalid_text_representation',
      code: '22P02',
      routine: 'pg_strtoint32_safe',
      table: 't',
    });
  });

  test('a missing right: what was to be done, and the SQL for it', () => {
    const fault = targetFault(serverError('42501'), { ...CONTEXT, action: 'make schema x', grant_sql: 'GRANT y' });
    expect(fault.message).toBe('The target role loader lacks a right: it may not make schema x');
    expect(fault.remedy).toBe('Run: GRANT y; then: sluice resume public.t');
    expect(targetFault(serverError('42501'), CONTEXT).remedy).toContain('Grant CREATE');
  });
});

describe('what the network says', () => {
  const lost = Object.assign(new Error('read ECONNRESET'), { code: 'ECONNRESET' });

  test('before there is a connection: cannot be reached', () => {
    const refused = Object.assign(new Error('connect'), { code: 'ECONNREFUSED', address: '10.0.0.1', port: 5432 });
    const fault = targetFault(refused, { ...CONTEXT, server: null });
    expect(fault).toMatchObject({ code: 'CONNECTION_FAILED', disposition: 'retry' });
    expect(fault.message).toContain('10.0.0.1:5432');
    expect(targetFault(lost, { ...CONTEXT, server: null }).message).toContain('?:?');
  });

  test.each([
    lost,
    Object.assign(new Error('x'), { code: 'EPIPE' }),
    Object.assign(new Error('x'), { code: 'ETIMEDOUT' }),
    new Error('Connection terminated unexpectedly'),
    new Error('Client has encountered a connection error and is not queryable'),
  ])('afterwards: transient (%s)', (error) => {
    expect(targetFault(error, CONTEXT)).toMatchObject({ code: 'TARGET_TRANSIENT', disposition: 'retry', cause: error });
  });
});

test('what is ours already stays as it is, and what is nobody’s is unexpected', () => {
  const ours = new SluiceError('STAGE_CORRUPT', { object: 'o' });
  expect(targetFault(ours, CONTEXT)).toBe(ours);
  expect(targetFault(new TypeError('x is not a function'), CONTEXT)).toEqual(
    asSluiceError(new TypeError('x is not a function')),
  );
});

describe('the place in a COPY', () => {
  const copied = [
    { column: 'c1', name: 'one' },
    { column: 'c10', name: 'ten' },
  ];
  test.each([
    ['COPY x, line 3, column c1: "v"', { line: 3, name: 'one' }],
    ['COPY x, line 3, column c10: "v"', { line: 3, name: 'ten' }],
    ['COPY x, line 3, column c2: "c1: v"', { line: 3, name: undefined }],
    [`COPY x, line 12: "${CANARY}"`, { line: 12, name: undefined }],
    ['COPY x, line 3, column c1: null input', { line: 3, name: 'one' }],
    ['SQL statement "COPY x, line 3"', null],
    ['PL/pgSQL function f() line 3 at RAISE', null],
    ['COPY x, Zeile 3', null],
  ])('%s', (where, place) => {
    expect(copyPlace(where, copied)).toEqual(place);
  });
});

test('an unknown SQLSTATE is called by its class', () => {
  expect(conditionName('22P02')).toBe('invalid_text_representation');
  expect(conditionName('ZZ999')).toBe('error of class ZZ');
});

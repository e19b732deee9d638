/**
 * Goal: a condition of the pipeline file cannot leave the brackets that it is put in. Method: conditions that are one, and all ways out that SQL's scanner leaves.
 */
import { expect, test } from 'vitest';
import { conditionFault } from '../../lib/config/condition.ts';

test.each([
  "region = 'eu'",
  "region = 'eu' -- of (Europe; and",
  '(a = 1) OR (b IN (2, 3) /* not ) /* nested ; */ ) */)',
  "name = 'a'')'';' AND \"odd ) ;\"\")\" > 1",
  String.raw`name = E'it\'s ) ;\\' AND a = 1`,
  String.raw`name = '\' AND b = ')'`,
  'name = $$ ) ; $$ OR name = $a$ $$ ) $b$ ; $a$',
  "a$b$c = 1 AND ä = 'ö' AND tags[1] = 'x'",
  "fooE = 'x\\' AND fooE'y\\' = '1'",
  "name = 'a'\n'b'",
])('is one: %s', (sql) => {
  expect(conditionFault(sql)).toBeNull();
});

test.each([
  ['a = 1) OR (b = 2', 'closes'],
  [')', 'closes'],
  ['(a = 1', 'opens'],
  ['true; DROP TABLE t', 'semicolon'],
  ["a = 'x", 'quote'],
  ['"a = 1', 'quote'],
  [String.raw`a = E'x\' OR true`, 'quote'],
  ['a = $x$ b', 'quote'],
  ['a = $$ b', 'quote'],
  ['a = 1 /* /* */', 'comment'],
  [String.raw`a = '\') OR ('`, 'closes'],
  // In the second line the backslash escapes too: what looks like a string is none.
  [`a = E'a'\n${String.raw`'\' || ' ) OR (true '`}`, 'goes on'],
  [`a = E'a' -- more\n${String.raw`'\' || ' ) OR (true '`}`, 'goes on'],
  ['a$b$ = 1) OR (b = $b$', 'closes'],
])('is none: %s', (sql, why) => {
  expect(conditionFault(sql)).toContain(why);
});

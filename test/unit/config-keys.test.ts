/**
 * Keys that are unknown, misplaced, or of a later version: the nearest known name, or what to do instead.
 */
import { HEAD, SOURCE, TARGET, testFaults } from '../support/config-cases.ts';

testFaults([
  ['unknown key, near', `${HEAD}${SOURCE}  prot: 1\n`, '7:3', 'source.prot is not an option.', 'Did you mean port?'],
  [
    'unknown key, other case',
    `${HEAD}${TARGET}  hardDelete: true\n`,
    '7:3',
    'target.hardDelete is not an option.',
    'Did you mean hard_delete?',
  ],
  [
    'unknown key, a word of one',
    `${HEAD}${SOURCE}  publication: x\n`,
    '7:3',
    'source.publication is not an option.',
    'Did you mean publication_name?',
  ],
  [
    'unknown key, of another section',
    `${HEAD}${SOURCE}  batch_size_rows: 5\n`,
    '7:3',
    'source.batch_size_rows is not an option.',
    'It is an option of target: move it there.',
  ],
  [
    'unknown key, of the top',
    `${HEAD}${SOURCE}  schedule: {}\n`,
    '7:3',
    'source.schedule is not an option.',
    'It belongs to the top of the file.',
  ],
  [
    'unknown key, like none',
    `${HEAD}zzzzzzzz: 1\n`,
    '3:1',
    'zzzzzzzz is not an option.',
    'Remove it; the options there are pipeline, source, tables, target, mask_salt, schedule.',
  ],
  [
    'unknown key in a table',
    'pipeline: shop\ntables:\n  - table: a.b\n    target_tabel: c\n',
    '4:5',
    'tables[0].target_tabel is not an option.',
    'Did you mean target_table?',
  ],
  [
    'unknown key in ssl',
    `${HEAD}${SOURCE}  ssl: { caa: x }\n`,
    '7:10',
    'source.ssl.caa is not an option.',
    'Did you mean ca?',
  ],
  ['unknown key of a strange name', `${HEAD}"a b\\n": 1\n`, '3:1', '["a b\\n"] is not an option.', 'Remove it'],
  ['__proto__', `${HEAD}__proto__: { a: 1 }\n`, '3:1', 'The key __proto__ is not taken anywhere.', 'Remove it'],
  [
    'option of the schedule in that of a table',
    'pipeline: shop\ntables:\n  - table: a.b\n    schedule: { continuous: true }\n',
    '4:17',
    'tables[0].schedule.continuous is not an option.',
    'It is an option of schedule: move it there.',
  ],
]);

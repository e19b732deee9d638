/** source.failover at the beginning of a window: when the slot is changed, and what becomes of the window where it cannot be. */
import { describe, expect, test } from 'vitest';
import { readPipeline } from '../../lib/config/read.ts';
import { FAILOVER_CHECKS } from '../../lib/doctor/failover.ts';
import type { Survey } from '../../lib/doctor/finding.ts';
import { SluiceError } from '../../lib/errors.ts';
import type { Ground, Source } from '../../lib/ports.ts';
import { failoverFault } from '../../lib/slot/failover.ts';
import { followFailover } from '../../lib/window/failover.ts';
import { HEAD, SOURCE } from '../support/config-cases.ts';
import { keptLog } from '../support/ledger-nouns.ts';

const pipelineWith = (more: string) => readPipeline(`${HEAD}${SOURCE}${more}`, 'pipeline.yaml');
const groundWith = (failover: boolean | null) => ({ slot: { failover } }) as unknown as Ground;

/** What the source was asked for, and what was logged. */
async function follow(more: string, failover: boolean | null, thrown?: SluiceError) {
  const asked: boolean[] = [];
  const source = {
    setFailover: (wanted: boolean) => {
      asked.push(wanted);
      return thrown ? Promise.reject(thrown) : Promise.resolve();
    },
  } as unknown as Source;
  const log = keptLog();
  await followFailover({ source, log }, pipelineWith(more), groundWith(failover));
  return { asked, events: log.lines.map(({ level, event }) => `${level} ${event}`) };
}

test.each([
  ['failover: true', false, [true]],
  ['failover: true', true, []],
  ['failover: false', true, [false]],
  ['create_slot: true', true, [false]],
  ['create_slot: true', false, []],
  // Somebody else's slot stays as it is, unless the file says so.
  ['create_slot: false', true, []],
  ['{ create_slot: false, failover: false }', true, [false]],
  // A server that knows nothing of it.
  ['failover: false', null, []],
] as const)('%s, and the slot has %s', async (more, failover, expected) => {
  const lines = more.startsWith('{') ? more.slice(2, -2).split(', ') : [more];
  const { asked, events } = await follow(lines.map((line) => `  ${line}\n`).join(''), failover);
  expect(asked).toEqual(expected);
  expect(events).toEqual(expected.length > 0 ? ['info slot_failover_set'] : []);
});

test('a role that may not open a walsender: told, and the window goes on', async () => {
  const refused = new SluiceError('REPLICATION_NOT_ALLOWED', { user: 'u', user_sql: 'u' });
  expect(await follow('  failover: true\n', false, refused)).toEqual({
    asked: [true],
    events: ['warn slot_failover_not_set'],
  });
});

test('what may pass is thrown, and tried again by the next window', async () => {
  const busy = new SluiceError('SOURCE_TRANSIENT', { reason: 'object_in_use', sqlstate: '55006' });
  await expect(follow('  failover: true\n', false, busy)).rejects.toBe(busy);
});

describe('doctor, of a slot that is not as source.failover says', () => {
  const noWalsender = new SluiceError('REPLICATION_NOT_ALLOWED', { user: 'u', user_sql: 'u' });
  const findings = (more: string, failover: boolean | null, replication: SluiceError | null, may_replicate = true) => {
    const ground = { version: 170_000, may_replicate, slot: { failover } };
    const survey = { pipeline: pipelineWith(more), source: { ground }, replication } as unknown as Survey;
    return FAILOVER_CHECKS.flatMap(({ run }) => run(survey)).map(({ severity, remedy }) => [severity, remedy]);
  };

  test('the next window changes it', () => {
    expect(findings('  failover: true\n', false, null)).toEqual([['info', null]]);
    expect(findings('  failover: false\n', true, null)).toEqual([['info', null]]);
  });

  test('no window can without a walsender: how a person does', () => {
    const by = (failover: boolean) => expect.stringContaining(`ALTER_REPLICATION_SLOT sluice_d (FAILOVER ${failover})`);
    expect(findings('  failover: true\n', false, noWalsender)).toEqual([['warning', by(true)]]);
    expect(findings('  failover: false\n', true, noWalsender)).toEqual([['warning', by(false)]]);
    expect(findings('  failover: true\n', false, null, false)).toEqual([['warning', by(true)]]);
  });

  test('nothing where it is as it should be, is nobody of ours, or knows nothing of it', () => {
    expect(findings('  failover: true\n', true, noWalsender)).toEqual([]);
    expect(findings('  create_slot: false\n', true, noWalsender)).toEqual([]);
    expect(findings('  failover: false\n', null, noWalsender)).toEqual([]);
  });
});

test('needs 17, and only where it is asked for', () => {
  expect(failoverFault(170_000, true)).toBeNull();
  expect(failoverFault(160_009, false)).toBeNull();
  expect(failoverFault(160_009, null)).toBeNull();
  expect(failoverFault(160_009, true)).toMatchObject({
    code: 'VERSION_UNSUPPORTED',
    facts: { version: '16.9', minimum: '17', reason: 'source.failover' },
  });
});

/** Who reads the slot: names and tokens of our sessions, a stranger, and a zombie that is waited for and then ended. */
import { describe, expect, test } from 'vitest';
import { SluiceError } from '../../lib/errors.ts';
import { LSN_ZERO } from '../../lib/lsn.ts';
import type { Ground, SlotRow } from '../../lib/ports.ts';
import { freeSlot, sessionName, sessionToken } from '../../lib/window/free-slot.ts';
import { HandClock, keptLog } from '../support/ledger-nouns.ts';

const APPLICATION = 'sluice/shop';

describe('session names', () => {
  test.each([
    ['sluice/shop', '7', 'sluice/shop#7'],
    ['x'.repeat(61), '7', `${'x'.repeat(61)}#7`],
    ['x'.repeat(62), '7', `${'x'.repeat(61)}#7`],
    ['x'.repeat(200), '1234567890', `${'x'.repeat(52)}#1234567890`],
    ['', '7', '#7'],
    ['ü'.repeat(40), '12', `${'ü'.repeat(30)}#12`],
  ])('%s with token %s', (name, token, expected) => {
    expect(sessionName(name, token)).toBe(expected);
    expect(Buffer.byteLength(expected)).toBeLessThanOrEqual(63);
    expect(sessionToken(expected, name)).toBe(Number(token));
  });

  test.each<[string, string | null]>([
    ['nobody', null],
    ['an empty name', ''],
    ['another program', 'psql'],
    ['ours without a token', 'sluice/shop'],
    ['another pipeline', 'sluice/shop2#7'],
    ['one whose name begins like ours', 'sluice/shop/x#7'],
    ['a token that is no number', 'sluice/shop#7a'],
    ['an empty token', 'sluice/shop#'],
    ['a negative one', 'sluice/shop#-7'],
    ['two tokens', 'sluice/shop#6#7'],
  ])('%s is a stranger', (_who, name) => {
    expect(sessionToken(name, APPLICATION)).toBeNull();
  });
});

type Reader = Pick<SlotRow, 'active_pid' | 'active_application' | 'active_client'>;

/** A slot whose reader at any time `readers` tells; null: nobody. */
function slotOf(readers: (waited_ms: number, ended: readonly number[]) => Reader | null) {
  const clock = new HandClock();
  const log = keptLog();
  const began_ms = clock.now();
  const ended: number[] = [];
  const look = (): Ground => {
    const reader = readers(clock.now() - began_ms, ended) ?? {
      active_pid: null,
      active_application: null,
      active_client: null,
    };
    const slot = {
      plugin: 'pgoutput',
      database: 'shop',
      confirmed_lsn: LSN_ZERO,
      wal_status: null,
      safe_wal_bytes: null,
      invalidation_reason: null,
      ...reader,
    };
    return { slot } as unknown as Ground;
  };
  const source = {
    look: () => Promise.resolve(look()),
    terminate: (pid: number) => {
      ended.push(pid);
      return Promise.resolve();
    },
  };
  const ports = { source, clock, log, random: () => 0.5 } as unknown as Parameters<typeof freeSlot>[0];
  const free = () => freeSlot(ports, look(), { slot: 'sluice_shop', application_name: APPLICATION, token: 9 });
  return { free, ended, log, waited_ms: () => clock.now() - began_ms };
}

const reader = (pid: number, application: string | null, client: string | null = '10.0.0.7'): Reader => ({
  active_pid: pid,
  active_application: application,
  active_client: client,
});

describe('freeSlot', () => {
  test('a slot that nobody reads is free at once', async () => {
    const { free, waited_ms } = slotOf(() => null);
    await free();
    expect(waited_ms()).toBe(0);
  });

  test('a slot that there is not is free', async () => {
    const ports = {} as Parameters<typeof freeSlot>[0];
    const ground = { slot: null } as Ground;
    await freeSlot({ ...ports, clock: new HandClock() }, ground, { slot: 's', application_name: 'a', token: 1 });
  });

  test('a zombie that goes by itself is waited for and not ended', async () => {
    const { free, ended, waited_ms } = slotOf((ms) => (ms < 2_500 ? reader(77, 'sluice/shop#8') : null));
    await free();
    expect(ended).toEqual([]);
    expect(waited_ms()).toBe(2_500);
  });

  test('a zombie that stays is ended, once, after its time', async () => {
    const { free, ended, log, waited_ms } = slotOf((ms, done) =>
      done.length > 0 && ms >= 5_000 ? null : reader(77, 'sluice/shop#8'),
    );
    await free();
    expect(ended).toEqual([77]);
    expect(waited_ms()).toBe(5_000);
    expect(log.lines.map(({ event, facts }) => [event, facts.pid])).toEqual([['zombie_ended', 77]]);
  });

  test('two zombies one after the other are both ended', async () => {
    const { free, ended } = slotOf((_ms, done) =>
      done.length < 2 ? reader(77 + done.length, `sluice/shop#${7 + done.length}`) : null,
    );
    await free();
    expect(ended).toEqual([77, 78]);
  });

  test.each<[string, string | null, string | null, RegExp]>([
    ['a stranger', 'pg_recvlogical', '10.1.2.3', /pg_recvlogical.*10\.1\.2\.3/],
    ['one without a name, on the same machine', '', null, /an unnamed client.*local/],
    ['one of ours with our own token', 'sluice/shop#9', '10.0.0.7', /sluice\/shop#9/],
    ['one of ours with a newer token', 'sluice/shop#10', '10.0.0.7', /sluice\/shop#10/],
    ['another pipeline of ours', 'sluice/other#1', '10.0.0.7', /sluice\/other#1/],
  ])('%s is named and left alone', async (_who, application, client, named) => {
    const { free, ended, waited_ms } = slotOf(() => reader(55, application, client));
    const fault = await free().then(
      () => null,
      (error: unknown) => error,
    );
    expect(fault).toBeInstanceOf(SluiceError);
    expect(fault).toMatchObject({
      code: 'SLOT_ACTIVE',
      facts: { pid: 55, slot: 'sluice_shop' },
      message: expect.stringMatching(named),
    });
    expect(ended).toEqual([]);
    expect(waited_ms()).toBeLessThanOrEqual(3_250);
  });

  test('a zombie that cannot be ended is given up after a limit', async () => {
    const { free, ended, waited_ms } = slotOf(() => reader(77, 'sluice/shop#8'));
    await expect(free()).rejects.toMatchObject({ code: 'SLOT_ACTIVE', facts: { pid: 77 } });
    expect(ended).toEqual([77]);
    expect(waited_ms()).toBeGreaterThanOrEqual(20_000);
    expect(waited_ms()).toBeLessThan(21_000);
  });
});

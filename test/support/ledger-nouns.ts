/** The ledger's nouns with values that a test does not care about, and a clock that a test moves by hand. */
import { lsnOf } from '../../lib/lsn.ts';
import type { Bookmark, Chunk, Clock, Cut, Epoch, Log, RunReport } from '../../lib/ports.ts';

export class HandClock implements Clock {
  now_ms = 1_000_000;
  readonly slept: number[] = [];

  now(): number {
    return this.now_ms;
  }

  sleep(ms: number): Promise<void> {
    this.slept.push(ms);
    this.now_ms += ms;
    return Promise.resolve();
  }
}

export interface Line {
  readonly level: 'info' | 'warn' | 'error';
  readonly event: string;
  readonly facts: Record<string, unknown>;
}

/** A log that keeps its lines. */
export function keptLog(): Log & { readonly lines: Line[] } {
  const lines: Line[] = [];
  const at =
    (level: Line['level']) =>
    (event: string, facts: Record<string, unknown> = {}) => {
      lines.push({ level, event, facts });
    };
  return { lines, info: at('info'), warn: at('warn'), error: at('error') };
}

export function aCut(change: Partial<Cut> = {}): Cut {
  return {
    number: 1,
    kind: 'changes',
    begin_lsn: lsnOf(0x1600000000n),
    end_lsn: lsnOf(0x16b374d848n),
    committed_at_ms: 1_700_000_000_000,
    recorded_at_ms: 1_700_000_000_500,
    object: 'shop/cuts/000000000001-a',
    object_bytes: 1234,
    index: null,
    streams: {
      'public.t': {
        ranges: [
          [0, 1000],
          [1100, 134],
        ],
        changes: 7,
        text_bytes: 4000,
      },
    },
    captures: [],
    incarnation: 'inc-1',
    system_identifier: '7300000000000000001',
    timeline: 1,
    ...change,
  };
}

export function aBookmark(change: Partial<Bookmark> = {}): Bookmark {
  return {
    stream: 'public.t',
    table: { schema: 'public', table: 't' },
    target: { schema: 'public', table: 't' },
    captured_cut: 2,
    epoch: 0,
    state: 'captured',
    halt: null,
    reset_requested: false,
    incarnation: 'inc-1',
    applied_cut: 0,
    applied_lsn: lsnOf(0n),
    applied_at_ms: 0,
    rows_copied: 0,
    changes_applied: 0,
    ...change,
  };
}

export function anEpoch(change: Partial<Epoch> = {}): Epoch {
  return {
    stream: 'public.t',
    number: 1,
    kind: 'first_sync',
    where: null,
    state: 'opened',
    plan: null,
    chunks: null,
    rows_estimate: -1,
    held_cut: 2,
    opened_at_ms: 5,
    rung_at_ms: 5,
    done_at_ms: null,
    ...change,
  };
}

export function aChunk(change: Partial<Chunk> = {}): Chunk {
  return {
    stream: 'public.t',
    epoch: 1,
    plan: 'plan-1',
    number: 0,
    range: { by: 'key', columns: ['id'], from: null, to: ['100'] },
    staged: null,
    loaded: false,
    ...change,
  };
}

export const STAGED: NonNullable<Chunk['staged']> = {
  object: 'shop/chunks/1',
  object_bytes: 10,
  rows: 3,
  text_bytes: 30,
  lsn: lsnOf(99n),
};

export function aReport(change: Partial<RunReport> = {}): RunReport {
  return {
    run: 'run-1',
    started_at_ms: 1_700_000_000_000,
    ended_at_ms: 1_700_000_060_000,
    stopped_by: 'end_lsn',
    error: null,
    begin_lsn: lsnOf(1n),
    end_lsn: lsnOf(2n),
    source_lsn: null,
    cuts: 1,
    transactions: 2,
    changes: 3,
    text_bytes: 4,
    object_bytes: 5,
    streams: { 'public.t': { changes: 3, text_bytes: 4 } },
    seconds: { ground: 0.25, read: 1.5, stage: 0, record: 0.001 },
    ...change,
  };
}

/**
 * The chain as one window holds it (I2): its newest cut, and the way to append the next. Whoever loses the append has been overtaken by another
 * window: it stops with WINDOW_LOST, and nothing it staged counts.
 */
import { SluiceError } from '../errors.ts';
import type { Lsn } from '../lsn.ts';
import type { Clock, Cut, Ledger } from '../ports.ts';

/** What a window says of a cut; the rest follows from the cut before. */
export type NextCut = Pick<Cut, 'kind' | 'end_lsn'> &
  Partial<
    Pick<
      Cut,
      | 'committed_at_ms'
      | 'object'
      | 'object_bytes'
      | 'earlier'
      | 'index'
      | 'streams'
      | 'captures'
      | 'system_identifier'
      | 'timeline'
    >
  >;

export class Chain {
  #ledger: Pick<Ledger, 'append'>;
  #clock: Clock;
  #head: Cut;

  constructor(ledger: Pick<Ledger, 'append'>, clock: Clock, head: Cut) {
    this.#ledger = ledger;
    this.#clock = clock;
    this.#head = head;
  }

  get head(): Cut {
    return this.#head;
  }

  /** Begins where the chain ends. Durable when it resolves. Throws WINDOW_LOST when the position is taken. */
  async append(next: NextCut): Promise<Cut> {
    const before = this.#head;
    const cut: Cut = {
      number: before.number + 1,
      begin_lsn: before.end_lsn,
      committed_at_ms: null,
      recorded_at_ms: this.#clock.now(),
      object: null,
      object_bytes: 0,
      index: null,
      streams: {},
      captures: [],
      incarnation: before.incarnation,
      system_identifier: before.system_identifier,
      timeline: before.timeline,
      ...next,
    };
    if (!(await this.#ledger.append(cut))) throw new SluiceError('WINDOW_LOST', { cut: before.number });
    this.#head = cut;
    return cut;
  }
}

/** The first cut of a new chain: made before the slot, so that a slot found after a crash is known to be ours. */
export async function beginChain(
  ledger: Pick<Ledger, 'append'>,
  clock: Clock,
  origin: {
    readonly incarnation: string;
    readonly system_identifier: string;
    readonly timeline: number;
    readonly position: Lsn;
  },
): Promise<Chain> {
  const { position, ...same } = origin;
  const genesis: Cut = {
    number: 0,
    kind: 'genesis',
    begin_lsn: position,
    end_lsn: position,
    committed_at_ms: null,
    recorded_at_ms: clock.now(),
    object: null,
    object_bytes: 0,
    index: null,
    streams: {},
    captures: [],
    ...same,
  };
  if (!(await ledger.append(genesis))) throw new SluiceError('WINDOW_LOST', { cut: 0 });
  return new Chain(ledger, clock, genesis);
}

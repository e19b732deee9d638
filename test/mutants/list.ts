/** What the theorems rest on, each a condition, check or order that `npm run mutants` takes out (mutants.ts). */

export interface Mutant {
  /** What is taken out. */
  readonly without: string;
  readonly file: string;
  readonly from: string;
  readonly to: string;
}

const LEDGER = 'test/support/memory-ports.ts';

export const MUTANTS: readonly Mutant[] = [
  {
    without: 'the condition that a cut has no other at its number (I2)',
    file: LEDGER,
    from: 'if (cut.number !== (head?.number ?? -1) + 1) return false;',
    to: '',
  },
  {
    without: 'the condition that a bookmark is changed only while its capture and epoch are those that were read',
    file: LEDGER,
    from: 'if (known.captured_cut !== captured_cut || known.epoch !== epoch) return false;',
    to: 'void captured_cut; void epoch;',
  },
  {
    without: 'the condition that an epoch follows the one before it',
    file: LEDGER,
    from: 'if (bookmark?.epoch !== epoch.number - 1) return false;',
    to: 'if (!bookmark) return false;',
  },
  {
    without: 'the condition that an epoch is changed only from the state that was read',
    file: LEDGER,
    from: 'if (known?.state !== from) return false;',
    to: 'if (!known) return false; void from;',
  },
  {
    without: 'the condition that a chunk is staged once',
    file: LEDGER,
    from: 'if (chunks.get(chunkKey(chunk))?.staged) return false;',
    to: '',
  },
  {
    without: 'the condition that a suspended transaction stands in the place of the one that was read',
    file: LEDGER,
    from: 'if ((durable.unfinished?.id ?? null) !== instead_of) return false;',
    to: 'void instead_of;',
  },
  {
    without: 'the order: recorded, then confirmed (I1)',
    file: 'lib/pipeline.ts',
    from: "const record = () => run.timed('record', () => chain.append(next));",
    to: "reader.confirm(next.end_lsn); const record = () => run.timed('record', () => chain.append(next));",
  },
  {
    without: 'the order: staged, then recorded',
    file: 'lib/stage/staged-cut.ts',
    from: 'const rejected = await this.#completeRejected();\n    await this.#writer.complete();\n    const object_bytes',
    to: 'const rejected = await this.#completeRejected();\n    const object_bytes',
  },
  {
    without: 'the applied cut: a load begins after what it believes, not after what the target says (I4)',
    file: 'lib/load/steps.ts',
    from: 'ledger.cutsAfter(applied_cut, CUTS_MAX)',
    to: 'ledger.cutsAfter(Math.max(0, applied_cut - 1), CUTS_MAX)',
  },
  {
    without: 'the hold: cuts are applied while an epoch has the stream',
    file: 'lib/load/steps.ts',
    from: 'if (tx.row.hold !== null) {',
    to: 'if (tx.row.hold === -1) {',
  },
  {
    without: 'the wait for whoever wrote before the publication (I11)',
    file: 'lib/window/writers.ts',
    from: 'const free = await withoutWriters(ports, wanted, asked);',
    to: 'const free = wanted;',
  },
  {
    without: 'passing over what the log has from before a capture',
    file: 'lib/cut/open-cut.ts',
    from: 'if (stream?.captured.log_from !== undefined && this.#commit_lsn < stream.captured.log_from) return null;',
    to: '',
  },
  {
    without: 'the note that a table is to be captured anew, before it is published again',
    file: 'lib/window/capture.ts',
    from: 'await captureAnew({ ledger, log }, id, { table: displayName(table), reason });',
    to: '',
  },
  {
    without: 'catching up: a copy is live before the chain has been applied up to it',
    file: 'lib/load/steps.ts',
    from: 'const caughtUp = catching_up_to === null || lsn >= catching_up_to;',
    to: 'const caughtUp = catching_up_to === null || lsn >= 0n;',
  },
];

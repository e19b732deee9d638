/**
 * Lets one piece of work run while the next is prepared, in order, never more than one (I8). A failure is thrown by whoever waits next.
 */
export class OneBehind {
  #work: Promise<void> = Promise.resolve();
  #isFree = true;

  /** Whether nothing runs now. */
  get isFree(): boolean {
    return this.#isFree;
  }

  /** Resolves when nothing runs any more: what the last work used is free. */
  settled(): Promise<void> {
    return this.#work;
  }

  /** Starts `work`; the last must have settled. `alone`: nothing may be prepared beside it, for it holds much; resolves when that is so no more. */
  async start(work: () => Promise<void>, alone = false): Promise<void> {
    this.#isFree = false;
    this.#work = work().finally(() => {
      this.#isFree = true;
    });
    // Its failure is met by the next `settled`; until then it must not count as unhandled.
    this.#work.catch(() => {});
    if (alone) await this.#work;
  }
}

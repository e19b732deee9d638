/**
 * Lets one piece of work run while the next is prepared, in order, never more than one (I8). A failure is thrown by whoever waits next.
 */
export class OneBehind {
  #work: Promise<void> = Promise.resolve();

  /** Resolves when nothing runs any more: what the last work used is free. */
  settled(): Promise<void> {
    return this.#work;
  }

  /** Starts `work`; the last must have settled. */
  start(work: () => Promise<void>): void {
    this.#work = work();
    // Its failure is met by the next `settled`; until then it must not count as unhandled.
    this.#work.catch(() => {});
  }
}

/**
 * How a reader of the slot waits for what comes by itself: until somebody wakes it, or for a bounded time. One waits at a time.
 */
export class Wake {
  #wake: (() => void) | null = null;

  awaken(): void {
    this.#wake?.();
    this.#wake = null;
  }

  wait(wait_ms: number): Promise<void> {
    return new Promise((resolve) => {
      const wake = (): void => {
        clearTimeout(timer);
        resolve();
      };
      const timer = setTimeout(wake, Math.max(0, wait_ms));
      this.#wake = wake;
    });
  }
}

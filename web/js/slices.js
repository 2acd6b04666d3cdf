/**
 * A job on a page's own thread, where it is done in slices between which the page goes on.
 */

export class Slices {
  #job;
  #onText;
  /** @type {(value?: undefined) => void} */
  #resolve = () => {};
  /** @type {(reason: unknown) => void} */
  #reject = () => {};
  #over = false;
  /** For weights that have not arrived. */
  waiting = false;
  done = new Promise((resolve, reject) => {
    this.#resolve = resolve;
    this.#reject = reject;
  });

  /**
   * @param {any} job
   * @param {(text: string) => void} onText
   */
  constructor(job, onText) {
    this.#job = job;
    this.#onText = onText;
    this.done.catch(() => {});
  }

  /**
   * True if there is more to do.
   *
   * @param {number} budgetMs
   */
  step(budgetMs) {
    if (this.#over) return false;
    try {
      const state = this.#job.step(budgetMs);
      const text = this.#job.take();
      if (text) this.#onText(text);
      this.waiting = state === "waiting";
      if (state !== "done") return true;
      this.#resolve();
    } catch (error) {
      this.#reject(error);
    }
    this.#over = true;
    return false;
  }
}

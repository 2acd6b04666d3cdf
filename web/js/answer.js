/**
 * An answer in the making: its pieces one by one (`for await`), its text as a whole (`await`), and what is known of it at the end.
 */

/** @typedef {import("../index.js").AnswerResult} AnswerResult */
/** @typedef {import("../index.js").Stage} Stage */

/** @implements {AsyncIterable<string>} */
export class Answer {
  /** @type {string[]} */
  #pieces = [];
  #text = "";
  #over = false;
  /** @type {unknown} */
  #error = undefined;
  #failed = false;
  #cancel = new AbortController();
  #wake = () => {};
  #more = this.#promise();
  /** @type {Stage} */
  #stage = "waiting";
  /** @type {Promise<AnswerResult>} */
  #result;

  /**
   * @param {(onText: (text: string) => void, onStage: (stage: Stage) => void, signal: AbortSignal) => Promise<Omit<AnswerResult, "text">>} run
   * @param {{ signal?: AbortSignal | undefined, onStage?: ((stage: Stage) => void) | undefined }} options
   */
  constructor(run, { signal, onStage }) {
    const stop = () => this.#cancel.abort(signal?.reason);
    if (signal?.aborted) stop();
    signal?.addEventListener("abort", stop, { once: true });
    const finish = async () => {
      try {
        const result = await run(
          (text) => this.#add(text),
          (stage) => {
            this.#stage = stage;
            onStage?.(stage);
          },
          this.#cancel.signal,
        );
        signal?.throwIfAborted();
        return { ...result, text: this.#text };
      } catch (error) {
        this.#failed = true;
        this.#error = signal?.aborted ? signal.reason : error;
        throw this.#error;
      } finally {
        signal?.removeEventListener("abort", stop);
        this.#over = true;
        this.#stage = "done";
        this.#wake();
      }
    };
    this.#result = finish();
    // Whoever iterates sees the error there.
    this.#result.catch(() => {});
  }

  /** The text so far. */
  get text() {
    return this.#text;
  }

  /** What is being done. */
  get stage() {
    return this.#stage;
  }

  /** Text, why it ended, and where the time went; rejects as the answer does. */
  get result() {
    return this.#result;
  }

  /** Ends it with what is there; the reason is then `"cancelled"`. */
  cancel() {
    this.#cancel.abort();
  }

  /** All pieces from the first on, however often and late it is iterated; leaving a loop early cancels. */
  async *[Symbol.asyncIterator]() {
    let next = 0;
    let whole = false;
    try {
      for (;;) {
        while (next < this.#pieces.length) yield this.#pieces[next++];
        if (this.#over) break;
        await this.#more;
      }
      whole = true;
      if (this.#failed) throw this.#error;
    } finally {
      if (!whole) this.cancel();
    }
  }

  /**
   * The whole text.
   *
   * @template [A=string]
   * @template [B=never]
   * @param {((text: string) => A | PromiseLike<A>) | null} [onText]
   * @param {((reason: any) => B | PromiseLike<B>) | null} [onError]
   * @returns {Promise<A | B>}
   */
  then(onText, onError) {
    return this.#result.then((result) => result.text).then(onText, onError);
  }

  /** @template [B=never] @param {((reason: any) => B | PromiseLike<B>) | null} [onError] @returns {Promise<string | B>} */
  catch(onError) {
    return this.then(undefined, onError);
  }

  /** @param {(() => void) | null} [onEnd] @returns {Promise<string>} */
  finally(onEnd) {
    return this.then().finally(onEnd);
  }

  /** @param {string} text */
  #add(text) {
    this.#pieces.push(text);
    this.#text += text;
    this.#wake();
  }

  #promise() {
    return new Promise((resolve) => {
      this.#wake = () => {
        // The next waiters wait for the next piece.
        this.#more = this.#promise();
        resolve(undefined);
      };
    });
  }
}

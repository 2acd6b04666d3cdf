/**
 * The page's end of the line to a model in a worker: requests with numbers, what they tell on the way, and their end.
 */

import { EngineError, fromPlain, UnsupportedError } from "./errors.js";

/** @typedef {import("./platform.js").Port} Port */

/**
 * @typedef {object} Backend what a model is asked through, wherever it lives
 * @property {(operation: string, args: unknown, options?: CallOptions) => Promise<any>} call
 * @property {(budgetMs: number) => boolean} step
 * @property {() => Promise<void>} close
 */

/** @typedef {{ emit?: (event: any) => void, signal?: AbortSignal | undefined, transfer?: Transferable[] }} CallOptions */

/** Work of the engine, which is sent piece by piece, so that a word in shared memory that ends it can only mean the one at work. */
const IN_TURN = new Set(["encode", "ask"]);

/** A worker whose script is refused says so at once or, under some policies, never. */
const HELLO_MS = 30_000;

/**
 * Waits for a worker's first word.
 *
 * @param {Port} port
 * @returns {Promise<Remote>}
 */
export async function connect(port) {
  const remote = new Remote(port);
  try {
    await remote.hello;
  } catch (error) {
    port.terminate();
    throw error;
  }
  return remote;
}

/** @implements {Backend} */
export class Remote {
  #port;
  #next = 1;
  /** @type {Map<number, { resolve: (value: any) => void, reject: (reason: unknown) => void, emit: (event: any) => void }>} */
  #calls = new Map();
  /** @type {Error | null} */
  #dead = null;
  /** The end of the work that was sent or waits to be. @type {Promise<unknown>} */
  #last = Promise.resolve();
  /** Set to 1, it ends a phase at work, which hears of messages only afterwards. @type {{ memory: WebAssembly.Memory, at: number } | null} */
  #cancelWord = null;
  /** Resolves at the worker's first word. */
  hello;

  /** @param {Port} port */
  constructor(port) {
    this.#port = port;
    this.hello = new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(notStarted(`nothing was heard of it for ${HELLO_MS / 1000} s`)), HELLO_MS);
      port.onMessage((message) => {
        if (message.type === "hello") {
          clearTimeout(timer);
          resolve(undefined);
        } else {
          this.#receive(message);
        }
      });
      port.onError((reason) => {
        clearTimeout(timer);
        reject(notStarted(reason));
        this.#die(new EngineError("crashed", `the model's worker failed: ${reason}; load the model again`));
      });
    });
  }

  /**
   * @param {string} operation
   * @param {unknown} args
   * @param {CallOptions} [options]
   */
  call(operation, args, options = {}) {
    if (!IN_TURN.has(operation)) return this.#send(operation, args, options);
    const result = this.#last.then(() => this.#send(operation, args, options));
    this.#last = result.catch(() => {});
    return result;
  }

  /**
   * @param {string} operation
   * @param {unknown} args
   * @param {CallOptions} options
   */
  async #send(operation, args, { emit = () => {}, signal, transfer = [] }) {
    if (this.#dead) throw this.#dead;
    signal?.throwIfAborted();
    const id = this.#next++;
    const cancel = () => {
      if (IN_TURN.has(operation) && this.#cancelWord) {
        const { memory, at } = this.#cancelWord;
        Atomics.store(new Int32Array(memory.buffer, at, 1), 0, 1);
      }
      this.#port.post({ type: "cancel", id });
    };
    try {
      return await new Promise((resolve, reject) => {
        this.#calls.set(id, { resolve, reject, emit });
        this.#port.keepAlive(true);
        signal?.addEventListener("abort", cancel, { once: true });
        this.#port.post({ type: "call", id, operation, args }, transfer);
      });
    } finally {
      signal?.removeEventListener("abort", cancel);
      this.#calls.delete(id);
      if (this.#calls.size === 0) this.#port.keepAlive(false);
    }
  }

  /** Everything happens in the worker. */
  step() {
    return false;
  }

  async close() {
    if (this.#dead) return;
    const end = new EngineError("closed", "the model was closed; load it again");
    // A phase at work hears of it only afterwards; what it holds goes with the worker.
    await Promise.race([this.call("close", null).catch(() => {}), new Promise((resolve) => setTimeout(resolve, 1000))]);
    this.#die(end);
    await this.#port.terminate();
  }

  /** @param {any} message */
  #receive(message) {
    const call = this.#calls.get(message.id);
    if (!call) return;
    if (message.type === "event" && message.event.type === "cancel-word") this.#cancelWord = message.event;
    else if (message.type === "event") call.emit(message.event);
    else if (message.type === "result") call.resolve(message.value);
    else call.reject(fromPlain(message.error));
  }

  /** @param {Error} reason */
  #die(reason) {
    this.#dead ??= reason;
    for (const call of [...this.#calls.values()]) call.reject(this.#dead);
  }
}

/** @param {string} reason */
function notStarted(reason) {
  return new UnsupportedError(
    "no-worker",
    `the model's worker did not start: ${reason}. Is worker.js deployed beside index.js, and does the Content-Security-Policy allow it ` +
      "(worker-src 'self', script-src 'self' 'wasm-unsafe-eval')? `worker: false` does without",
  );
}

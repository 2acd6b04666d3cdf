/**
 * Something that takes a while: what the runtime wants done, one task after the other, done by the kernels.
 *
 * @module
 */

import { EngineError } from "./refusal.js";

/** @typedef {import("./engine.js").Engine} Engine */
/** @typedef {import("./engine.js").KernelExports} KernelExports */

/** What polling the runtime gives; see `Status` in runtime-wasm. */
const PHASE = 1, TEXT = 2, EMBED = 3;
/** A slice of a step is meant to take about this share of the time that is given. */
const SLICE = 0.5;
/** Milliseconds after which `run` lets events be served, such as one that cancels. */
const LONGEST = 80;

/**
 * @typedef {object} Pace how fast things were
 * @property {Map<number, number>} grains units of a step that were done at once, by phase and step
 * @property {Map<number, number>} rows milliseconds that a phase took for each row, by phase
 */
/**
 * @typedef {object} Access what a job may do with its engine
 * @property {() => number} poll
 * @property {() => number[]} words
 * @property {() => string} text
 * @property {() => void} cancel
 * @property {(error: unknown) => unknown} trapped
 * @property {() => void} ended
 * @property {Pace} pace
 */
/** @typedef {{ embed: true, id: number, row: number } | { embed: false, phase: number, start: number, rows: number, index: number, unit: number, took: number }} Task */

/**
 * Something that takes a while, and may be done in slices.
 * @template T
 */
export class Job {
  /** @type {Engine} */
  #engine;
  /** @type {KernelExports} */
  #kernels;
  /** @type {Access & { finish: () => T }} */
  #access;
  /** @type {Task | undefined} */
  #task;
  #text = "";
  #cancelled = false;
  /** @type {T | undefined} */
  #result;
  /** @type {unknown} */
  #error;
  #done = false;

  /** @param {Engine} engine @param {KernelExports} kernels @param {Access & { finish: () => T }} access */
  constructor(engine, kernels, access) {
    this.#engine = engine;
    this.#kernels = kernels;
    this.#access = access;
  }

  /** What it has made; undefined while it goes on. */
  get result() {
    return this.#result;
  }

  /** Whether it has ended, with a result or an error. */
  get done() {
    return this.#done;
  }

  /** The text that has come since this was last called. */
  take() {
    const text = this.#text;
    this.#text = "";
    return text;
  }

  /** Asks it to stop. An answer then ends with what was made so far, an image with an error. */
  cancel() {
    if (this.#done) return;
    this.#cancelled = true;
    this.#access.cancel();
  }

  /** The engine has ended it. */
  abandoned() {
    if (this.#done) return;
    this.#error = new EngineError("cancelled", "cancelled");
    this.#end();
  }

  /**
   * Works for about `budgetMs` milliseconds, on this thread alone.
   * @param {number} [budgetMs]
   * @returns {"again" | "waiting" | "done"} "waiting": weights of the next step are not there yet
   */
  step(budgetMs = 8) {
    const until = this.#engine.now() + budgetMs;
    for (;;) {
      const task = this.#next();
      if (!task) return "done";
      if (this.#missing(task, false) > 0) return "waiting";
      if (task.embed) {
        this.#embed(task);
      } else {
        this.#slice(task, budgetMs);
        if (this.#engine.now() >= until) return "again";
      }
    }
  }

  /** Works to the end, with all threads; events are served between phases, and on one thread every 80 ms or so. @returns {Promise<T>} */
  async run() {
    for await (const _ of this.#phases());
    return /** @type {T} */ (this.#result);
  }

  /** As `run`, and hands out the text as it comes; who leaves early ends the job. @returns {AsyncGenerator<string, T, void>} */
  async *pieces() {
    try {
      for await (const _ of this.#phases()) {
        const text = this.take();
        if (text) yield text;
      }
    } finally {
      if (!this.#done) this.#engine.stop();
    }
    const text = this.take();
    if (text) yield text;
    return /** @type {T} */ (this.#result);
  }

  async *#phases() {
    let turned = this.#engine.now();
    for (;;) {
      const task = this.#next();
      // What has been said goes out before more is computed.
      if (this.#text) yield;
      if (!task) return;
      if (this.#cancelled) continue;
      if (!task.embed && this.#fits(task) && task.index === 0 && task.unit === 0 && this.#missing(task, true) === 0) {
        this.#whole(task);
      } else {
        const missing = this.#missing(task, false);
        if (missing > 0) {
          // Cancelling goes on without weights.
          await Promise.race([this.#engine.more(missing - 1), turn(50)]);
          continue;
        }
        if (task.embed) {
          this.#embed(task);
          continue;
        }
        this.#slice(task, LONGEST);
        if (this.#engine.now() - turned < LONGEST / 2) continue;
      }
      await turn(0);
      turned = this.#engine.now();
    }
  }

  /** What is to be done now; undefined at the end. */
  #next() {
    if (this.#done && this.#error !== undefined) throw this.#error;
    if (this.#cancelled) this.#task = undefined;
    while (!this.#done && !this.#task) {
      let status;
      try {
        status = this.#access.poll();
      } catch (error) {
        this.#error = error;
        this.#end();
        throw error;
      }
      if (status === TEXT) {
        this.#text += this.#access.text();
      } else if (status === PHASE) {
        const [phase, start, rows] = this.#access.words();
        this.#task = { embed: false, phase, start, rows, index: 0, unit: 0, took: 0 };
      } else if (status === EMBED) {
        const [id, row] = this.#access.words();
        this.#task = { embed: true, id, row };
      } else {
        this.#result = this.#access.finish();
        this.#end();
      }
    }
    return this.#task;
  }

  #end() {
    this.#done = true;
    this.#task = undefined;
    this.#access.ended();
  }

  /** Bytes of the file that have to be there for what comes next, or for the whole phase; 0 if they are. @param {Task} task @param {boolean} whole */
  #missing(task, whole) {
    const { model, available } = this.#engine;
    let need = model.embed_weights_end;
    if (!task.embed) {
      const { steps } = model.phases[task.phase];
      const seen = whole ? steps : steps.slice(task.index, task.index + 1);
      need = seen.reduce((most, step) => Math.max(most, step.weights_end), 0);
    }
    return need > available ? need : 0;
  }

  /** @param {Task & { embed: true }} task */
  #embed(task) {
    this.#kernel(() => this.#kernels.embed(task.id, task.row));
    this.#task = undefined;
  }

  /** Whether a phase is run in one call: by a team, or where it takes no longer than a slice. @param {Task & { embed: false }} task */
  #fits({ phase, rows }) {
    if (this.#engine.threads > 1) return true;
    return (this.#access.pace.rows.get(phase) ?? Infinity) * Math.max(rows, 1) < LONGEST;
  }

  /** All of a phase, by all threads. @param {Task & { embed: false }} task */
  #whole(task) {
    const { phase, start, rows } = task;
    const count = this.#engine.threads;
    const began = this.#engine.now();
    const stopped = this.#kernel(() => {
      if (count > 1) this.#kernels.begin?.(phase, start, rows, count);
      return this.#kernels.run(phase, start, rows, 0, count);
    });
    task.took = this.#engine.now() - began;
    this.#ran(task);
    // Somebody has set the kernels' word from elsewhere.
    if (stopped) this.cancel();
  }

  /** Some units of the phase's next step, about as many as take half of the time. @param {Task & { embed: false }} task @param {number} budgetMs */
  #slice(task, budgetMs) {
    const { phase, index, start, rows } = task;
    const units = this.#kernels.units(phase, index, rows);
    const key = phase * 65536 + index;
    const { grains } = this.#access.pace;
    const grain = grains.get(key) ?? 1;
    const last = Math.min(units, task.unit + grain);
    const began = this.#engine.now();
    if (task.unit < last) this.#kernel(() => this.#kernels.step(phase, index, task.unit, last, start, rows, 0));
    const took = this.#engine.now() - began;
    task.took += took;
    if (took > budgetMs * SLICE) grains.set(key, Math.max(1, grain >> 1));
    else if (took < (budgetMs * SLICE) / 2) grains.set(key, Math.min(grain * 2, 1 << 20));
    task.unit = last;
    if (last >= units) {
      task.index++;
      task.unit = 0;
      if (task.index >= this.#engine.model.phases[phase].steps.length) this.#ran(task);
    }
  }

  /** A phase has been run. @param {Task & { embed: false }} task */
  #ran({ phase, rows, took }) {
    this.#access.pace.rows.set(phase, took / Math.max(rows, 1));
    this.#task = undefined;
  }

  /** @template R @param {() => R} call @returns {R} */
  #kernel(call) {
    try {
      return call();
    } catch (error) {
      this.#error = this.#access.trapped(error);
      this.#end();
      throw this.#error;
    }
  }
}

/** Lets events be served, after `ms` milliseconds. @param {number} ms @returns {Promise<void>} */
function turn(ms) {
  return new Promise((resolve) => {
    const immediate = /** @type {any} */ (globalThis).setImmediate;
    if (ms > 0) {
      setTimeout(resolve, ms);
    } else if (immediate) {
      immediate(resolve);
    } else {
      // A timer waits for milliseconds, a message does not.
      const { port1, port2 } = new MessageChannel();
      port1.onmessage = () => {
        port1.close();
        resolve();
      };
      port2.postMessage(0);
    }
  });
}

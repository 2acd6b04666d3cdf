/**
 * The engine: a model in one WebAssembly memory, with the runtime that knows conversations and the kernels that compute.
 *
 * The runtime calls no kernel. It says what is to be done next, this file has it done, and says so. That may be done in
 * large parts (`job.run()`, in a worker) or in slices of some milliseconds (`job.step()`, where a page must stay alive);
 * the answers are the same. Nothing here downloads or decodes pictures.
 *
 * @module
 */

import { EngineError } from "./refusal.js";
import { Job } from "./job.js";
import { encodeRequest } from "./request.js";

export { EngineError, Job };

/** @typedef {{ name: string, macs?: number, weights_end: number }} ModelStep `weights_end`: bytes of the file that must be there */
/** @typedef {{ name: string, steps: ModelStep[] }} ModelPhase */
/** @typedef {{ side: number, tokens: number, phase?: number, peak_bytes?: number }} ModelSide */
/**
 * What this file reads of `model.json`.
 * @typedef {object} ModelDescription
 * @property {string} name
 * @property {ModelSide[]} sides from small to large
 * @property {ModelPhase[]} phases numbered as the kernels number them
 * @property {number} embed_weights_end bytes of the file that embedding a token needs
 * @property {{ bytes: number, header_end: number }} file
 * @property {number} [arena_bytes]
 * @property {number} [scratch_bytes_per_thread]
 */
/**
 * What another thread needs to be a member of the team; hand it to `serve` there.
 * @typedef {{ kernels: WebAssembly.Module, memory: WebAssembly.Memory, arena: number, weights: number, control: number }} MemberInit
 */
/**
 * @typedef {object} EngineOptions
 * @property {ModelDescription} model
 * @property {WebAssembly.Module} runtime the shared variant where the memory is shared
 * @property {WebAssembly.Module} kernels
 * @property {number} [threads] 1 unless told otherwise
 * @property {boolean} [shared] whether the memory is shared, as modules with threads want it; with more than one thread it is
 * @property {(member: number, count: number, init: MemberInit) => unknown} [spawn] starts a worker that calls `serve`; awaited
 * @property {() => number} [now] milliseconds
 */
/**
 * @typedef {object} AskOptions
 * @property {number} [maxNewTokens] 256 unless told otherwise
 * @property {number} [temperature] 0, greedy, unless told otherwise
 * @property {number} [topK] 0 is off
 * @property {number} [topP] 1 is off
 * @property {number} [repetitionPenalty] 1 is off
 * @property {number | bigint} [seed]
 * @property {boolean} [ignoreEos] for measurements
 * @property {number} [speculation] most tokens that are guessed and verified together; 0 is off
 */
/** @typedef {import("./job.js").Pace} Pace */
/** @typedef {{ images?: EngineImage[], question: string, answer: string }} EngineTurn */
/** @typedef {"end" | "max-tokens" | "context-full" | "cancelled"} StopReason */
/**
 * @typedef {object} Timings milliseconds and counts of the latest image and the latest answer
 * @property {number} preprocess
 * @property {number} vision
 * @property {number} prefill
 * @property {number} prefillRows positions that were computed
 * @property {number} decode
 * @property {number} decodeSteps
 * @property {number} drafted tokens that were guessed
 * @property {number} accepted those among them that were right
 */
/** @typedef {{ stop: StopReason, tokens: Uint32Array, prompt: Int32Array, timings: Timings }} EngineAnswer */

/**
 * @typedef {object} RuntimeExports
 * @property {(bytes: number) => number} take
 * @property {(at: number, bytes: number) => void} give
 * @property {() => number} mailbox
 * @property {() => number} control
 * @property {() => number} last_words
 * @property {() => void} start
 * @property {(at: number, bytes: number) => number} info
 * @property {(file: number, bytes: number, arrived: number, threads: number) => number} open
 * @property {(bytes: number) => void} arrived
 * @property {(at: number, bytes: number, width: number, height: number, channels: number, side: number) => number} image
 * @property {(at: number, bytes: number) => number} ask
 * @property {() => number} poll
 * @property {() => void} cancel
 * @property {() => void} stop
 * @property {() => number} reset
 * @property {(image: number) => void} release
 * @property {() => number} position
 * @property {(at: number, bytes: number) => number} tokenize
 */
/**
 * @typedef {object} KernelExports
 * @property {(phase: number, index: number, first: number, last: number, start: number, rows: number, member: number) => void} step
 * @property {(phase: number, index: number, rows: number) => number} units
 * @property {(id: number, row: number) => void} embed
 * @property {(phase: number, start: number, rows: number, member: number, count: number) => number} run
 * @property {(member: number, count: number) => void} [work]
 * @property {(phase: number, start: number, rows: number, count: number) => void} [begin]
 * @property {() => void} [stop]
 */

/** What the runtime's functions return; see `Status` in runtime-wasm. */
const ERROR = 4;
/** @type {StopReason[]} */
const STOPS = ["end", "max-tokens", "context-full", "cancelled"];
const PAGE = 65536;
/** Pages that the memory begins with; more than either module's own data takes. */
const FIRST_PAGES = 32;
/** Bytes beside file, arena and scratch that a shared memory may grow by: pictures and their encoded rows. */
const ROOM = 512 << 20;

/** An encoded picture. */
export class EngineImage {
  /** @param {number} handle @param {number} tokens @param {number} side */
  constructor(handle, tokens, side) {
    this.handle = handle;
    /** Positions it takes in a conversation. */
    this.tokens = tokens;
    /** Pixels it was encoded at, each way. */
    this.side = side;
  }
}

/** A model, its weights, and one conversation. */
export class Engine {
  /** @type {EngineOptions} */
  #options;
  /** @type {WebAssembly.Memory} */
  #memory;
  /** @type {RuntimeExports} */
  #runtime;
  /** @type {KernelExports | undefined} */
  #kernels;
  #fileAt = 0;
  #arrived = 0;
  /** @type {(() => void)[]} */
  #waiting = [];
  /** @type {EngineError | undefined} */
  #broken;
  /** @type {Job<any> | undefined} */
  #job;
  #bytes;
  #control = 0;
  /** @type {Pace} */
  #pace = { grains: new Map(), rows: new Map() };
  /** @type {Timings} */
  #timings = { preprocess: 0, vision: 0, prefill: 0, prefillRows: 0, decode: 0, decodeSteps: 0, drafted: 0, accepted: 0 };

  /**
   * @param {EngineOptions} options
   * @param {WebAssembly.Memory} memory
   * @param {RuntimeExports} runtime
   */
  constructor(options, memory, runtime) {
    this.#options = options;
    this.#memory = memory;
    this.#runtime = runtime;
    this.#bytes = options.model.file.bytes;
    /** @type {ModelDescription} */
    this.model = options.model;
    /** Members of the team; 1 where the others could not be spawned. */
    this.threads = options.threads ?? 1;
    this.now = options.now ?? (() => performance.now());
  }

  /**
   * Makes room for the weight file; `open` follows when its beginning is there.
   * @param {EngineOptions} options
   * @returns {Promise<Engine>}
   */
  static async create(options) {
    const { model, threads = 1 } = options;
    const shared = options.shared ?? threads > 1;
    const most = model.file.bytes + (model.arena_bytes ?? 0) + threads * (model.scratch_bytes_per_thread ?? 0) + ROOM;
    const maximum = shared ? Math.min(PAGE, Math.ceil(most / PAGE)) : undefined;
    const memory = new WebAssembly.Memory({ initial: FIRST_PAGES, maximum, shared });
    const now = options.now ?? (() => performance.now());
    const instance = await WebAssembly.instantiate(options.runtime, { env: { memory, now } });
    const engine = new Engine(options, memory, /** @type {any} */ (instance.exports));
    engine.#begin();
    return engine;
  }

  #begin() {
    const [info] = WebAssembly.Module.customSections(this.#options.kernels, "tvlmc.info");
    if (!info) throw new EngineError("program", "the kernels module has no section tvlmc.info: is it one of tvlmc's?");
    this.#runtime.start();
    this.#control = this.#runtime.control() >>> 0;
    this.#with(new Uint8Array(info), (at, bytes) => this.#call(() => this.#runtime.info(at, bytes)));
    this.#fileAt = this.#room(this.#bytes, "the weights");
  }

  /** The room of the weight file, to be filled from its beginning. Take it anew after any other call: memory may have grown. */
  get file() {
    return new Uint8Array(this.#memory.buffer, this.#fileAt, this.#bytes);
  }

  /** Bytes of all memory. */
  get memoryBytes() {
    return this.#memory.buffer.byteLength;
  }

  /**
   * The word that stops the kernels of the job that runs when somebody sets it to 1 (`Atomics.store`), from another thread too: it lies
   * at this address of a shared memory. Undefined where the memory is not shared.
   */
  get cancelWord() {
    const shared = typeof SharedArrayBuffer !== "undefined" && this.#memory.buffer instanceof SharedArrayBuffer;
    return shared ? { memory: this.#memory, at: this.#control } : undefined;
  }

  /** Bytes of the file that are there. */
  get available() {
    return this.#arrived;
  }

  /**
   * That many first bytes of the file are there, and are what they should be.
   * @param {number} bytes
   */
  arrived(bytes) {
    this.#arrived = Math.max(this.#arrived, Math.min(bytes, this.#bytes));
    if (this.#kernels) this.#runtime.arrived(this.#arrived);
    for (const resolve of this.#waiting.splice(0)) resolve();
  }

  /** Resolves when more of the file is there than `bytes`; for `job.run` and its like. @param {number} bytes */
  async more(bytes) {
    while (this.#arrived <= bytes) await new Promise((resolve) => this.#waiting.push(() => resolve(undefined)));
  }

  /** Opens the model, once `file.header_end` bytes are there, and starts the other threads. */
  async open() {
    const { kernels, spawn, model } = this.#options;
    if (this.#arrived < model.file.header_end) {
      throw new EngineError("weights-truncated", `${this.#arrived} of the first ${model.file.header_end} bytes are there: open later`);
    }
    this.#call(() => this.#runtime.open(this.#fileAt, this.#bytes, this.#arrived, this.threads));
    const [weights, arena] = this.#words(2);
    const init = { kernels, memory: this.#memory, arena, weights, control: this.#control };
    const instance = await instantiate(init);
    if (this.threads > 1) {
      if (!spawn) throw new EngineError("argument", `threads: ${this.threads} want a function that spawns them`);
      const { threads } = this;
      const members = Array.from({ length: threads - 1 }, (_, i) => i + 1);
      const spawned = await Promise.allSettled(members.map(async (member) => spawn(member, threads, init)));
      // A team is whole or none.
      if (spawned.some(({ status }) => status === "rejected")) {
        instance.stop?.();
        this.threads = 1;
      }
    }
    this.#kernels = instance;
    this.#runtime.arrived(this.#arrived);
  }

  /**
   * Encodes a picture, once for any number of questions. Rows of RGB or RGBA, whose alpha is ignored.
   * @param {Uint8Array | Uint8ClampedArray} pixels
   * @param {number} width
   * @param {number} height
   * @param {{ side?: number }} [options] one of the model's sides; the largest unless told otherwise
   * @returns {Job<EngineImage>}
   */
  image(pixels, width, height, { side = 0 } = {}) {
    const channels = pixels.length / (width * height);
    if (channels !== 3 && channels !== 4) {
      throw new EngineError("image", `${width} x ${height} pixels are RGB or RGBA, not ${pixels.length} bytes`);
    }
    const job = this.#prepare(() => {
      const { sides } = this.model;
      const [handle, tokens] = this.#words(2);
      const [preprocess, vision] = this.#times(2);
      this.#timings = { ...this.#timings, preprocess, vision };
      return new EngineImage(handle, tokens, side || sides[sides.length - 1].side);
    });
    this.#with(pixels, (at, bytes) => this.#call(() => this.#runtime.image(at, bytes, width, height, channels, side)));
    return this.#start(job);
  }

  /**
   * Asks a question, which goes on with the conversation.
   * @param {EngineImage[]} images
   * @param {string} text
   * @param {AskOptions} [options]
   * @returns {Job<EngineAnswer>}
   */
  ask(images, text, options = {}) {
    return this.#ask(undefined, images, text, options);
  }

  /**
   * Begins a new conversation, of which these turns are told, and asks. What the engine holds of an earlier one that began
   * in the same way is not computed again.
   * @param {EngineTurn[]} turns
   * @param {EngineImage[]} images
   * @param {string} text
   * @param {AskOptions} [options]
   * @returns {Job<EngineAnswer>}
   */
  askAfter(turns, images, text, options = {}) {
    return this.#ask(turns, images, text, options);
  }

  /** Begins a new conversation; images stay. */
  reset() {
    this.#call(() => this.#runtime.reset());
  }

  /** Forgets an image. @param {EngineImage} image */
  release(image) {
    this.#runtime.release(image.handle);
  }

  /** Milliseconds and counts of the latest image and the latest answer. */
  timings() {
    return { ...this.#timings };
  }

  /** Positions that the conversation takes, and how many there are. */
  position() {
    this.#call(() => this.#runtime.position());
    const [used, most] = this.#words(2);
    return { used, most };
  }

  /** Ids of a text. @param {string} text @returns {Uint32Array} */
  tokenize(text) {
    this.#with(new TextEncoder().encode(text), (at, bytes) => this.#call(() => this.#runtime.tokenize(at, bytes)));
    const [at, n] = this.#words(2);
    return new Uint32Array(this.#memory.buffer, at, n).slice();
  }

  /** Ends the job that runs, whatever is left of it. */
  stop() {
    const job = this.#job;
    if (!job) return;
    this.#raise(1);
    this.#runtime.stop();
    job.abandoned();
  }

  /** Ends the other threads; the engine is of no use afterwards. */
  close() {
    if (!this.#broken && this.#job) this.stop();
    if (this.threads > 1) this.#kernels?.stop?.();
    this.#broken ??= new EngineError("closed", "this engine was closed");
  }

  /** @param {EngineTurn[] | undefined} turns @param {EngineImage[]} images @param {string} text @param {AskOptions} options */
  #ask(turns, images, text, options) {
    const job = this.#prepare(() => {
      const [stop, tokens, nTokens, prompt, nPrompt, prefillRows, decodeSteps, drafted, accepted] = this.#words(9);
      const [prefill, decode] = this.#times(2);
      const { buffer } = this.#memory;
      this.#timings = { ...this.#timings, prefill, prefillRows, decode, decodeSteps, drafted, accepted };
      return {
        stop: STOPS[stop],
        tokens: new Uint32Array(buffer, tokens, nTokens).slice(),
        prompt: new Int32Array(buffer, prompt, nPrompt).slice(),
        timings: this.timings(),
      };
    });
    const request = encodeRequest(turns, images, text, options);
    this.#with(request, (at, bytes) => this.#call(() => this.#runtime.ask(at, bytes)));
    return this.#start(job);
  }

  /** @template T @param {() => T} finish @returns {Job<T>} */
  #prepare(finish) {
    if (this.#broken) throw this.#broken;
    if (!this.#kernels) throw new EngineError("argument", "open: no model is open");
    if (this.#job) throw new EngineError("argument", "job: another one is running: run it to its end first");
    const kernels = this.#kernels;
    this.#raise(0);
    return new Job(this, kernels, {
      poll: () => this.#call(() => this.#runtime.poll()),
      words: () => this.#words(3),
      text: () => {
        const [at, bytes] = this.#words(2);
        // A copy: decoders refuse shared memory.
        return new TextDecoder().decode(new Uint8Array(this.#memory.buffer, at, bytes).slice());
      },
      cancel: () => {
        this.#raise(1);
        this.#runtime.cancel();
      },
      trapped: (error) => this.#trapped(error),
      ended: () => {
        this.#job = undefined;
      },
      pace: this.#pace,
      finish,
    });
  }

  /** @template T @param {Job<T>} job */
  #start(job) {
    this.#job = job;
    return job;
  }

  /** Sets the word that asks the kernels to stop. @param {number} value */
  #raise(value) {
    Atomics.store(new Int32Array(this.#memory.buffer, this.#control, 1), 0, value);
  }

  /** Calls the runtime; its refusals and last words become errors. @param {() => number} call */
  #call(call) {
    if (this.#broken) throw this.#broken;
    let status;
    try {
      status = call();
    } catch (error) {
      throw this.#trapped(error);
    }
    if (status !== ERROR) return status;
    const [code, nCode, message, nMessage] = this.#words(4);
    throw new EngineError(this.#text(code, nCode), this.#text(message, nMessage));
  }

  /** A module has trapped: nothing in it can be relied on any more. @param {unknown} error */
  #trapped(error) {
    if (!(error instanceof WebAssembly.RuntimeError)) return error;
    const at = this.#runtime.last_words() >>> 0;
    const [bytes] = new Uint32Array(this.#memory.buffer, at, 1);
    const words = bytes ? this.#text(at + 4, bytes) : error.message;
    this.#broken = new EngineError("poisoned", `the engine has failed (${words}): make a new one; this is a bug worth reporting`);
    return this.#broken;
  }

  /** @param {number} at @param {number} bytes */
  #text(at, bytes) {
    return new TextDecoder().decode(new Uint8Array(this.#memory.buffer, at, bytes).slice());
  }

  /** The first words of the mailbox. @param {number} n */
  #words(n) {
    return [...new Uint32Array(this.#memory.buffer, this.#runtime.mailbox() >>> 0, n)];
  }

  /** @param {number} n */
  #times(n) {
    return [...new Float64Array(this.#memory.buffer, (this.#runtime.mailbox() >>> 0) + 64, n)];
  }

  /** Memory for `bytes`. @param {number} bytes @param {string} what */
  #room(bytes, what) {
    const at = this.#runtime.take(bytes) >>> 0;
    if (at === 0) throw new EngineError("out-of-memory", `out of memory: ${what} needs ${bytes} bytes`);
    return at;
  }

  /** Lends bytes to a call. @param {Uint8Array | Uint8ClampedArray} bytes @param {(at: number, bytes: number) => void} use */
  #with(bytes, use) {
    if (this.#broken) throw this.#broken;
    const at = this.#room(bytes.length, "an argument");
    new Uint8Array(this.#memory.buffer, at, bytes.length).set(bytes);
    try {
      use(at, bytes.length);
    } finally {
      if (!this.#broken) this.#runtime.give(at, bytes.length);
    }
  }
}

/**
 * What another thread does: it is member `member` of `count` until the engine is closed.
 * @param {number} member
 * @param {number} count
 * @param {MemberInit} init
 */
export async function serve(member, count, init) {
  const kernels = await instantiate(init);
  kernels.work?.(member, count);
}

/** @param {MemberInit} init @returns {Promise<KernelExports>} */
async function instantiate({ kernels, memory, arena, weights, control }) {
  /** @param {number} value */
  const address = (value) => new WebAssembly.Global({ value: "i32", mutable: false }, value | 0);
  const env = { memory, arena: address(arena), weights: address(weights), control: address(control) };
  const instance = await WebAssembly.instantiate(kernels, { env });
  return /** @type {any} */ (instance.exports);
}

/**
 * The engine: a model in one WebAssembly memory, with the runtime that knows conversations and the kernels that compute.
 *
 * The runtime calls no kernel. It says what is to be done next, this file has it done, and says so. That may be done in
 * large parts (`job.run()`, in a worker) or in slices of some milliseconds (`job.step()`, where a page must stay alive);
 * the answers are the same. Nothing here downloads or decodes pictures.
 *
 * @module
 */

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
const PHASE = 1, TEXT = 2, EMBED = 3, ERROR = 4;
/** @type {StopReason[]} */
const STOPS = ["end", "max-tokens", "context-full", "cancelled"];
const PAGE = 65536;
/** Pages that the memory begins with; more than either module's own data takes. */
const FIRST_PAGES = 32;
/** Bytes beside file, arena and scratch that a shared memory may grow by: pictures and their encoded rows. */
const ROOM = 512 << 20;
/** A slice of a step is meant to take about this share of the time that is given. */
const SLICE = 0.5;
/** Milliseconds after which `run` lets events be served, such as one that cancels. */
const LONGEST = 80;
/** Stands for "the conversation goes on" where told turns are counted. */
const GOES_ON = 0xffffffff;

/** A refusal, with a code that stays the same between versions. */
export class EngineError extends Error {
  /** @param {string} code @param {string} message */
  constructor(code, message) {
    super(message);
    this.name = "EngineError";
    this.code = code;
  }
}

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

  /** As `run`, and hands out the text as it comes. @returns {AsyncGenerator<string, T, void>} */
  async *pieces() {
    for await (const _ of this.#phases()) {
      const text = this.take();
      if (text) yield text;
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

/**
 * A question as the runtime reads it; the format is described in runtime-wasm/src/request.rs.
 * @param {EngineTurn[] | undefined} turns @param {EngineImage[]} images @param {string} text @param {AskOptions} options
 */
function encodeRequest(turns, images, text, options) {
  const encoder = new TextEncoder();
  const all = [...(turns ?? []), { images, question: text, answer: "" }].map((turn) => ({
    images: turn.images ?? [],
    texts: [encoder.encode(turn.question), encoder.encode(turn.answer)],
  }));
  const size = all.reduce((sum, { images, texts }) => sum + 4 * images.length + texts[0].length + texts[1].length + 12, 40);
  const bytes = new Uint8Array(size);
  const view = new DataView(bytes.buffer);
  let at = 0;
  /** @param {number} value */
  const number = (value) => {
    view.setUint32(at, value, true);
    at += 4;
  };
  /** @param {number} value */
  const float = (value) => {
    view.setFloat32(at, value, true);
    at += 4;
  };
  number(whole("maxNewTokens", options.maxNewTokens ?? 256));
  number(options.ignoreEos ? 1 : 0);
  number(whole("speculation", options.speculation ?? 255));
  number(whole("topK", options.topK ?? 0));
  float(options.temperature ?? 0);
  float(options.topP ?? 1);
  float(options.repetitionPenalty ?? 1);
  view.setBigUint64(at, BigInt.asUintN(64, BigInt(options.seed ?? 0)), true);
  at += 8;
  number(turns ? turns.length : GOES_ON);
  for (const { images, texts } of all) {
    number(images.length);
    for (const image of images) number(image.handle);
    for (const text of texts) {
      number(text.length);
      bytes.set(text, at);
      at += text.length;
    }
  }
  return bytes;
}

/** A whole number that a word holds. @param {string} name @param {number} value */
function whole(name, value) {
  if (!Number.isInteger(value) || value < 0) throw new EngineError("argument", `${name}: ${value} is no whole number of 0 or more`);
  return Math.min(value, 0x7fffffff);
}

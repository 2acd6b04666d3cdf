// @ts-nocheck
/**
 * A stand-in for `js/engine.js` where that has nothing to run: the same face, and a model that answers with facts about what it was given, so that
 * tests can tell whether the right bytes, pixels and turns came through.
 *
 * The answer to any question is words of: the digest-like sum of the weight file, the number of turns and pictures, and the question
 * itself. "slow" in a question makes many tokens; "trap" fails like a crashed engine.
 */

const TICK = 2;

class EngineError extends Error {
  /** @param {string} code @param {string} message */
  constructor(code, message) {
    super(message);
    this.code = code;
  }
}

export class EngineImage {
  /** @param {number} handle @param {number} tokens @param {number} side @param {string} seen */
  constructor(handle, tokens, side, seen) {
    this.handle = handle;
    this.tokens = tokens;
    this.side = side;
    this.seen = seen;
  }
}

/** How many images there are; read by tests of leaks through `tokenize`. */
let images = 0;

export class Engine {
  #memory;
  #arrived = 0;
  #job = null;
  #closed = false;
  #waiting = [];
  #timings = { preprocess: 0, vision: 0, prefill: 0, prefillRows: 0, decode: 0, decodeSteps: 0, drafted: 0, accepted: 0 };

  constructor(options) {
    this.options = options;
    this.model = options.model;
    this.threads = options.threads ?? 1;
    const pages = Math.ceil(this.model.file.bytes / 65536) + 1;
    this.#memory = new WebAssembly.Memory({ initial: pages, maximum: pages + 64, shared: options.shared === true });
    this.now = options.now;
  }

  static async create(options) {
    if (!(options.runtime instanceof WebAssembly.Module) || !(options.kernels instanceof WebAssembly.Module)) throw new TypeError("no modules");
    return new Engine(options);
  }

  get file() {
    return new Uint8Array(this.#memory.buffer, 65536, this.model.file.bytes);
  }

  /** The first bytes of memory are nobody's. */
  get cancelWord() {
    return this.options.shared ? { memory: this.#memory, at: 0 } : undefined;
  }

  get available() {
    return this.#arrived;
  }

  arrived(bytes) {
    if (bytes < this.#arrived) throw new Error("arrived goes back");
    this.#arrived = bytes;
    // Memory moves when it grows, which shared memory does without.
    if (this.#memory.buffer.byteLength < (Math.ceil(this.model.file.bytes / 65536) + 8) * 65536) this.#memory.grow(1);
    for (const wake of this.#waiting.splice(0)) wake();
  }

  async open() {
    if (this.#arrived < this.model.file.header_end) throw new EngineError("weights-truncated", "open: too early");
    const magic = String.fromCharCode(...this.file.slice(0, 4));
    if (magic !== "FAKE") throw new EngineError("weights-wrong-build", `the file begins with ${magic}`);
    const { threads } = this;
    // A function cannot be sent, as shared memory cannot where pages are not isolated.
    const bad = this.model.name === "memberless" ? { unsendable() {} } : {};
    const init = { kernels: this.options.kernels, memory: this.#memory, control: 0, ...bad };
    const members = Array.from({ length: threads - 1 }, (_, i) => this.options.spawn(i + 1, threads, init));
    const spawned = await Promise.allSettled(members);
    if (spawned.some(({ status }) => status === "rejected")) this.threads = 1;
  }

  image(pixels, width, height, { side }) {
    const channels = pixels.length / (width * height);
    if (channels !== 3 && channels !== 4) throw new EngineError("image", `${pixels.length} bytes`);
    const colors = Array.from({ length: 3 }, (_, i) => pixels[i]).join(",");
    const last = Array.from({ length: 3 }, (_, i) => pixels[pixels.length - channels + i]).join(",");
    const seen = `${width}x${height}@${side}:${colors}:${last}`;
    const entry = this.model.sides.find((each) => each.side === side);
    return this.#start(
      3,
      [],
      () => {
        images += 1;
        this.#timings.vision += 1;
        return new EngineImage(images, entry.tokens, side, seen);
      },
      () => {
        throw new EngineError("cancelled", "cancelled");
      },
    );
  }

  askAfter(turns, pictures, text, options) {
    if (text.trim() === "") throw new EngineError("empty-prompt", "the question is empty");
    if (options.temperature > 100) throw new EngineError("argument", `temperature: ${options.temperature} is outside of what is allowed: 0 (greedy) to 100`);
    if (text.length > this.model.max_context) {
      throw new EngineError("prompt-too-long", `the conversation would have ${text.length} positions, the model has ${this.model.max_context}`);
    }
    const told = turns.map((turn) => `[${turn.images.length}|${turn.question}|${turn.answer}]`).join("");
    const seen = pictures.map((picture) => picture.seen).join(" ");
    let words = `turns=${told || "none"} sees=${seen || "nothing"} asked=${text}`.split(/(?<= )/);
    if (text.includes("slow")) words = Array.from({ length: 400 }, (_, i) => `${i} `);
    if (text.includes("sum")) words = [() => `sum=${this.file.reduce((sum, byte, i) => (sum + byte * ((i % 251) + 1)) % 1000003, 0)}`];
    if (text.includes("count images")) words = [`images=${images}`];
    if (text.includes("phase")) words = [() => `phase ended ${this.#phase() ? "early" : "late"}`];
    if (text.includes("trap")) {
      words = [
        () => {
          throw new EngineError("poisoned", "the engine has failed (a test)");
        },
      ];
    }
    const most = Math.min(options.maxNewTokens ?? 256, words.length);
    const made = [];
    return this.#start(
      2,
      words.slice(0, most).map((word) => () => {
        made.push(word);
        return typeof word === "function" ? word() : word;
      }),
      (cancelled) => {
        const stop = cancelled ? "cancelled" : most < words.length ? "max-tokens" : "end";
        this.#timings = { ...this.#timings, prefill: 1, prefillRows: 3, decode: made.length, decodeSteps: made.length };
        return { stop, tokens: new Uint32Array(made.length), prompt: new Int32Array(text.length), timings: this.timings() };
      },
    );
  }

  /** A second and a half in which no message is heard; true if the word ended it. */
  #phase() {
    const word = new Int32Array(this.#memory.buffer, 0, 1);
    Atomics.store(word, 0, 0);
    const until = performance.now() + 1500;
    while (performance.now() < until) {
      if (Atomics.load(word, 0) === 0) continue;
      this.#job.cancel();
      return true;
    }
    return false;
  }

  release(image) {
    if (!(image instanceof EngineImage)) throw new TypeError("release wants an image");
    images -= 1;
  }

  timings() {
    return { ...this.#timings };
  }

  tokenize(text) {
    return Uint32Array.from(text, (char) => char.codePointAt(0));
  }

  close() {
    this.#closed = true;
  }

  /** Resolves when more is there. */
  more() {
    return new Promise((resolve) => this.#waiting.push(resolve));
  }

  /** A job of `steps` steps, each of which needs its share of the file, then pieces. */
  #start(steps, pieces, finish, onCancel = null) {
    if (this.#closed) throw new EngineError("closed", "this engine was closed");
    if (this.#job && !this.#job.done) throw new EngineError("argument", "job: another one is running");
    this.#job = new Job(this, steps, pieces, finish, onCancel);
    return this.#job;
  }
}

class Job {
  #text = "";
  #at = 0;
  #cancelled = false;
  done = false;
  result = undefined;

  constructor(engine, steps, pieces, finish, onCancel) {
    this.engine = engine;
    this.steps = steps;
    this.pieces_ = pieces;
    this.finish = finish;
    this.onCancel = onCancel;
  }

  take() {
    const text = this.#text;
    this.#text = "";
    return text;
  }

  cancel() {
    this.#cancelled = true;
  }

  step(budgetMs) {
    if (typeof budgetMs !== "number") throw new TypeError("step wants a budget");
    const { file } = this.engine.model;
    if (this.#cancelled) {
      this.done = true;
      if (this.onCancel) this.onCancel();
      this.result = this.finish(true);
      return "done";
    }
    if (this.#at < this.steps) {
      const need = Math.ceil((file.bytes * (this.#at + 1)) / this.steps);
      if (this.engine.available < need) return "waiting";
      const until = performance.now() + TICK;
      while (performance.now() < until);
      this.#at += 1;
      return "again";
    }
    const piece = this.pieces_[this.#at - this.steps];
    if (piece) {
      try {
        this.#text += piece();
      } catch (error) {
        this.done = true;
        throw error;
      }
      this.#at += 1;
      return "again";
    }
    this.done = true;
    this.result = this.finish(false);
    return "done";
  }

  async *pieces() {
    for (;;) {
      const state = this.step(8);
      const text = this.take();
      if (text) yield text;
      if (state === "done") return this.result;
      if (state === "waiting") await Promise.race([this.engine.more(), new Promise((resolve) => setTimeout(resolve, 20))]);
      else await new Promise((resolve) => setTimeout(resolve, this.pieces_.length > 100 ? 2 : 0));
    }
  }
}

export async function serve(member, count, init) {
  if (!(init.memory instanceof WebAssembly.Memory) || !(member < count)) throw new Error("a member wants its memory");
}

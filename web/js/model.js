/**
 * A loaded model as its user has it, and conversations with it.
 */

import { Answer } from "./answer.js";
import { ArgumentError, isAbort } from "./errors.js";
import { describe, MAX_PIXELS } from "./images.js";
import { tainted } from "./pixels.js";

/** @typedef {import("./remote.js").Backend} Backend */
/** @typedef {import("../index.js").AskOptions} AskOptions */

/** Options of an answer that go to the engine as they are. */
const ENGINE_OPTIONS = ["maxNewTokens", "temperature", "topK", "topP", "repetitionPenalty", "seed", "ignoreEos", "speculation"];

/** A picture in the model's memory. Counted, because conversations keep theirs. */
class ImageHandle {
  #model;
  #users = 1;

  /**
   * @param {Model} model
   * @param {{ id: number, side: number, tokens: number, timings: import("../index.js").Timings }} encoded
   */
  constructor(model, { id, side, tokens, timings }) {
    this.#model = model;
    this.id = id;
    /** Pixels of the square it was scaled to. */
    this.side = side;
    /** Positions that it takes in the context. */
    this.tokens = tokens;
    this.timings = timings;
  }

  /** @param {Model} model */
  of(model) {
    return this.#model === model;
  }

  keep() {
    this.#users += 1;
    return this;
  }

  /** Gives its memory back, once no conversation needs it. */
  release() {
    this.#users -= 1;
    if (this.#users === 0) this.#model.drop(this.id);
  }
}

export class Model {
  #backend;
  #emit;
  #decode;
  #maxPixels;
  /** The picture of the latest question: the next one is often about it, too. @type {{ blob: Blob, side: number, handle: ImageHandle } | null} */
  #latest = null;

  /**
   * @param {Backend} backend
   * @param {any} info
   * @param {import("../index.js").Capabilities} found
   * @param {{ decode?: import("../index.js").Decode | undefined, maxPixels?: number | undefined, emit: (event: any) => void }} options
   */
  constructor(backend, info, found, { decode, maxPixels, emit }) {
    this.#backend = backend;
    this.#emit = emit;
    this.#decode = decode;
    this.#maxPixels = maxPixels ?? MAX_PIXELS;
    this.info = Object.freeze(info);
    this.name = info.name;
    this.sides = info.sides;
    this.capabilities = found;
    /** All weights are there and verified. */
    this.ready = backend.call("ready", null, { emit });
    this.ready.catch(() => {});
  }

  /**
   * @param {unknown} images
   * @param {unknown} [question]
   * @param {AskOptions} [options]
   * @returns {Answer}
   */
  ask(images, question, options) {
    const asked = args(images, question, options);
    return this.answer([], asked, () => {});
  }

  /**
   * @param {unknown} image
   * @param {{ side?: number, signal?: AbortSignal }} [options]
   * @returns {Promise<ImageHandle>}
   */
  async encode(image, { side, signal } = {}) {
    signal?.throwIfAborted();
    const sent = await this.#describe(image, signal);
    try {
      const encoded = await this.#call("encode", { image: sent, side }, { signal, transfer: transferable(sent) });
      return new ImageHandle(this, encoded);
    } catch (error) {
      throw signal?.aborted ? signal.reason : error;
    }
  }

  /** @param {AskOptions} [options] for all its answers */
  chat(options) {
    return new Chat(this, options ?? {});
  }

  /** @param {string} text @returns {Promise<number[]>} */
  tokenize(text) {
    return this.#backend.call("tokenize", { text });
  }

  /** Tries again what did not arrive. @returns {Promise<void>} */
  resume() {
    this.ready = this.#backend.call("resume", null, { emit: this.#emit });
    this.ready.catch(() => {});
    return this.ready;
  }

  /** @param {number} budgetMs @returns {boolean} */
  step(budgetMs) {
    return this.#backend.step(budgetMs);
  }

  /** Removes its weights from the browser's storage. @returns {Promise<void>} */
  forget() {
    return this.#backend.call("forget", null);
  }

  close() {
    return this.#backend.close();
  }

  async [Symbol.asyncDispose]() {
    await this.close();
  }

  /** @param {number} id */
  drop(id) {
    // A model that is closed has dropped it already.
    this.#backend.call("release", { id }).catch(() => {});
  }

  /**
   * @param {{ images: ImageHandle[], question: string, answer: string }[]} turns
   * @param {{ images: unknown[], question: string, options: AskOptions }} asked
   * @param {(handles: ImageHandle[], answer: string) => void} onEnd takes over the handles
   * @returns {Answer}
   */
  answer(turns, { images, question, options }, onEnd) {
    let text = "";
    return new Answer(async (onText, onStage, signal) => {
      /** @type {ImageHandle[]} */
      const handles = [];
      const emit = (/** @type {any} */ event) => {
        if (event.type === "stage") onStage(event.stage);
        if (event.type !== "text") return;
        text += event.text;
        onText(event.text);
      };
      try {
        for (const image of images) handles.push(await this.#handle(image, options.side, emit, signal));
        const request = {
          turns: turns.map((turn) => ({ ...turn, images: turn.images.map((handle) => handle.id) })),
          images: handles.map((handle) => handle.id),
          question,
          options: engineOptions(options),
        };
        return await this.#call("ask", request, { emit, signal });
      } catch (error) {
        if (signal.aborted && isAbort(error)) return { stop: /** @type {const} */ ("cancelled"), tokens: 0, promptTokens: 0, timings: null, memoryBytes: null };
        throw error;
      } finally {
        onEnd(handles, text);
        for (const handle of handles) handle.release();
      }
    }, options);
  }

  /**
   * A handle that the caller has to release.
   *
   * @param {unknown} image
   * @param {number | undefined} side
   * @param {(event: any) => void} emit
   * @param {AbortSignal} signal
   */
  async #handle(image, side, emit, signal) {
    if (image instanceof ImageHandle) {
      if (!image.of(this)) throw new ArgumentError("argument", "image: this handle is of another model");
      return image.keep();
    }
    const wanted = side ?? this.info.side;
    if (this.#latest && this.#latest.blob === image && this.#latest.side === wanted) return this.#latest.handle.keep();
    const sent = await this.#describe(image, signal);
    const handle = new ImageHandle(this, await this.#call("encode", { image: sent, side }, { emit, signal, transfer: transferable(sent) }));
    if (image instanceof Blob) {
      // What a Blob holds never changes, unlike a canvas.
      this.#latest?.handle.release();
      this.#latest = { blob: image, side: handle.side, handle: handle.keep() };
    }
    return handle;
  }

  /** @param {unknown} image @param {AbortSignal | undefined} signal */
  #describe(image, signal) {
    return describe(image, { maxPixels: this.#maxPixels, decode: this.#decode, signal });
  }

  /**
   * @param {string} operation
   * @param {any} request
   * @param {import("./remote.js").CallOptions} options
   */
  async #call(operation, request, options) {
    try {
      return await this.#backend.call(operation, request, options);
    } catch (error) {
      if (/** @type {Error} */ (error).name === "DataCloneError" && request.image?.kind === "bitmap") throw tainted(error);
      throw error;
    }
  }
}

/** A conversation: each question knows the turns before it. What the engine still has of them is not computed again. */
export class Chat {
  #model;
  #options;
  /** @type {{ images: ImageHandle[], question: string, answer: string }[]} */
  #turns = [];
  #busy = false;
  #closed = false;

  /**
   * @param {Model} model
   * @param {AskOptions} options
   */
  constructor(model, options) {
    this.#model = model;
    this.#options = options;
  }

  /** What was said so far. */
  get turns() {
    return this.#turns.map(({ images, question, answer }) => ({ images: images.length, question, answer }));
  }

  /**
   * @param {unknown} images
   * @param {unknown} [question]
   * @param {AskOptions} [options]
   */
  ask(images, question, options) {
    const asked = args(images, question, options);
    if (this.#closed) throw new ArgumentError("argument", "chat: it was closed");
    if (this.#busy) throw new ArgumentError("argument", "chat: the answer before is not finished: await it or cancel it first");
    this.#busy = true;
    asked.options = { ...this.#options, ...asked.options };
    return this.#model.answer([...this.#turns], asked, (handles, answer) => {
      this.#busy = false;
      // Without any answer it was as if not asked.
      if (answer === "" || this.#closed) return;
      this.#turns.push({ images: handles.map((handle) => handle.keep()), question: asked.question, answer });
    });
  }

  /** Begins anew. */
  reset() {
    for (const turn of this.#turns) for (const handle of turn.images) handle.release();
    this.#turns = [];
  }

  close() {
    this.#closed = true;
    this.reset();
  }
}

/**
 * `(images, question, options)` or `(question, options)`.
 *
 * @param {unknown} images
 * @param {unknown} question
 * @param {AskOptions | undefined} options
 */
function args(images, question, options) {
  if (typeof question !== "string") {
    if (typeof images !== "string") throw new ArgumentError("argument", "question: a text is needed, after the picture if there is one");
    return { images: [], question: images, options: /** @type {AskOptions} */ (question ?? {}) };
  }
  const list = images === null || images === undefined ? [] : Array.isArray(images) ? images : [images];
  return { images: list, question, options: options ?? {} };
}

/** @param {AskOptions} options */
function engineOptions(options) {
  /** @type {Record<string, unknown>} */
  const given = {};
  for (const name of ENGINE_OPTIONS) {
    const value = /** @type {Record<string, unknown>} */ (options)[name];
    if (value === undefined) continue;
    const fits = name === "ignoreEos" ? typeof value === "boolean" : typeof value === "number" && Number.isFinite(value);
    const whole = !["maxNewTokens", "topK", "speculation", "seed"].includes(name) || (Number.isSafeInteger(value) && /** @type {number} */ (value) >= 0);
    if (!fits || !whole) throw new ArgumentError("argument", `${name}: ${String(value)} is no ${name === "ignoreEos" ? "boolean" : whole ? "number" : "whole number from 0 on"}`);
    given[name] = value;
  }
  return given;
}

/** @param {import("./pixels.js").Sent} sent @returns {Transferable[]} */
function transferable(sent) {
  if (sent.kind === "pixels") return [/** @type {ArrayBuffer} */ (sent.data.buffer)];
  return sent.kind === "bitmap" ? [sent.bitmap] : [];
}

/**
 * A loaded model and the work it is asked for, one thing at a time. Lives in the worker, or on the page where there is none.
 *
 * Requests come as `[operation, arguments]` with an `emit` for what they tell on the way and a signal; `remote.js` is the other
 * end of the same line.
 */

import { forget, keepOnly, NONE, openStore } from "./cache.js";
import { available, compile, files } from "./code.js";
import { POLICY, small } from "./download.js";
import { Engine } from "./engine.js";
import { abortError, ArgumentError, EngineError, fromEngine } from "./errors.js";
import { parseManifest } from "./manifest.js";
import { toPixels } from "./pixels.js";
import { sleep, turn } from "./platform.js";
import { choose, sideOf } from "./profile.js";
import { Sha256 } from "./sha256.js";
import { Shards } from "./shards.js";
import { Slices } from "./slices.js";

/**
 * @typedef {object} LoadRequest everything can be sent to a worker
 * @property {string} base where names of the package are relative to
 * @property {Record<string, string>} assets addresses of names that a bundler has moved
 * @property {import("../index.js").Capabilities} found
 * @property {import("../index.js").CacheChoice} cache
 * @property {"desktop" | "phone" | undefined} profile
 * @property {number | undefined} side
 * @property {number | undefined} threads
 * @property {import("../index.js").Variant | undefined} variant
 * @property {boolean | undefined} dotProduct
 * @property {RequestCredentials | undefined} credentials
 * @property {Partial<Omit<import("./download.js").Policy, "fetch">> | undefined} policy
 * @property {boolean} manual the page calls `step` itself
 */

/** @typedef {(event: Record<string, unknown>) => void} Emit */

/**
 * @typedef {object} Surroundings
 * @property {boolean} worker
 * @property {((member: number, count: number, init: unknown) => Promise<{ terminate: () => void }>) | undefined} spawn
 */

/** A slice of work on a page's own thread: half a frame, so that the page can draw the other half. */
const SLICE_MS = 8;

/** Between two looks for weights that have not arrived. */
const WAIT_MS = 10;

/** Between two reports of progress. */
const REPORT_MS = 50;

export class Host {
  #surroundings;
  /** The engine between `load` and `close`. @type {Engine} */
  #engine = /** @type {any} */ (null);
  /** @type {import("./manifest.js").Manifest | null} */
  #manifest = null;
  /** @type {Shards | null} */
  #shards = null;
  #store = NONE;
  #packageId = "";
  #manual = false;
  #side = 0;
  /** @type {Map<number, import("./engine.js").EngineImage>} */
  #pictures = new Map();
  #nextPicture = 1;
  /** The end of the queue. @type {Promise<unknown>} */
  #last = Promise.resolve();
  /** The job at work on a page's own thread. @type {Slices | null} */
  #slices = null;
  /** Weights on their way. @type {Promise<void>} */
  #bringing = Promise.resolve();
  /** @type {unknown} */
  #failure = undefined;
  /** @type {Set<(reason: unknown) => void>} */
  #onFailure = new Set();
  /** @type {unknown} */
  #spawnProblem = undefined;
  #closing = new AbortController();
  /** Waiting for more of the file. @type {(() => void)[]} */
  #onArrived = [];
  #arrived = 0;
  #progress = { loaded: 0, total: 0 };
  /** @type {Emit} */
  #tell = () => {};

  /** @param {Surroundings} surroundings */
  constructor(surroundings) {
    this.#surroundings = surroundings;
  }

  /**
   * @param {string} operation
   * @param {any} args
   * @param {Emit} emit
   * @param {AbortSignal} signal
   * @returns {Promise<any>}
   */
  async call(operation, args, emit, signal) {
    switch (operation) {
      case "load":
        return this.#load(args, emit, signal);
      case "ready":
        return this.#ready(emit);
      case "resume":
        if (this.#failure !== undefined) this.#bring();
        return this.#ready(emit);
      case "encode":
        return this.#queued(() => this.#encode(args.image, args.side, emit, signal), signal);
      case "ask":
        return this.#queued(() => this.#ask(args, emit, signal), signal);
      case "release":
        return this.#queued(async () => this.#release(args.id));
      case "tokenize":
        return this.#queued(async () => Array.from(this.#open().tokenize(args.text)));
      case "forget":
        return forget(this.#store, this.#packageId);
      case "close":
        return this.#close();
      default:
        throw new EngineError("crashed", `operation ${operation} is unknown: files of two versions of this package are mixed`);
    }
  }

  /**
   * Some work on a page's own thread; true if there is more.
   *
   * @param {number} budgetMs
   */
  step(budgetMs) {
    return this.#slices?.step(budgetMs) ?? false;
  }

  #open() {
    if (this.#closing.signal.aborted) throw closed();
    return this.#engine;
  }

  /**
   * @param {LoadRequest} request
   * @param {Emit} emit
   * @param {AbortSignal} signal
   */
  async #load(request, emit, signal) {
    const { found, base, assets } = request;
    const policy = { ...POLICY, ...(request.credentials ? { credentials: request.credentials } : {}), ...request.policy };
    const address = (/** @type {string} */ name, /** @type {string} */ version) => {
      const url = new URL(name, base);
      // What a bundler has moved has a name of its own.
      if (assets[name] !== undefined && assets[name] !== url.href) return assets[name];
      // So that no cache on the way mixes two deployments.
      if (version !== "" && url.protocol !== "file:") url.searchParams.set("v", version.slice(0, 16));
      return url.href;
    };
    const where = address("model.json", "");
    emit({ type: "progress", phase: "code", loaded: 0, total: 0, fraction: 0 });
    const manifest = parseManifest(new TextDecoder().decode(await small(where, { signal, cache: "no-cache" }, policy)), where);
    this.#manifest = manifest;
    const { profile, side, threads } = request;
    const team = this.#surroundings.worker && this.#surroundings.spawn !== undefined;
    const variant = available(manifest, found, { variant: request.variant, threads, team });
    const chosen = choose(manifest, found, { profile, side, threads, variant });
    const { kernels, runtime, dotProduct } = files(manifest, variant, request.dotProduct ?? found.dotProduct);
    const [kernelsModule, runtimeModule] = await Promise.all(
      [kernels, runtime].map((name) => compile(address(name, manifest.digest), policy, signal)),
    );
    this.#engine = await this.#guard(
      Engine.create({
        model: manifest,
        runtime: runtimeModule,
        kernels: kernelsModule,
        threads: chosen.threads,
        shared: variant === "threads",
        spawn: this.#spawn,
        now: () => performance.now(),
      }),
    );
    this.#side = chosen.side;
    this.#manual = request.manual && !this.#surroundings.worker;
    this.#packageId = new Sha256().update(new TextEncoder().encode(base)).digest().slice(0, 16);
    this.#store = where.startsWith("file:") ? NONE : await openStore(request.cache);
    const removed = await this.#record(manifest);
    this.#tell = throttled(emit);
    this.#progress = { loaded: 0, total: manifest.file.bytes };
    this.#shards = new Shards({
      shards: manifest.shards,
      url: address,
      file: () => this.#engine.file,
      arrived: (bytes) => this.#onPrefix(bytes),
      onBytes: (bytes) => this.#report(bytes),
      store: this.#store,
      policy,
    });
    signal.throwIfAborted();
    this.#bring();
    // From here on the signal ends what is on its way; after loading `close` does.
    const stop = () => this.#closing.abort(signal.reason);
    signal.addEventListener("abort", stop, { once: true });
    await this.#until(() => this.#arrived >= manifest.file.header_end);
    signal.removeEventListener("abort", stop);
    await this.#guard(this.#engine.open());
    // The engine goes on alone where a member could not be started; who asked for a team hears of it.
    if (this.#spawnProblem !== undefined && request.threads !== undefined) throw this.#spawnProblem;
    const { cancelWord } = this.#engine;
    if (cancelWord) emit({ type: "cancel-word", ...cancelWord });
    const { fits, peakBytes } = chosen;
    return {
      name: manifest.name,
      digest: manifest.digest,
      toolVersion: manifest.tool_version,
      license: manifest.license ?? null,
      maxContext: manifest.max_context,
      kv: manifest.kv,
      sides: manifest.sides.map((side) => ({ side: side.side, tokens: side.tokens, peakBytes: side.peak_bytes })),
      weightBytes: manifest.file.bytes,
      variant,
      dotProduct,
      threads: this.#engine.threads,
      profile: chosen.profile,
      side: chosen.side,
      peakBytes,
      fits,
      cache: this.#store.kind,
      staleShardsRemoved: removed,
      worker: this.#surroundings.worker,
    };
  }

  /** Keeps why a member could not be started. @type {(member: number, count: number, init: unknown) => Promise<unknown>} */
  #spawn = async (member, count, init) => {
    try {
      return await this.#surroundings.spawn?.(member, count, init);
    } catch (error) {
      this.#spawnProblem ??= error;
      throw error;
    }
  };

  /** @param {import("./manifest.js").Manifest} manifest */
  async #record(manifest) {
    try {
      return await keepOnly(this.#store, this.#packageId, { digest: manifest.digest, shards: manifest.shards.map((shard) => shard.sha256) });
    } catch {
      // Without room for a record there is none for weights either; the shards find that out themselves.
      return 0;
    }
  }

  #bring() {
    this.#failure = undefined;
    const shards = /** @type {Shards} */ (this.#shards);
    this.#bringing = shards.bring(this.#closing.signal).then(
      undefined,
      (error) => {
        this.#failure = error;
        for (const fail of [...this.#onFailure]) fail(error);
        for (const wake of this.#onArrived.splice(0)) wake();
        throw error;
      },
    );
    // Whoever waits for weights hears of it; nobody has to.
    this.#bringing.catch(() => {});
  }

  /** @param {Emit} emit */
  async #ready(emit) {
    this.#open();
    this.#tell = throttled(emit);
    await this.#bringing;
    const { cached, storeProblem } = /** @type {Shards} */ (this.#shards).report;
    const all = cached === this.#manifest?.shards.length;
    this.#tell = () => {};
    emit({ type: "progress", ...this.#state("ready"), cached: all, storeProblem });
  }

  /** @param {number} bytes */
  #onPrefix(bytes) {
    this.#arrived = bytes;
    this.#engine.arrived(bytes);
    for (const wake of this.#onArrived.splice(0)) wake();
  }

  /** @param {number} bytes */
  #report(bytes) {
    this.#progress.loaded += bytes;
    this.#tell({ type: "progress", ...this.#state("weights") });
  }

  /** @param {string} phase */
  #state(phase) {
    const { loaded, total } = this.#progress;
    return { phase, loaded, total, fraction: total === 0 ? 0 : loaded / total };
  }

  /**
   * Waits until more of the file is there, or throws what hinders it.
   *
   * @param {() => boolean} enough
   */
  async #until(enough) {
    while (!enough()) {
      if (this.#failure !== undefined) throw this.#failure;
      await new Promise((resolve) => this.#onArrived.push(() => resolve(undefined)));
    }
  }

  /**
   * One piece of work after the other.
   *
   * @template T
   * @param {() => Promise<T>} work
   * @param {AbortSignal} [signal]
   * @returns {Promise<T>}
   */
  #queued(work, signal) {
    const result = this.#last.then(() => {
      this.#open();
      if (signal?.aborted) throw abortError();
      return this.#guard(work());
    });
    this.#last = result.catch(() => {});
    return result;
  }

  /**
   * What the engine throws gets its class.
   *
   * @template T
   * @param {T | Promise<T>} work
   * @returns {Promise<T>}
   */
  async #guard(work) {
    try {
      return await work;
    } catch (error) {
      throw fromEngine(error);
    }
  }

  /**
   * @param {import("./pixels.js").Sent} image
   * @param {number | undefined} wanted
   * @param {Emit} emit
   * @param {AbortSignal} signal
   */
  async #encode(image, wanted, emit, signal) {
    const { side, tokens } = sideOf(/** @type {import("./manifest.js").Manifest} */ (this.#manifest), wanted ?? this.#side);
    emit({ type: "stage", stage: "picture" });
    const { data, width, height } = await toPixels(image);
    emit({ type: "stage", stage: "vision" });
    const job = await this.#drive(this.#engine.image(data, width, height, { side }), () => {}, signal);
    const id = this.#nextPicture++;
    this.#pictures.set(id, job.result);
    return { id, side, tokens, timings: this.#timings() };
  }

  /**
   * @param {{ turns: { images: number[], question: string, answer: string }[], images: number[], question: string, options: import("../index.js").AskOptions }} request
   * images by their numbers
   * @param {Emit} emit
   * @param {AbortSignal} signal
   */
  async #ask({ turns, images, question, options }, emit, signal) {
    const known = (/** @type {number} */ id) => {
      const picture = this.#pictures.get(id);
      if (!picture) throw new ArgumentError("argument", "image: this handle was released; encode the picture again");
      return picture;
    };
    const handles = images.map(known);
    const told = turns.map((turn) => ({ ...turn, images: turn.images.map(known) }));
    emit({ type: "stage", stage: "question" });
    let first = true;
    const onText = (/** @type {string} */ text) => {
      if (first) emit({ type: "stage", stage: "answer" });
      first = false;
      emit({ type: "text", text });
    };
    const job = await this.#drive(this.#engine.askAfter(told, handles, question, options), onText, signal);
    const { stop, tokens, prompt } = job.result;
    return { stop, tokens: tokens.length, promptTokens: prompt.length, timings: this.#timings(), memoryBytes: this.#engine.file.buffer.byteLength };
  }

  /**
   * Brings a job to its end.
   *
   * @param {any} job
   * @param {(text: string) => void} onText
   * @param {AbortSignal} signal
   */
  async #drive(job, onText, signal) {
    /** @type {unknown} */
    let failure;
    const cancel = () => job.cancel();
    const fail = (/** @type {unknown} */ reason) => {
      failure = reason;
      job.cancel();
    };
    signal.addEventListener("abort", cancel, { once: true });
    this.#closing.signal.addEventListener("abort", cancel, { once: true });
    // Nobody brings the weights any more that it may wait for.
    if (this.#failure !== undefined) fail(this.#failure);
    this.#onFailure.add(fail);
    try {
      if (signal.aborted) job.cancel();
      if (this.#surroundings.worker) for await (const text of job.pieces()) onText(text);
      else await this.#sliced(job, onText);
      if (failure !== undefined) throw failure;
      return job;
    } catch (error) {
      if (failure !== undefined) throw failure;
      if (/** @type {{ code?: unknown }} */ (error).code === "cancelled") throw abortError();
      throw error;
    } finally {
      this.#onFailure.delete(fail);
      signal.removeEventListener("abort", cancel);
      this.#closing.signal.removeEventListener("abort", cancel);
    }
  }

  /**
   * @param {any} job
   * @param {(text: string) => void} onText
   */
  async #sliced(job, onText) {
    const slices = new Slices(job, onText);
    this.#slices = slices;
    try {
      while (!this.#manual && slices.step(SLICE_MS)) {
        await (slices.waiting ? sleep(WAIT_MS) : turn());
      }
      await slices.done;
    } finally {
      this.#slices = null;
    }
  }

  #timings() {
    const { preprocess, vision, prefill, prefillRows, decode, decodeSteps, drafted, accepted } = this.#engine.timings();
    return { preprocessMs: preprocess, visionMs: vision, prefillMs: prefill, prefillRows, decodeMs: decode, decodeSteps, drafted, accepted };
  }

  /** @param {number} id */
  #release(id) {
    const picture = this.#pictures.get(id);
    this.#pictures.delete(id);
    if (picture) this.#engine.release(picture);
  }

  async #close() {
    if (this.#closing.signal.aborted) return;
    this.#closing.abort(closed());
    // Nobody else steps what was cancelled.
    while (this.#manual && this.#slices?.step(SLICE_MS));
    await Promise.all([this.#last.catch(() => {}), this.#bringing.catch(() => {})]);
    this.#engine?.close();
    // Its memory goes with it.
    this.#engine = /** @type {any} */ (null);
    this.#pictures.clear();
  }
}

/** The latest of many reports, now and then. @param {Emit} emit @returns {Emit} */
function throttled(emit) {
  let next = 0;
  return (event) => {
    const now = performance.now();
    if (now < next) return;
    next = now + REPORT_MS;
    emit(event);
  };
}

function closed() {
  return new EngineError("closed", "the model was closed; load it again");
}

/**
 * Brings the weight file into wasm memory: from the cache, else by download; every shard is verified before the engine hears of it.
 *
 * A few shards are on their way at once, first ones first, so that the engine can begin with what the first layers need. What fails stays
 * missing, and only that is tried again.
 */

import { download, POLICY } from "./download.js";
import { DownloadError } from "./errors.js";
import { sha256, Spare } from "./sha256.js";

/** @typedef {import("./cache.js").Store} Store */
/** @typedef {import("./cache.js").Entry} Entry */
/** @typedef {import("./manifest.js").Shard} Shard */

/** Downloads at once: enough to hide a round trip, few enough that the first shard does not wait for the last. */
const PARALLEL = 3;

/** Downloads of a shard whose bytes turn out wrong. */
const WRONG_MOST = 2;

/**
 * @typedef {object} Source
 * @property {readonly Shard[]} shards
 * @property {(name: string, sha256: string) => string} url
 * @property {() => Uint8Array} file the room in memory; taken anew each time, since memory moves when it grows
 * @property {(bytes: number) => void} arrived so many first bytes are there and verified
 * @property {(bytes: number) => void} onBytes so many more, or fewer, bytes of the file are there
 * @property {Store} store
 * @property {import("./download.js").Policy} [policy]
 * @property {SubtleCrypto | null} [subtle] null takes the way of pages that are no secure context
 */

export class Shards {
  #source;
  #policy;
  /** Offsets of the shards. @type {number[]} */
  #offsets = [];
  /** @type {boolean[]} */
  #done;
  /** Bytes of each that are counted as there. @type {number[]} */
  #counted;
  /** Shards from the first on that are done. */
  #prefix = 0;
  /** For those who take no shared memory. */
  #spare;
  /** Where the shards were, for the report. */
  report = { cached: 0, downloadedBytes: 0, refetched: 0, storeProblem: /** @type {string | null} */ (null) };

  /** @param {Source} source */
  constructor(source) {
    this.#source = source;
    this.#policy = source.policy ?? POLICY;
    this.#done = source.shards.map(() => false);
    this.#spare = new Spare(Math.max(...source.shards.map((shard) => shard.bytes)));
    this.#counted = source.shards.map(() => 0);
    let at = 0;
    for (const shard of source.shards) {
      this.#offsets.push(at);
      at += shard.bytes;
    }
  }

  /** True once all are there. */
  get complete() {
    return this.#prefix === this.#done.length;
  }

  /**
   * Brings what is missing. Rejects with the first failure; what the others bring until then stays.
   *
   * @param {AbortSignal} [signal]
   */
  async bring(signal) {
    const missing = this.#source.shards.map((_, i) => i).filter((i) => !this.#done[i]);
    const end = new AbortController();
    const both = end.signal;
    const stop = () => end.abort(signal?.reason);
    if (signal?.aborted) stop();
    signal?.addEventListener("abort", stop, { once: true });
    const lane = async () => {
      for (let i = missing.shift(); i !== undefined; i = missing.shift()) {
        both.throwIfAborted();
        await this.#one(i, both);
        this.#done[i] = true;
        this.#advance();
      }
    };
    /** @type {unknown} */
    let first;
    const lanes = Array.from({ length: Math.min(PARALLEL, missing.length) }, () =>
      lane().catch((error) => {
        if (first === undefined) first = error;
        end.abort(error);
      }),
    );
    await Promise.all(lanes);
    this.#spare.free();
    signal?.removeEventListener("abort", stop);
    if (first !== undefined) throw signal?.aborted ? signal.reason : first;
  }

  #advance() {
    const before = this.#prefix;
    while (this.#prefix < this.#done.length && this.#done[this.#prefix]) this.#prefix += 1;
    if (this.#prefix === before) return;
    const last = this.#prefix - 1;
    this.#source.arrived(this.#offsets[last] + this.#source.shards[last].bytes);
  }

  /** @param {number} i @param {number} bytes */
  #count(i, bytes) {
    this.#source.onBytes(bytes - this.#counted[i]);
    this.#counted[i] = bytes;
  }

  /** A shard's room. @param {number} i */
  #room(i) {
    return this.#source.file().subarray(this.#offsets[i], this.#offsets[i] + this.#source.shards[i].bytes);
  }

  /** @param {number} i @param {AbortSignal} signal */
  async #one(i, signal) {
    const shard = this.#source.shards[i];
    const keep = new Keep(await this.#open(shard.sha256), this.report);
    try {
      const have = await this.#fromStore(i, keep);
      if (have === shard.bytes) {
        if (await this.#right(i)) {
          this.report.cached += 1;
          return;
        }
        // Poisoned: whatever wrote it, it is not this shard.
        this.report.refetched += 1;
        keep.empty();
      }
      await this.#fromNetwork(i, have === shard.bytes ? 0 : have, keep, signal);
      await keep.commit(() => this.#spare.unshared(this.#room(i)));
    } finally {
      keep.close();
    }
  }

  /** @param {string} sha256 */
  async #open(sha256) {
    try {
      return await this.#source.store.open(sha256);
    } catch (error) {
      this.report.storeProblem ??= String(/** @type {Error} */ (error).message);
      return null;
    }
  }

  /**
   * How many first bytes of a shard the store had.
   *
   * @param {number} i
   * @param {Keep} keep
   */
  async #fromStore(i, keep) {
    const { bytes } = this.#source.shards[i];
    const { size } = keep;
    // An attempt before this one left more in memory.
    const counted = this.#counted[i];
    if (counted >= size && counted < bytes) return counted;
    if (size === 0) return 0;
    if (size > bytes || !(await keep.read(() => this.#room(i).subarray(0, size)))) {
      keep.empty();
      return 0;
    }
    this.#count(i, size);
    return size;
  }

  /**
   * @param {number} i
   * @param {number} have
   * @param {Keep} keep
   * @param {AbortSignal} signal
   */
  async #fromNetwork(i, have, keep, signal) {
    const { name, bytes, sha256: digest } = this.#source.shards[i];
    const url = this.#source.url(name, digest);
    for (let wrong = 0; ; have = 0) {
      this.#count(i, have);
      const file = { url, bytes, have, fresh: wrong > 0, kept: keep.open, signal };
      await download(
        {
          ...file,
          write: (chunk, at) => {
            this.#room(i).set(chunk, at);
            keep.write(chunk, at);
            this.#count(i, at + chunk.length);
            this.report.downloadedBytes += chunk.length;
          },
        },
        this.#policy,
      );
      if (await this.#right(i)) return;
      keep.empty();
      this.#count(i, 0);
      // A beginning from the store that was wrong is the store's fault, not the server's.
      if (have === 0) wrong += 1;
      this.report.refetched += 1;
      if (wrong >= WRONG_MOST) {
        throw new DownloadError(
          "wrong-digest",
          `${url}: the bytes are not those of this model's version (SHA-256 differs, also past the browser's cache): deploy the whole folder again, ` +
            "and let no proxy change files",
          { details: { url, expected: digest } },
        );
      }
    }
  }

  /** @param {number} i */
  async #right(i) {
    const { subtle } = this.#source;
    const found = await sha256(() => this.#room(i), { spare: this.#spare, ...(subtle === undefined ? {} : { subtle }) });
    return found === this.#source.shards[i].sha256;
  }
}

/** An entry of the store that may fail at any time, after which the download goes on without it. */
class Keep {
  #entry;
  #report;

  /**
   * @param {Entry | null} entry
   * @param {{ storeProblem: string | null }} report where to tell the first problem
   */
  constructor(entry, report) {
    this.#entry = entry;
    this.#report = report;
  }

  get size() {
    return this.#entry?.size ?? 0;
  }

  get open() {
    return this.#entry !== null;
  }

  /** @param {() => Uint8Array} into @returns {Promise<boolean>} */
  async read(into) {
    try {
      await this.#entry?.read(into);
      return true;
    } catch (error) {
      // The entry may still be written: it is emptied by whoever asked.
      this.#report.storeProblem ??= String(/** @type {Error} */ (error).message);
      return false;
    }
  }

  /** @param {Uint8Array} chunk @param {number} at */
  write(chunk, at) {
    this.#attempt((entry) => entry.write(chunk, at));
  }

  empty() {
    this.#attempt((entry) => entry.empty());
  }

  /** @param {() => Uint8Array<ArrayBuffer>} bytes */
  async commit(bytes) {
    try {
      await this.#entry?.commit(bytes);
    } catch (error) {
      this.#drop(error);
    }
  }

  close() {
    const entry = this.#entry;
    this.#entry = null;
    try {
      entry?.close();
    } catch (error) {
      this.#drop(error);
    }
  }

  /** @param {(entry: Entry) => void} act */
  #attempt(act) {
    try {
      if (this.#entry) act(this.#entry);
    } catch (error) {
      this.#drop(error);
    }
  }

  /** No room, or storage is gone: what is there so far is a beginning, which may stay. @param {unknown} error */
  #drop(error) {
    this.#report.storeProblem ??= String(/** @type {Error} */ (error).message);
    const entry = this.#entry;
    this.#entry = null;
    try {
      entry?.close();
    } catch {
      // It failed before.
    }
  }
}

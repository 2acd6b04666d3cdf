/**
 * A vision-language model in a web page or in Node:
 *
 *     const model = await load();
 *     for await (const piece of model.ask(picture, "What is on the table?")) out.textContent += piece;
 *
 * The model lives in a worker; this file is the page's side of it. index.d.ts describes everything that is exported.
 */

import { assets, base } from "./js/assets.js";
import { ArgumentError, UnsupportedError } from "./js/errors.js";
import { Model } from "./js/model.js";
import { checkNames } from "./js/options.js";
import { isNode, nodePort, webPort } from "./js/platform.js";
import { capabilities as probe } from "./js/probe.js";
import { PROFILES } from "./js/profile.js";
import { connect } from "./js/remote.js";

export { ArgumentError, DownloadError, EngineError, ImageError, TvlmError, UnsupportedError } from "./js/errors.js";

/** What this browser or Node can do, and what would make it faster; JSON. */
export function capabilities() {
  return probe();
}

/** What is chosen by kind of device where `load` is not told. */
export const profiles = Object.freeze(
  Object.fromEntries(Object.entries(PROFILES).map(([name, { side, share, memoryGb }]) => [name, Object.freeze({ side, share, memoryGb })])),
);

/**
 * Resolves as soon as questions can be asked; the rest of the weights arrives while the picture is looked at.
 *
 * @param {import("./index.js").LoadOptions} [options]
 * @returns {Promise<import("./index.js").Model>}
 */
export async function load(options = {}) {
  checkNames(options);
  check(options);
  const { url, onProgress = () => {}, signal, worker = "auto", manual = false } = options;
  signal?.throwIfAborted();
  const found = await probe();
  const request = {
    ...place(url),
    found,
    cache: options.cache ?? "auto",
    profile: options.profile,
    side: options.side,
    threads: options.threads,
    variant: options.variant,
    dotProduct: options.dotProduct,
    credentials: options.credentials,
    policy: options.download,
    manual,
  };
  const emit = (/** @type {any} */ event) => event.type === "progress" && onProgress(progress(event));
  const backend = await start(found, worker, manual);
  try {
    const info = await backend.call("load", request, { emit, signal });
    return new Model(backend, info, found, { decode: options.decode, maxPixels: options.maxPixels, emit });
  } catch (error) {
    // What has arrived is in the store.
    await backend.close().catch(() => {});
    throw signal?.aborted ? signal.reason : error;
  }
}

/**
 * Where the files are: at the address that was given, else where this package or a bundler has put them.
 *
 * @param {string | URL | undefined} url
 */
function place(url) {
  if (url === undefined) {
    return { base: base.href, assets: Object.fromEntries(Object.entries(assets).map(([name, at]) => [name, at.href])) };
  }
  const here = /** @type {any} */ (globalThis).document?.baseURI;
  let at;
  try {
    at = new URL(url, here);
  } catch {
    throw new ArgumentError("argument", `url: ${String(url)} is no address${isNode ? "; for a folder, give a file: URL that ends in /" : ""}`);
  }
  // The folder, or the file model.json in it.
  if (!at.pathname.endsWith("/") && !at.pathname.endsWith(".json")) at.pathname += "/";
  return { base: at.href, assets: {} };
}

/**
 * @param {import("./index.js").Capabilities} found
 * @param {boolean | "auto"} worker
 * @param {boolean} manual
 * @returns {Promise<import("./js/remote.js").Backend>}
 */
async function start(found, worker, manual) {
  if (worker === true || (worker === "auto" && found.worker && !manual)) {
    try {
      // Written out, because that is what bundlers look for.
      const port = isNode
        ? await nodePort(new URL("./worker.js", import.meta.url))
        : webPort(new Worker(new URL("./worker.js", import.meta.url), { type: "module", name: "tvlmc" }));
      return await connect(port);
    } catch (error) {
      if (worker === true) throw error instanceof UnsupportedError ? error : new UnsupportedError("no-worker", String(error), { cause: error });
      console.warn(`tvlmc: ${/** @type {Error} */ (error).message}; running on the page's own thread`);
    }
  }
  const { Host } = await import("./js/host.js");
  const host = new Host({ worker: false, spawn: undefined });
  const idle = new AbortController().signal;
  return {
    // Errors are this realm's own here.
    call: (operation, args, { emit = () => {}, signal = idle } = {}) => host.call(operation, args, emit, signal),
    step: (budgetMs) => host.step(budgetMs),
    close: () => host.call("close", null, () => {}, idle),
  };
}

/** @param {any} event */
function progress({ phase, loaded, total, fraction, cached = false, storeProblem = null }) {
  return { phase, loaded, total, fraction, cached, storeProblem };
}

/** @param {import("./index.js").LoadOptions} options */
function check({ threads, side, cache, worker }) {
  if (threads !== undefined && !(Number.isInteger(threads) && threads >= 1 && threads <= 64)) {
    throw new ArgumentError("argument", `threads: ${threads} is no whole number from 1 to 64`);
  }
  if (side !== undefined && !Number.isInteger(side)) throw new ArgumentError("argument", `side: ${side} is no whole number`);
  if (![undefined, "auto", true, false].includes(worker)) throw new ArgumentError("argument", `worker: ${String(worker)} is not true, false or "auto"`);
  const known = ["auto", "opfs", "cache", "none", undefined, false];
  const inFolder = typeof cache === "object" && cache !== null && typeof cache.folder === "string";
  if (!(/** @type {any[]} */ (known).includes(cache)) && !inFolder) {
    throw new ArgumentError("argument", `cache: ${String(cache)} is none of "auto", "opfs", "cache", "none"${isNode ? ", { folder }" : ""}`);
  }
  if (inFolder && !isNode) throw new ArgumentError("argument", "cache: { folder } is for Node");
}

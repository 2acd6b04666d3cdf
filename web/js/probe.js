/**
 * What this browser, page or Node can do. Nothing is guessed from names of browsers but whether it is a phone.
 */

import { dotProductIsFaster } from "./dot.js";
import { UnsupportedError } from "./errors.js";
import { isNode, nodeModule } from "./platform.js";

/** The smallest modules that use a feature; whoever has it says that they are valid. */
const PROBES = {
  /** `i8x16.popcnt` of a splat. */
  simd: [0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11],
  /** `i32x4.relaxed_dot_i8x16_i7x16_add_s` of splats. */
  relaxed: [
    0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 19, 1, 17, 0, 65, 0, 253, 15, 65, 0, 253, 15, 65, 0, 253, 15, 253,
    147, 2, 11,
  ],
  /** `i32.atomic.load` from shared memory. */
  threads: [
    0, 97, 115, 109, 1, 0, 0, 0, 1, 4, 1, 96, 0, 0, 3, 2, 1, 0, 5, 4, 1, 3, 1, 1, 10, 11, 1, 9, 0, 65, 0, 254, 16, 2, 0, 26, 11,
  ],
};

export const HOW_TO_ISOLATE =
  "threads need a cross-origin isolated page: serve it with the headers `Cross-Origin-Opener-Policy: same-origin` and " +
  "`Cross-Origin-Embedder-Policy: require-corp` (README, \"Threads\")";

/**
 * Where probing looks; tests put others here.
 *
 * @typedef {object} Scope
 * @property {{ validate: (bytes: Uint8Array<ArrayBuffer>) => boolean } | undefined} WebAssembly
 * @property {(() => boolean) | undefined} dotProduct whether dot products in one instruction are faster
 * @property {unknown} SharedArrayBuffer
 * @property {boolean | undefined} crossOriginIsolated
 * @property {boolean | undefined} isSecureContext
 * @property {any} navigator
 * @property {unknown} Worker
 * @property {unknown} caches
 * @property {boolean} node
 * @property {number | undefined} cores
 * @property {number | undefined} memoryBytes
 */

/** @returns {Promise<Scope>} */
async function here() {
  const scope = /** @type {any} */ (globalThis);
  /** @type {Scope} */
  const found = {
    WebAssembly: scope.WebAssembly,
    dotProduct: undefined,
    SharedArrayBuffer: scope.SharedArrayBuffer,
    crossOriginIsolated: scope.crossOriginIsolated,
    isSecureContext: scope.isSecureContext,
    navigator: scope.navigator ?? {},
    Worker: scope.Worker,
    caches: scope.caches,
    node: isNode,
    cores: scope.navigator?.hardwareConcurrency,
    memoryBytes: undefined,
  };
  if (isNode) {
    const os = await nodeOs();
    found.Worker = found.Worker ?? true;
    found.cores = os.cores;
    found.memoryBytes = os.memoryBytes;
  }
  return found;
}

async function nodeOs() {
  const os = await nodeModule("os");
  return { cores: os.availableParallelism(), memoryBytes: os.totalmem() };
}

/**
 * What there is, as JSON.
 *
 * @param {Scope} [scope]
 * @returns {Promise<import("../index.js").Capabilities>}
 */
export async function capabilities(scope) {
  const at = scope ?? (await here());
  const valid = (/** @type {number[]} */ bytes) => {
    try {
      return at.WebAssembly?.validate(new Uint8Array(bytes)) === true;
    } catch {
      return false;
    }
  };
  const simd = valid(PROBES.simd);
  const relaxedSimd = simd && valid(PROBES.relaxed);
  // Node shares memory among its workers without any headers.
  const isolated = at.node || at.crossOriginIsolated === true;
  const sharedMemory = isolated && typeof at.SharedArrayBuffer === "function" && valid(PROBES.threads);
  const worker = Boolean(at.Worker);
  const threads = sharedMemory && relaxedSimd && worker;
  const agent = String(at.navigator?.userAgent ?? "");
  const mobile =
    !at.node &&
    (at.navigator?.userAgentData?.mobile === true ||
      /Mobi|Android|iPhone|iPad|iPod/i.test(agent) ||
      // A tablet of Apple's that asks for pages of a desktop.
      (/Macintosh/.test(agent) && Number(at.navigator?.maxTouchPoints) > 1));
  const gigabytes = at.memoryBytes === undefined ? at.navigator?.deviceMemory : at.memoryBytes / 2 ** 30;
  return {
    runtime: at.node ? "node" : "browser",
    webassembly: at.WebAssembly !== undefined,
    simd,
    relaxedSimd,
    dotProduct: relaxedSimd && (at.dotProduct ?? dotProductIsFaster)(),
    threads,
    sharedMemory,
    crossOriginIsolated: isolated,
    secureContext: at.node || at.isSecureContext !== false,
    worker,
    cores: Number(at.cores) || 1,
    deviceMemoryGb: typeof gigabytes === "number" ? Math.round(gigabytes * 10) / 10 : null,
    mobile,
    opfs: typeof at.navigator?.storage?.getDirectory === "function",
    cacheApi: at.caches !== undefined && at.caches !== null,
    storage: await storage(at),
    variant: threads ? "threads" : relaxedSimd ? "relaxed" : simd ? "simd128" : null,
    advice: advice(at, { simd, relaxedSimd, isolated, worker }),
  };
}

/** @param {Scope} at */
async function storage(at) {
  try {
    const { quota, usage } = await at.navigator.storage.estimate();
    return { quotaBytes: quota ?? null, usedBytes: usage ?? null };
  } catch {
    return null;
  }
}

/**
 * What would make it faster, in sentences.
 *
 * @param {Scope} at
 * @param {{ simd: boolean, relaxedSimd: boolean, isolated: boolean, worker: boolean }} has
 */
function advice(at, has) {
  const list = [];
  if (!has.simd) list.push(noSimd(at).message);
  else if (!has.relaxedSimd) {
    list.push(
      at.node
        ? "relaxed SIMD is off: run `node --experimental-wasm-relaxed-simd`, or Node 22 or later"
        : "relaxed SIMD is missing: a newer release of this browser may have it and be faster",
    );
  }
  if (!has.isolated) list.push(HOW_TO_ISOLATE);
  if (!at.node && at.isSecureContext === false) {
    list.push("the page is not a secure context: over https (or localhost) weights can be kept for the next visit");
  }
  if (!has.worker) list.push("there are no workers here: the model runs on the page's own thread, in slices");
  return list;
}

/** @param {Pick<Scope, "WebAssembly">} at */
function noSimd(at) {
  return at.WebAssembly === undefined
    ? new UnsupportedError("no-webassembly", "this engine has no WebAssembly, or it is switched off (some lockdown modes do): use another one")
    : new UnsupportedError(
        "no-simd",
        "this engine's WebAssembly has no SIMD, which the model needs: Chrome and Edge have it since 91, Firefox since 89, Safari since 16.4, Node since 16.4",
      );
}

/**
 * The variant of the code to take: the best one, or the one that was asked for.
 *
 * @param {import("../index.js").Capabilities} found
 * @param {import("../index.js").Variant | undefined} wanted
 * @param {number | undefined} threads as asked for
 * @param {boolean} inWorker members of a team may wait, which a page's own thread may not
 * @returns {import("../index.js").Variant}
 */
export function chooseVariant(found, wanted, threads, inWorker) {
  if (!found.simd || found.variant === null) throw noSimd({ WebAssembly: found.webassembly ? /** @type {any} */ ({}) : undefined });
  const team = found.threads && inWorker && threads !== 1;
  const best = team ? "threads" : found.relaxedSimd ? "relaxed" : "simd128";
  if (wanted === undefined || wanted === best) return best;
  if (wanted === "threads" && !(found.threads && inWorker)) {
    const reason = !inWorker
      ? "they need the worker, which was switched off"
      : !found.crossOriginIsolated
        ? HOW_TO_ISOLATE
        : "this engine lacks shared memory or relaxed SIMD";
    throw new UnsupportedError("no-threads", `variant "threads" cannot run here: ${reason}`);
  }
  if (wanted === "relaxed" && !found.relaxedSimd) {
    throw new UnsupportedError("no-relaxed-simd", 'variant "relaxed" cannot run here: relaxed SIMD is missing; leave `variant` out to take what there is');
  }
  return wanted;
}

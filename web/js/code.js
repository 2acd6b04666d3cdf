/**
 * The model's code: which variant of it runs here, and its modules.
 */

import { small } from "./download.js";
import { DownloadError, UnsupportedError } from "./errors.js";
import { chooseVariant } from "./probe.js";

/** @typedef {import("../index.js").Variant} Variant */

/**
 * The best variant that the package has, or the one that was asked for.
 *
 * @param {import("./manifest.js").Manifest} manifest
 * @param {import("../index.js").Capabilities} found
 * @param {{ variant: Variant | undefined, threads: number | undefined, team: boolean }} wanted `team`: threads could be started
 * @returns {Variant}
 */
export function available(manifest, found, { variant, threads, team }) {
  const best = chooseVariant(found, variant, threads, team);
  if (manifest.modules[best]) return best;
  const order = /** @type {Variant[]} */ (["relaxed", "simd128"]);
  const next = variant === undefined && order.find((each) => manifest.modules[each] && (each !== "relaxed" || found.relaxedSimd));
  if (next) return next;
  throw new UnsupportedError("no-variant", `this package has no code for variant "${best}", but ${Object.keys(manifest.modules).join(", ") || "none"}`);
}

/**
 * The files of a variant: those with dot products in one instruction where they are there and wanted.
 *
 * @param {import("./manifest.js").Manifest} manifest
 * @param {Variant} variant
 * @param {boolean} dotProduct
 */
export function files(manifest, variant, dotProduct) {
  const dot = dotProduct ? manifest.modules[`${variant}-dot`] : undefined;
  return { ...(dot ?? manifest.modules[variant]), dotProduct: dot !== undefined };
}

/**
 * @param {string} url
 * @param {import("./download.js").Policy} policy
 * @param {AbortSignal} signal
 * @returns {Promise<WebAssembly.Module>}
 */
export async function compile(url, policy, signal) {
  const bytes = await small(url, { signal }, policy);
  if (bytes.length < 8 || bytes[0] !== 0 || bytes[1] !== 0x61 || bytes[2] !== 0x73 || bytes[3] !== 0x6d) {
    throw new DownloadError("not-wasm", `${url}: not a WebAssembly module; deploy the whole folder again`, { details: { url } });
  }
  try {
    return await WebAssembly.compile(bytes);
  } catch (cause) {
    const message = String(/** @type {Error} */ (cause).message);
    if (/unsafe-eval|Content Security Policy|disallowed by embedder/i.test(message)) {
      throw new UnsupportedError(
        "csp",
        "the page's Content-Security-Policy forbids WebAssembly: add 'wasm-unsafe-eval' to its script-src (not 'unsafe-eval')",
        { cause },
      );
    }
    throw new DownloadError("not-wasm", `${url}: ${message}; deploy the whole folder again`, { cause, details: { url } });
  }
}

/**
 * `model.json`: what the package says about the model, checked before any of it is used as a size or a name.
 */

import { DownloadError } from "./errors.js";

/**
 * @typedef {object} Manifest
 * @property {number} [format]
 * @property {string} name
 * @property {string} tool_version
 * @property {string} digest pairs code and weights; hex
 * @property {string} [license]
 * @property {{ side: number, tokens: number, phase: number, peak_bytes: number }[]} sides ascending
 * @property {"int8" | "f16" | "f32"} kv
 * @property {number} max_context
 * @property {number} threads_default
 * @property {{ name: string, steps: { name: string, weights_end: number }[] }[]} phases
 * @property {number} embed_weights_end
 * @property {number} arena_bytes
 * @property {number} scratch_bytes_per_thread
 * @property {{ bytes: number, header_end: number, sha256: string }} file
 * @property {Shard[]} shards in order; together the file
 * @property {Record<string, { kernels: string, runtime: string }>} modules
 */

/** @typedef {{ name: string, bytes: number, sha256: string }} Shard */

/** Bytes that a shard may have, and a file: what wasm32 can hold. */
const MOST_SHARD = 256 << 20;
const MOST_FILE = 4 * 2 ** 30;

/**
 * @param {string} text
 * @param {string} url for messages
 * @returns {Manifest}
 */
export function parseManifest(text, url) {
  /** @param {string} reason @param {unknown} [cause] */
  const refuse = (reason, cause) =>
    new DownloadError("bad-manifest", `${url}: ${reason}; is the whole folder that tvlmc wrote there, and of one version?`, { cause, details: { url } });
  let json;
  try {
    json = JSON.parse(text);
  } catch (error) {
    throw refuse(`not JSON, it begins with ${JSON.stringify(text.slice(0, 40))}`, error);
  }
  const known = (/** @type {boolean} */ good, /** @type {string} */ what) => {
    if (!good) throw refuse(what);
  };
  known(typeof json === "object" && json !== null, "not an object");
  known(json.format === undefined || json.format === 1, `format ${json.format}, this code reads 1`);
  known(isText(json.name, 1, 200), "`name` is missing");
  known(hex(json.digest), "`digest` is not hex");
  known(Array.isArray(json.sides) && json.sides.length > 0, "`sides` is empty");
  for (const [i, side] of json.sides.entries()) {
    known(size(side?.side, 1, 1 << 16) && size(side.tokens, 1, 1 << 20) && size(side.peak_bytes, 1, MOST_FILE), `sides[${i}] is incomplete`);
    known(i === 0 || json.sides[i - 1].side < side.side, "`sides` does not ascend");
  }
  known(["int8", "f16", "f32"].includes(json.kv), "`kv` is none of int8, f16, f32");
  known(size(json.scratch_bytes_per_thread, 0, MOST_FILE), "`scratch_bytes_per_thread` is no size");
  known(size(json.file?.bytes, 1, MOST_FILE) && size(json.file.header_end, 1, json.file.bytes), "`file` is incomplete");
  known(Array.isArray(json.shards) && json.shards.length > 0, "`shards` is empty");
  let sum = 0;
  for (const [i, shard] of json.shards.entries()) {
    known(path(shard?.name), `shards[${i}].name is no path inside the package`);
    known(size(shard.bytes, 1, MOST_SHARD), `shards[${i}].bytes is no size`);
    known(hex(shard.sha256) && shard.sha256.length === 64, `shards[${i}].sha256 is none`);
    sum += shard.bytes;
  }
  known(sum === json.file.bytes, `the shards have ${sum} bytes, the file ${json.file.bytes}`);
  known(typeof json.modules === "object" && json.modules !== null, "`modules` is missing");
  for (const [name, module] of Object.entries(json.modules)) {
    const { kernels, runtime } = /** @type {any} */ (module ?? {});
    known(path(kernels) && path(runtime), `modules.${name} is incomplete`);
  }
  return json;
}

/** @param {unknown} value @param {number} least @param {number} most */
function size(value, least, most) {
  return Number.isSafeInteger(value) && /** @type {number} */ (value) >= least && /** @type {number} */ (value) <= most;
}

/** @param {unknown} value @param {number} least @param {number} most */
function isText(value, least, most) {
  return typeof value === "string" && value.length >= least && value.length <= most;
}

/** @param {unknown} value */
function hex(value) {
  return typeof value === "string" && /^[0-9a-f]{16,128}$/.test(value);
}

/** A relative path of plain names, which cannot leave the package. @param {unknown} value */
function path(value) {
  return typeof value === "string" && /^[A-Za-z0-9_][A-Za-z0-9._-]*(\/[A-Za-z0-9_][A-Za-z0-9._-]*)*$/.test(value) && value.length <= 200;
}

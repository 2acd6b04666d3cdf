/**
 * Which options there are: one that is misspelled would change nothing and say nothing.
 */

import { ArgumentError } from "./errors.js";

/** @typedef {import("../index.js").LoadOptions} LoadOptions */

/** By name, so that the types of the package say when one is missing here. @type {Record<keyof LoadOptions, true>} */
const LOAD = {
  url: true,
  onProgress: true,
  signal: true,
  threads: true,
  side: true,
  profile: true,
  variant: true,
  dotProduct: true,
  cache: true,
  worker: true,
  manual: true,
  decode: true,
  maxPixels: true,
  credentials: true,
  download: true,
};

/** @type {Record<keyof NonNullable<LoadOptions["download"]>, true>} */
const DOWNLOAD = { retries: true, backoffMs: true, stallMs: true };

/** Refuses what `load` does not know. @param {unknown} options */
export function checkNames(options) {
  if (typeof options !== "object" || options === null) throw new ArgumentError("argument", `load: ${String(options)} is no object of options`);
  refuse(options, Object.keys(LOAD), "");
  const { download } = /** @type {LoadOptions} */ (options);
  if (typeof download === "object" && download !== null) refuse(download, Object.keys(DOWNLOAD), "download.");
}

/**
 * @param {object} given
 * @param {string[]} known
 * @param {string} before of the names in messages
 */
function refuse(given, known, before) {
  for (const name of Object.keys(given)) {
    if (known.includes(name)) continue;
    const like = nearest(name, known);
    const instead = like === undefined ? `options are ${known.join(", ")}` : `did you mean \`${before}${like}\`?`;
    throw new ArgumentError("argument", `${before}${name}: there is no such option; ${instead}`, { details: { option: `${before}${name}` } });
  }
}

/**
 * The option that was meant, if any is near.
 *
 * @param {string} name
 * @param {string[]} known
 * @returns {string | undefined}
 */
export function nearest(name, known) {
  const lower = name.toLowerCase();
  const near = known
    .map((each) => ({ each, apart: distance(lower, each.toLowerCase()) }))
    .filter(({ each, apart }) => apart <= Math.ceil(each.length / 3))
    .sort((a, b) => a.apart - b.apart);
  return near[0]?.each;
}

/** Insertions, deletions and replacements from one word to the other. @param {string} a @param {string} b */
function distance(a, b) {
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 0; i < a.length; i += 1) {
    const next = [i + 1];
    for (let j = 0; j < b.length; j += 1) {
      next.push(Math.min(row[j + 1] + 1, next[j] + 1, row[j] + (a[i] === b[j] ? 0 : 1)));
    }
    row = next;
  }
  return row[b.length];
}

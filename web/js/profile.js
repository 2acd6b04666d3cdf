/**
 * Which image side and how many threads, by kind of device and its memory. Keys and values have one format, the package's: with bytes, which
 * recipes with integer weights take, they are a few MB and nothing is left to choose.
 */

import { ArgumentError } from "./errors.js";

/** @typedef {import("../index.js").Capabilities} Capabilities */
/** @typedef {import("./manifest.js").Manifest} Manifest */

/**
 * Bounds by kind of device. `share` is the part of its memory that a model may take, `memoryGb` what it is taken to have where
 * the browser does not tell (only Chromium does, rounded and bounded), `threads` the most, from cores.
 */
export const PROFILES = {
  // Half of the logical cores are often not cores; two are taken whole.
  desktop: { side: 1024, share: 0.5, memoryGb: 8, threads: (/** @type {number} */ cores) => Math.min(8, Math.max(Math.ceil(cores / 2), Math.min(cores, 2))) },
  // Tabs are ended at about a quarter of a phone's memory; work is divided evenly, so small cores would hold up the large ones.
  phone: { side: 512, share: 0.25, memoryGb: 4, threads: (/** @type {number} */ cores) => Math.min(4, Math.max(1, Math.floor(cores / 2))) },
};

/**
 * @param {Manifest} manifest
 * @param {Capabilities} found
 * @param {{ profile?: "desktop" | "phone" | undefined, side?: number | undefined, threads?: number | undefined, variant: string }} wanted
 * @returns {{ profile: "desktop" | "phone", side: number, threads: number, peakBytes: number, budgetBytes: number, fits: boolean }}
 */
export function choose(manifest, found, wanted) {
  const profile = wanted.profile ?? (found.mobile ? "phone" : "desktop");
  const table = PROFILES[profile];
  if (!table) {
    throw new ArgumentError("argument", `profile: ${JSON.stringify(profile)} is none; there are ${Object.keys(PROFILES).join(" and ")}`);
  }
  const budgetBytes = (found.deviceMemoryGb ?? table.memoryGb) * 2 ** 30 * table.share;
  const threads = wanted.variant === "threads" ? (wanted.threads ?? table.threads(found.cores)) : 1;
  const peak = (/** @type {{ peak_bytes: number }} */ side) => side.peak_bytes + (threads - 1) * manifest.scratch_bytes_per_thread;
  let side = manifest.sides[0];
  if (wanted.side !== undefined) {
    side = sideOf(manifest, wanted.side);
  } else {
    // Ascending; the smallest is taken where none fits, since the browser may still give it.
    for (const each of manifest.sides) {
      if (each.side <= table.side && peak(each) <= budgetBytes) side = each;
    }
  }
  const peakBytes = peak(side);
  return { profile, side: side.side, threads, peakBytes, budgetBytes, fits: peakBytes <= budgetBytes };
}

/**
 * The entry of a side, or an error that names those there are.
 *
 * @param {Manifest} manifest
 * @param {number} side
 */
export function sideOf(manifest, side) {
  const found = manifest.sides.find((each) => each.side === side);
  if (found) return found;
  const known = manifest.sides.map((each) => each.side).join(", ");
  throw new ArgumentError("argument", `side: ${side} is none of this model's: ${known}`);
}

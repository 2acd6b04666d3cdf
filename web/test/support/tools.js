/**
 * Development tools that may or may not be there: packages from `node_modules` beside the tests, or in the folder that `TVLMC_WEB_TOOLS`
 * names, and a browser. What is missing is told in one line, and the test returns.
 */

import { existsSync } from "node:fs";
import { createRequire } from "node:module";
import { delimiter, join } from "node:path";
import { pathToFileURL } from "node:url";
import { WEB } from "./package.js";

/** Where packages may lie. */
const PLACES = [process.env.TVLMC_WEB_TOOLS, join(WEB, "test")].filter((place) => place !== undefined);

/** @param {string} what @param {string} why */
export function skipped(what, why) {
  console.log(`skipped: ${what}: ${why}`);
}

/** The folder of a package, or null. @param {string} name */
export function tool(name) {
  for (const place of PLACES) {
    const at = join(place, "node_modules", name);
    if (existsSync(join(at, "package.json"))) return at;
  }
  return null;
}

/** The module of a package. @param {string} name @returns {Promise<any>} */
export async function module(name) {
  for (const place of PLACES) {
    if (!existsSync(join(place, "node_modules", name))) continue;
    const path = createRequire(join(place, "x.js")).resolve(name);
    const found = await import(pathToFileURL(path).href);
    return found.default ?? found;
  }
  return null;
}

/** A Chromium, or null. */
export function chromium() {
  if (process.env.TVLMC_CHROMIUM) return process.env.TVLMC_CHROMIUM;
  const names = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];
  for (const folder of (process.env.PATH ?? "").split(delimiter)) {
    for (const name of names) if (existsSync(join(folder, name))) return join(folder, name);
  }
  return null;
}

/** How to have the tools, for messages. */
export const HOW = "`npm install --no-save --prefix web/test playwright-core typescript vite webpack`, or TVLMC_WEB_TOOLS names a folder with node_modules";

/**
 * The files of the package that are fetched, each written so that bundlers see it and carry it along.
 */

/** @type {Record<string, URL>} */
export const assets = {
  // tvlmc:assets begin
  "model.json": new URL("../model.json", import.meta.url),
  // tvlmc:assets end
};

/** Where the package is, if nothing has moved it. */
export const base = new URL("../", import.meta.url);

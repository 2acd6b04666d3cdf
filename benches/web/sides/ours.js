/** The emitted package: a picture, a question of some 290 positions with it, 20 tokens of an answer. */

/** @param {{ threads: number, runs: number, side: number }} task */
export async function run({ threads, runs, side }) {
  const { load } = await import("/package/index.js");
  const begin = performance.now();
  const model = await load(threads > 1 ? { threads, cache: "none" } : { variant: "relaxed", cache: "none" });
  await model.ready;
  const loadMs = performance.now() - begin;
  const data = new Uint8Array(side * side * 3).map((_, i) => Math.imul(i, 0x9e3779b1) >>> 24);
  // At 1024 x 1024 256 rows of the picture; some of the template, of which the beginning is kept from turn to turn.
  const question = "word".concat(" word".repeat(27));
  /** @type {any} */
  const found = { loadMs, visionMs: [], prefillRate: [], decodeRate: [], variant: model.info.variant, threads: model.info.threads };
  for (let i = 0; i <= runs; i++) {
    const options = { maxNewTokens: 21, ignoreEos: true, speculation: 0, side };
    const { timings, memoryBytes } = await model.ask({ data, width: side, height: side }, question, options).result;
    found.memoryBytes = memoryBytes;
    if (i === 0) {
      found.firstVisionMs = timings.visionMs;
      found.firstPrefillRate = (1e3 * timings.prefillRows) / timings.prefillMs;
      continue;
    }
    found.rows = timings.prefillRows;
    found.visionMs.push(timings.visionMs);
    found.prefillRate.push((1e3 * timings.prefillRows) / timings.prefillMs);
    found.decodeRate.push((1e3 * timings.decodeSteps) / timings.decodeMs);
  }
  // Not closed: what it takes is counted next.
  return found;
}

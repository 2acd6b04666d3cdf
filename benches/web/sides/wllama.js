/** wllama: llama.cpp in WebAssembly, by its low-level interface; it has workers of its own. */

const [PROMPT, TOKENS] = [290, 20];

/** @param {{ model: string, threads: number, runs: number }} task */
export async function run({ model, threads, runs }) {
  const { Wllama } = await import("/wllama/index.js");
  const silent = { debug() {}, log() {}, warn() {}, error: console.error };
  const paths = { "single-thread/wllama.wasm": "/wllama/single-thread/wllama.wasm", "multi-thread/wllama.wasm": "/wllama/multi-thread/wllama.wasm" };
  const wllama = new Wllama(paths, { logger: silent });
  const begin = performance.now();
  const blob = await (await fetch(model)).blob();
  await wllama.loadModel([blob], { n_threads: threads, n_ctx: 1024, n_batch: 512, seed: 1 });
  /** @type {any} */
  const found = { loadMs: performance.now() - begin, prefillRate: [], decodeRate: [] };
  for (let i = 0; i <= runs; i++) {
    await wllama.kvClear();
    const from = performance.now();
    await wllama.decode(Array.from({ length: PROMPT }, (_, k) => 1000 + 37 * k + i), {});
    const read = performance.now();
    for (let k = 0; k < TOKENS; k++) await wllama.decode([500 + k], {});
    const done = performance.now();
    if (i === 0) continue;
    found.prefillRate.push((1e3 * PROMPT) / (read - from));
    found.decodeRate.push((1e3 * TOKENS) / (done - read));
  }
  await wllama.exit();
  return found;
}

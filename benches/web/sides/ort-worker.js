/** Measures a model in ONNX Runtime Web: the tower as a whole, the decoder as a prompt of 290 and 20 single tokens behind it. */

const [PROMPT, TOKENS, LAYERS, HIDDEN, KV_HEADS, HEAD] = [290, 20, 24, 896, 2, 64];

/** @param {any} ort @param {any} session @param {{ runs: number }} task */
async function vision(ort, session, { runs }) {
  const name = session.inputNames[0];
  const pixels = new Float32Array(3 * 1024 * 1024).map((_, i) => (Math.imul(i, 0x9e3779b1) >>> 24) / 255);
  /** @type {any} */
  const found = { visionMs: [] };
  for (let i = 0; i <= runs; i++) {
    const begin = performance.now();
    await session.run({ [name]: new ort.Tensor("float32", pixels, [1, 3, 1024, 1024]) });
    const took = performance.now() - begin;
    if (i === 0) found.firstVisionMs = took;
    else found.visionMs.push(took);
  }
  return found;
}

/** @param {any} ort @param {any} session @param {{ runs: number }} task */
async function decoder(ort, session, { runs }) {
  /** @param {any} kept @param {number} rows @param {number} total */
  const step = (kept, rows, total) => {
    /** @type {any} */
    const feeds = {
      inputs_embeds: new ort.Tensor("float32", new Float32Array(rows * HIDDEN).map((_, i) => Math.sin(i * 0.37 + total)), [1, rows, HIDDEN]),
      seqlens_k: new ort.Tensor("int32", Int32Array.of(total - 1), [1]),
      total: new ort.Tensor("int32", Int32Array.of(total), []),
    };
    for (let layer = 0; layer < LAYERS; layer++) {
      for (const part of "kv") {
        feeds[`past.${layer}.${part}`] = kept?.[`present.${layer}.${part}`] ?? new ort.Tensor("float32", new Float32Array(0), [1, KV_HEADS, 0, HEAD]);
      }
    }
    return session.run(feeds);
  };
  /** @type {any} */
  const found = { prefillRate: [], decodeRate: [] };
  for (let i = 0; i <= runs; i++) {
    const begin = performance.now();
    let kept = await step(null, PROMPT, PROMPT);
    const read = performance.now();
    for (let t = 1; t <= TOKENS; t++) kept = await step(kept, 1, PROMPT + t);
    const done = performance.now();
    if (i === 0) continue;
    found.prefillRate.push((1e3 * PROMPT) / (read - begin));
    found.decodeRate.push((1e3 * TOKENS) / (done - read));
  }
  return found;
}

onmessage = async ({ data: task }) => {
  try {
    const ort = await import("/ort/ort.wasm.min.mjs");
    ort.env.wasm.wasmPaths = "/ort/";
    ort.env.wasm.numThreads = task.threads;
    ort.env.logLevel = "error";
    const begin = performance.now();
    const bytes = new Uint8Array(await (await fetch(task.model)).arrayBuffer());
    const session = await ort.InferenceSession.create(bytes, { executionProviders: ["wasm"], graphOptimizationLevel: "all" });
    const loadMs = performance.now() - begin;
    const found = await (task.phase === "vision" ? vision : decoder)(ort, session, task);
    postMessage({ loadMs, ...found });
  } catch (error) {
    postMessage({ error: String(error) });
  }
};

// What the scripts of this folder share: an engine over the stand-in kernels, from the files of a folder.

import { readFileSync } from "node:fs";
import { join } from "node:path";

import { Engine } from "../../../web/js/engine.js";
import { assemble } from "./wat.mjs";

export const folder = process.argv[2];
export const file = (name) => new Uint8Array(readFileSync(join(folder, name)));
const wat = readFileSync(new URL("standin.wat", import.meta.url), "utf8");
const HEADER = 4096;

/** What the compiler writes to model.json, for the stand-in. */
export function description(weights, sides = [2, 4], tokens = [2, 3]) {
  const view = new DataView(weights.buffer, weights.byteOffset);
  // The last section is "weights".
  const last = view.getUint32(64, true) - 1;
  const begin = Number(view.getBigUint64(80 + 64 * last + 32, true));
  const steps = (from) => [from, weights.length].map((weights_end, i) => ({ name: `step.${i}`, weights_end }));
  const phase = (name) => ({ name, steps: steps(begin + 10) });
  return {
    name: "fake",
    sides: sides.map((side, i) => ({ side, tokens: tokens[i] })),
    phases: [...sides.map((side) => phase(`vision-${side}`)), phase("prefill"), phase("decode"), phase("verify"), phase("logits")],
    embed_weights_end: begin + 1,
    file: { bytes: weights.length, header_end: begin },
  };
}

/** An engine that is not open yet. */
export async function make({ weights = file("weights.tvlm"), info = file("info.bin"), shared = false, text = wat, ...rest } = {}) {
  const runtime = new WebAssembly.Module(shared ? file("runtime-shared.wasm") : file("runtime.wasm"));
  const kernels = new WebAssembly.Module(assemble(text, { shared, info }));
  return Engine.create({ ...rest, model: rest.model ?? description(weights), runtime, kernels, shared });
}

/** An engine that is open, with its whole file. */
export async function opened(options = {}) {
  const weights = options.weights ?? file("weights.tvlm");
  const engine = await make(options);
  engine.file.set(weights);
  engine.arrived(weights.length);
  await engine.open();
  return engine;
}

export { HEADER };

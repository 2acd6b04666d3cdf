// Sections, weight files and arguments that are cut or changed: refused, and never a trap.

import { description, file, make } from "./setup.mjs";

const info = file("info.bin");
const weights = file("weights.tvlm");
const model = description(weights);
let refused = 0;
let accepted = 0;
const trapped = [];

async function attempt(what, work) {
  try {
    await work();
    accepted++;
  } catch (error) {
    if (error.code === undefined || error.code === "poisoned") trapped.push(`${what}: ${error}`);
    else refused++;
  }
}

async function open(changed) {
  const engine = await make({ ...changed, model });
  const { length } = engine.file;
  engine.file.set((changed.weights ?? weights).subarray(0, length));
  engine.arrived(length);
  await engine.open();
  const job = engine.ask([], "hm", { maxNewTokens: 3 });
  // The stand-in's own addresses are fixed, so that only what the runtime does by itself is done.
  job.cancel();
  job.step(1);
}

let seed = 7;
const random = (below) => (seed = (Math.imul(seed, 1103515245) + 12345) >>> 0) % below;
const words = [0, 1, 2, 0x7f, 0xff, 0xffff, 0x7fffffff, 0x80000000, 0xfffffff0, 0xffffffff];

for (let length = 0; length < info.length; length += 3) {
  await attempt(`info of ${length}`, () => open({ info: info.slice(0, length) }));
}
for (let i = 0; i < 400; i++) {
  const changed = info.slice();
  const at = random(changed.length - 4);
  new DataView(changed.buffer).setUint32(at, words[random(words.length)], true);
  await attempt(`info changed at ${at}`, () => open({ info: changed }));
}
for (let i = 0; i < 300; i++) {
  const changed = weights.slice();
  // Header and tokenizer; the rest is numbers.
  const at = random(Math.min(changed.length, 4096 + 2000) - 4);
  new DataView(changed.buffer).setUint32(i % 2 ? at : 4096 + (at % 1500), words[random(words.length)], true);
  await attempt(`weights changed at ${at}`, () => open({ weights: changed }));
}
{
  const engine = await make({ model });
  engine.file.set(weights);
  engine.arrived(weights.length);
  await engine.open();
  const bytes = new Uint8Array(48);
  for (const [width, height] of [[4, 4], [0, 0], [1, 16], [-4, -4], [4.5, 4], [NaN, 4], [4294967300, 4], [2, 8], [16, 1]]) {
    await attempt(`${width} x ${height}`, () => void engine.image(bytes, width, height).step(1));
    engine.stop();
  }
  for (const options of [{ maxNewTokens: -1 }, { topK: 0.5 }, { temperature: NaN }, { topP: "x" }, { repetitionPenalty: Infinity }, { seed: -1n }]) {
    await attempt(JSON.stringify(options, (_, v) => String(v)), () => void engine.ask([], "hm", options).step(1e6));
    engine.stop();
  }
  for (const text of ["\ud800", "\0", "a".repeat(100000), "\u0301".repeat(50000)]) {
    await attempt(`text of ${text.length}`, () => void engine.tokenize(text));
    await attempt(`question of ${text.length}`, () => void engine.ask([], text).step(1e6));
    engine.stop();
  }
}
console.log(JSON.stringify({ refused, accepted, trapped }));

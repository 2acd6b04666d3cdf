// node run.mjs PROBE.wasm WEIGHTS: runs a probe and prints what it tells; the prepared picture goes to pixels.u8.
import { readFileSync, writeFileSync } from "node:fs";

const [module, weights] = process.argv.slice(2).map((path) => readFileSync(path));
const { exports } = await WebAssembly.instantiate(await WebAssembly.compile(module), {});
const at = exports.room(weights.length);
new Uint8Array(exports.memory.buffer).set(weights, at);
const code = exports.ask();
const text = new TextDecoder().decode(new Uint8Array(exports.memory.buffer, exports.told(), exports.told_len()));
if (code !== 0) {
  console.error(text);
  process.exit(1);
}
const end = text.indexOf("\n");
writeFileSync("pixels.u8", Buffer.from(text.slice(0, end), "hex"));
process.stdout.write(text.slice(end + 1));

// The loops of benches/web/yardsticks, each the best of many calls in a second: `node yardsticks.mjs FILE.wasm`.
// Prints Gop/s of the tile, Gop/s of nibbles from memory, GB/s of reading.
import { readFileSync } from 'node:fs';

const { exports } = new WebAssembly.Instance(new WebAssembly.Module(readFileSync(process.argv[2])));
const base = 1 << 20;
const [rows, blocks] = [4864, 28];
const [weightBytes, scaleBytes] = [rows * blocks * 16, rows * blocks * 4];
const [scalesAt, weightsAt, copies] = [600 << 20, 64 << 20, 64];
exports.memory.grow(12288);
// Bytes of at most 127 whose words are floats near one.
new Uint32Array(exports.memory.buffer, base).fill(0x3f010203);

/** Calls `run` for a second; operations (or bytes) per nanosecond of the best call. */
function best(run, work) {
  let least = Infinity;
  for (const begin = performance.now(); performance.now() - begin < 1000; ) {
    const from = performance.now();
    run();
    least = Math.min(least, performance.now() - from);
  }
  return work / least / 1e6;
}

let copy = 0;
console.log(
  best(() => {
    for (let i = 0; i < 400; i++) exports.tile(base, base + 65536, base + (1 << 19), 256);
  }, 400 * 2 * 8 * 4 * 4 * 256),
  best(() => {
    copy = (copy + 1) % copies;
    const [w, scales] = [weightsAt + copy * weightBytes, scalesAt + copy * scaleBytes];
    exports.nibbles(w, scales, base, base + 4096, base + 8192, rows, blocks);
  }, 2 * rows * blocks * 32),
  best(() => {
    copy = (copy + 1) % copies;
    exports.read(weightsAt + copy * (8 << 20), 8 << 20);
  }, 8 << 20),
);

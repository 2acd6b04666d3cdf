// Golden pictures: the pixels that the runtime puts into the arena for the kernels, beside Pillow's.

import { file, description, opened } from "./setup.mjs";

// Where arena and memory are is the engine's own affair; what it hands to the kernels tells.
const made = { memory: undefined, globals: [] };
const { Global, Memory } = WebAssembly;
WebAssembly.Global = function (type, value) {
  made.globals.push(value >>> 0);
  return new Global(type, value);
};
WebAssembly.Memory = function (type) {
  return (made.memory = new Memory(type));
};

const golden = file("pixels.bin");
const wanted = JSON.parse(new TextDecoder().decode(file("policy.json")));
const view = new DataView(golden.buffer);
const sides = Array.from({ length: 64 }, (_, i) => i + 1);
const weights = file("weights.tvlm");
const engine = await opened({ model: { ...description(weights, sides, sides.map(() => 1)) } });
/** Where the inputs lie: behind the slots of the stand-in. */
const INPUT = new DataView(file("input.bin").buffer).getUint32(0, true);
let pictures = 0;
let wrong = 0;

for (let at = 0; at < golden.length; ) {
  const [width, height, side, policy] = [0, 4, 8, 12].map((offset) => view.getUint32(at + offset, true));
  const input = golden.subarray(at + 16, at + 16 + width * height * 3);
  const expected = golden.subarray(at + 16 + input.length, at + 16 + input.length + side * side * 3);
  at += 16 + input.length + expected.length;
  if (policy !== wanted) continue;
  const job = engine.image(input, width, height, { side });
  const floats = new Float32Array(made.memory.buffer, made.globals[0] + INPUT, (side + 2) * (side + 2) * 3);
  const pitch = (side + 2) * 3;
  for (let y = 0; y < side; y++) {
    for (let x = 0; x < side * 3; x++) if (floats[(y + 1) * pitch + 3 + x] !== expected[y * side * 3 + x]) wrong++;
  }
  pictures++;
  engine.stop();
  if (!job.done) throw new Error("it goes on");
}
console.log(JSON.stringify({ pictures, wrong }));

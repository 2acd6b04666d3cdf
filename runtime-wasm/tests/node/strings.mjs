// Golden strings: ids beside those of the `tokenizers` package.

import { file, opened } from "./setup.mjs";

const golden = file("strings.bin");
const view = new DataView(golden.buffer);
const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
const engine = await opened();
let strings = 0;
let wrong = 0;
for (let at = 0; at < golden.length; strings++) {
  const length = view.getUint32(at, true);
  const text = decoder.decode(golden.subarray(at + 4, at + 4 + length));
  const n = view.getUint32(at + 4 + length, true);
  at += 8 + length;
  const ids = engine.tokenize(text);
  const same = ids.length === n && ids.every((id, i) => id === view.getUint32(at + 4 * i, true));
  at += 4 * n;
  if (!same) wrong++;
}
console.log(JSON.stringify({ strings, wrong }));

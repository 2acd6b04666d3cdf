/**
 * Whether dot products of bytes in one instruction are faster than in two and an addition. A page cannot ask for the processor's name, so
 * both are timed: with such an instruction in the processor (Arm since 2018, x86-64 with VNNI) one takes less than half as long,
 * without it the engine makes up to five of it, and both take about as long.
 */

/** Sums that do not wait for each other; four products of each are a round, so that even a quick compiler keeps to what is timed. */
const CHAINS = 8;

/** Half a millisecond: clocks of pages that are not isolated go by a tenth of one. */
const ROUNDS = 16384;

/** Repetitions, the least of which counts. */
const BURSTS = 6;

/** What the one instruction has to save. */
const LESS = 0.75;

/** @param {number} n */
const leb = (n) => {
  const bytes = [];
  do {
    bytes.push((n & 127) | (n > 127 ? 128 : 0));
    n >>= 7;
  } while (n > 0);
  return bytes;
};

/** @param {number[][]} parts */
const vector = (parts) => [...leb(parts.length), ...parts.flat()];

/** @param {number} id @param {number[]} body */
const section = (id, body) => [id, ...leb(body.length), ...body];

/** @param {number} local */
const get = (local) => [0x20, local];

/** `acc = acc + dot(acc, w)` in one instruction. Locals: rounds, w, ones, then the sums. @param {number} acc */
const inOne = (acc) => [...get(acc), ...get(1), ...get(acc), 0xfd, 0x93, 0x02, 0x21, acc];

/** The same in three. @param {number} acc */
const inTwo = (acc) => [...get(acc), ...get(1), 0xfd, 0x92, 0x02, ...get(2), 0xfd, 0xba, 0x01, ...get(acc), 0xfd, 0xae, 0x01, 0x21, acc];

/** @param {(acc: number) => number[]} product */
function timed(product) {
  const accumulators = Array.from({ length: CHAINS }, (_, i) => 3 + i);
  const code = [
    ...vector([[2 + CHAINS, 0x7b]]),
    // Splats of 1 in bytes and in 16 bits.
    ...[0x41, 1, 0xfd, 0x0f, 0x21, 1],
    ...[0x41, 1, 0xfd, 0x10, 0x21, 2],
    ...accumulators.flatMap((acc) => [...get(1), 0x21, acc]),
    ...[0x03, 0x40],
    ...Array.from({ length: 4 }, () => accumulators.flatMap(product)).flat(),
    // One round less; again unless none is left.
    ...[...get(0), 0x41, 1, 0x6b, 0x22, 0, 0x0d, 0, 0x0b],
    ...accumulators.flatMap((acc, i) => [...get(acc), ...(i > 0 ? [0xfd, 0xae, 0x01] : [])]),
    // A lane of the sum, so that nothing is for nothing.
    ...[0xfd, 0x1b, 0, 0x0b],
  ];
  return [...leb(code.length), ...code];
}

/** The bytes of a module whose exports `one` and `two` run a number of rounds. */
export function probe() {
  const name = (/** @type {string} */ text, /** @type {number} */ index) => [text.length, ...new TextEncoder().encode(text), 0, index];
  return new Uint8Array([
    ...[0, 0x61, 0x73, 0x6d, 1, 0, 0, 0],
    ...section(1, vector([[0x60, 1, 0x7f, 1, 0x7f]])),
    ...section(3, vector([[0], [0]])),
    ...section(7, vector([name("one", 0), name("two", 1)])),
    ...section(10, vector([timed(inOne), timed(inTwo)])),
  ]);
}

/** @type {boolean | undefined} */
let known;

/** Takes some milliseconds, once. `false` where it cannot be measured. */
export function dotProductIsFaster() {
  known ??= measure() < LESS;
  return known;
}

/** How long one instruction takes beside two and an addition; 1 where they differ. */
export function measure() {
  try {
    const { one, two } = /** @type {any} */ (new WebAssembly.Instance(new WebAssembly.Module(probe())).exports);
    // The experiment that Node 20 has behind a flag computes the one instruction wrongly.
    if (one(64) !== two(64)) return 1;
    let [least, beside] = [Infinity, Infinity];
    for (let i = 0; i < BURSTS; i++) {
      const begin = performance.now();
      one(ROUNDS);
      const middle = performance.now();
      two(ROUNDS);
      [least, beside] = [Math.min(least, middle - begin), Math.min(beside, performance.now() - middle)];
    }
    // Clocks of pages are coarse; what they cannot tell is not there.
    return beside > 0 ? least / beside : 1;
  } catch {
    return 1;
  }
}

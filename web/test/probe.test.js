import assert from "node:assert/strict";
import test from "node:test";
import { available } from "../js/code.js";
import { UnsupportedError } from "../js/errors.js";
import { parseManifest } from "../js/manifest.js";
import { capabilities, chooseVariant } from "../js/probe.js";
import { choose } from "../js/profile.js";
import { makePackage } from "./support/package.js";

/** A browser with everything, but for what is given. @param {Record<string, unknown>} [but] */
const scope = (but = {}) => /** @type {any} */ ({
  WebAssembly: { validate: () => true },
  SharedArrayBuffer,
  crossOriginIsolated: true,
  isSecureContext: true,
  navigator: { userAgent: "", deviceMemory: 8, storage: { getDirectory() {}, estimate: async () => ({ quota: 1, usage: 0 }) } },
  Worker: class {},
  dotProduct: () => false,
  caches: {},
  node: false,
  cores: 8,
  memoryBytes: undefined,
  ...but,
});

/** Which of the probes there is: told by an instruction in it. @param {number[]} without */
const lacking = (...without) => ({ validate: (/** @type {Uint8Array} */ bytes) => !without.some((part) => bytes.join().includes(String(part))) });
// `i8x16.popcnt` is 253,98; the relaxed dot 253,147,2; the atomic load 254,16,2.
const NO_SIMD = lacking(/** @type {any} */ ("253,98"));
const NO_RELAXED = lacking(/** @type {any} */ ("253,147,2"));
const NO_ATOMICS = lacking(/** @type {any} */ ("254,16,2"));

test("the probes are modules that this Node judges as it should", async () => {
  const found = await capabilities();
  assert.equal(found.simd, true);
  assert.equal(found.sharedMemory, true);
  // On from version 22 (V8 11.4 and later).
  const flag = process.execArgv.includes("--experimental-wasm-relaxed-simd");
  assert.equal(found.relaxedSimd, flag || Number(process.versions.node.split(".")[0]) >= 21);
  assert.equal(JSON.parse(JSON.stringify(found)).runtime, "node");
});

test("the best variant is taken", async () => {
  const table = /** @type {[any, string | null][]} */ ([
    [{}, "threads"],
    [{ crossOriginIsolated: false }, "relaxed"],
    [{ SharedArrayBuffer: undefined }, "relaxed"],
    [{ WebAssembly: NO_ATOMICS }, "relaxed"],
    [{ Worker: undefined }, "relaxed"],
    [{ WebAssembly: NO_RELAXED }, "simd128"],
    [{ WebAssembly: NO_SIMD }, null],
    [{ WebAssembly: undefined }, null],
  ]);
  for (const [but, variant] of table) {
    const found = await capabilities(scope(but));
    assert.equal(found.variant, variant, JSON.stringify(but));
    if (variant === null) assert.throws(() => chooseVariant(found, undefined, undefined, true), UnsupportedError);
    else assert.equal(chooseVariant(found, undefined, undefined, true), variant);
  }
});

test("what is missing is named, with the way to have it", async () => {
  const isolated = await capabilities(scope({ crossOriginIsolated: false }));
  assert.match(isolated.advice.join("\n"), /Cross-Origin-Opener-Policy: same-origin/);
  assert.match(isolated.advice.join("\n"), /Cross-Origin-Embedder-Policy/);
  assert.throws(() => chooseVariant(isolated, "threads", undefined, true), /Cross-Origin-Opener-Policy/);
  assert.throws(() => chooseVariant(isolated, "threads", undefined, false), /worker/);
  const old = await capabilities(scope({ WebAssembly: NO_SIMD }));
  assert.match(old.advice[0], /no SIMD.*Chrome.*Firefox.*Safari/);
  assert.throws(() => chooseVariant(old, undefined, undefined, true), { code: "no-simd" });
  const none = await capabilities(scope({ WebAssembly: undefined }));
  assert.throws(() => chooseVariant(none, undefined, undefined, true), { code: "no-webassembly" });
  // The same words in Node and in browsers.
  const noThreads = await capabilities(scope({ WebAssembly: NO_ATOMICS }));
  assert.throws(() => chooseVariant(noThreads, "threads", undefined, true), /this engine lacks shared memory/);
  const plain = await capabilities(scope({ isSecureContext: false }));
  assert.match(plain.advice.join("\n"), /secure context/);
  const best = await capabilities(scope());
  assert.deepEqual(best.advice, []);
});

test("a package without some variants gives the next best one, or says which it has", async (t) => {
  const { manifest, remove } = makePackage({ variants: ["simd128", "relaxed"] });
  t.after(remove);
  const wanted = { variant: undefined, threads: undefined, team: true };
  assert.equal(available(manifest, await capabilities(scope()), wanted), "relaxed");
  delete manifest.modules.relaxed;
  assert.equal(available(manifest, await capabilities(scope()), wanted), "simd128");
  const all = await capabilities(scope());
  assert.throws(() => available(manifest, all, { ...wanted, variant: "relaxed" }), { code: "no-variant", message: /simd128/ });
});

test("one thread is one without a team", async () => {
  const found = await capabilities(scope());
  assert.equal(chooseVariant(found, undefined, 1, true), "relaxed");
  assert.equal(chooseVariant(found, undefined, undefined, false), "relaxed");
  assert.equal(chooseVariant(found, "simd128", 4, true), "simd128");
});

test("phones are told from desktops, tablets that pretend included", async () => {
  const agent = (/** @type {string} */ userAgent, more = {}) => capabilities(scope({ navigator: { userAgent, ...more } }));
  assert.equal((await agent("Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X)")).mobile, true);
  assert.equal((await agent("Mozilla/5.0 (Linux; Android 15) Mobile")).mobile, true);
  assert.equal((await agent("Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7)", { maxTouchPoints: 5 })).mobile, true);
  assert.equal((await agent("Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7)", { maxTouchPoints: 0 })).mobile, false);
  assert.equal((await agent("Mozilla/5.0 (X11; Linux x86_64)")).mobile, false);
});

test("side and threads by device", async (t) => {
  const { manifest, remove } = makePackage();
  t.after(remove);
  const device = async (/** @type {any} */ but, /** @type {any} */ wanted = {}) => {
    const { side, threads, fits } = choose(manifest, await capabilities(scope(but)), { variant: "threads", ...wanted });
    return [side, threads, fits];
  };
  const phone = { userAgent: "Android Mobile", deviceMemory: 4 };
  assert.deepEqual(await device({}), [1024, 4, true]);
  assert.deepEqual(await device({ cores: 2 }), [1024, 2, true]);
  assert.deepEqual(await device({ cores: 1 }), [1024, 1, true]);
  assert.deepEqual(await device({ cores: 64 }), [1024, 8, true]);
  assert.deepEqual(await device({ navigator: phone }), [512, 4, true]);
  assert.deepEqual(await device({ navigator: { ...phone, deviceMemory: 0.5 } }), [256, 4, true]);
  assert.deepEqual(await device({ navigator: { ...phone, deviceMemory: 0.25 } }), [256, 4, false]);
  assert.deepEqual(await device({ navigator: { userAgent: "", deviceMemory: 1 } }), [512, 4, true]);
  assert.deepEqual(await device({ navigator: phone }, { profile: "desktop" }), [1024, 4, true]);
  assert.deepEqual(await device({}, { side: 256, threads: 3 }), [256, 3, true]);
  assert.deepEqual(await device({}, { threads: 3, variant: "relaxed" }), [1024, 1, true]);
  await assert.rejects(device({}, { side: 300 }), /256, 512, 1024/);
  await assert.rejects(device({}, { profile: "watch" }), /desktop and phone/);
});

test("a manifest is checked before it is used", (t) => {
  const { manifest, remove } = makePackage();
  t.after(remove);
  const parse = (/** @type {any} */ change) => {
    const copy = JSON.parse(JSON.stringify(manifest));
    change(copy);
    return parseManifest(JSON.stringify(copy), "model.json");
  };
  assert.equal(parse(() => {}).name, "fake");
  const bad = /** @type {[RegExp, (m: any) => void][]} */ ([
    [/format 2/, (m) => (m.format = 2)],
    [/digest/, (m) => (m.digest = "x")],
    [/sides/, (m) => (m.sides = [])],
    [/ascend/, (m) => m.sides.reverse()],
    [/sides\[0\]/, (m) => (m.sides[0].side = -1)],
    [/header_end|`file`/, (m) => (m.file.header_end = m.file.bytes + 1)],
    [/shards have/, (m) => m.shards.pop()],
    [/no path/, (m) => (m.shards[0].name = "../../secret")],
    [/no path/, (m) => (m.shards[0].name = "https://elsewhere/x")],
    [/no path/, (m) => (m.shards[0].name = "/x")],
    [/no size/, (m) => (m.shards[0].bytes = 1e18)],
    [/no size/, (m) => (m.shards[0].bytes = 1.5)],
    [/sha256/, (m) => (m.shards[0].sha256 = "00")],
    [/modules\.relaxed/, (m) => (m.modules.relaxed = {})],
    [/none of int8/, (m) => (m.kv = "int3")],
    [/no size/, (m) => (m.scratch_bytes_per_thread = "1")],
  ]);
  for (const [message, change] of bad) assert.throws(() => parse(change), { code: "bad-manifest", message });
  assert.throws(() => parseManifest("<!doctype html>", "model.json"), { code: "bad-manifest", message: /not JSON/ });
  assert.throws(() => parseManifest("null", "model.json"), { code: "bad-manifest" });
});

test("the module that times dot products is valid and computes the same in both ways", async (t) => {
  const { measure, probe } = await import("../js/dot.js");
  const { relaxedSimd } = await capabilities();
  if (!relaxedSimd) return t.diagnostic("relaxed SIMD is off in this Node: nothing to time");
  const { one, two } = /** @type {any} */ (new WebAssembly.Instance(new WebAssembly.Module(probe())).exports);
  const share = measure();
  if (Number(process.versions.node.split(".")[0]) < 22) {
    // Computed wrongly there, and so not taken.
    assert.notEqual(one(64), two(64));
    return assert.equal(share, 1);
  }
  for (const rounds of [1, 2, 64]) assert.equal(one(rounds), two(rounds));
  assert.ok(share > 0.1 && share < 3, `one instruction takes ${share} of the time of two and an addition`);
});

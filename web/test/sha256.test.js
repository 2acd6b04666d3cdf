import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import test from "node:test";
import { Sha256, sha256, Spare } from "../js/sha256.js";

const expected = (/** @type {Uint8Array} */ bytes) => createHash("sha256").update(bytes).digest("hex");

test("the JavaScript way equals the platform's around the edges of a block", () => {
  for (const length of [0, 1, 3, 54, 55, 56, 57, 63, 64, 65, 119, 120, 127, 128, 129, 1000, 100_003]) {
    const bytes = Uint8Array.from({ length }, (_, i) => (i * 31 + length) & 255);
    assert.equal(new Sha256().update(bytes).digest(), expected(bytes), `${length} bytes`);
  }
});

test("pieces of any lengths give the same digest", () => {
  const bytes = Uint8Array.from({ length: 3000 }, (_, i) => (i * 7) & 255);
  for (const step of [1, 13, 63, 64, 65, 500]) {
    const hash = new Sha256();
    for (let at = 0; at < bytes.length; at += step) hash.update(bytes.subarray(at, at + step));
    assert.equal(hash.digest(), expected(bytes), `pieces of ${step}`);
  }
});

test("with and without crypto.subtle, of plain and of shared memory", async () => {
  const length = (2 << 20) + 17;
  for (const buffer of [new ArrayBuffer(length), new SharedArrayBuffer(length)]) {
    const bytes = new Uint8Array(buffer).map((_, i) => (i * 5) & 255);
    const view = new Uint8Array(buffer);
    view.set(bytes);
    assert.equal(await sha256(() => view), expected(bytes));
    assert.equal(await sha256(() => view, { subtle: null }), expected(bytes));
  }
});

test("memory that moves between slices is read where it is", async () => {
  const bytes = Uint8Array.from({ length: (3 << 20) + 1 }, (_, i) => (i * 3) & 255);
  let calls = 0;
  const moving = () => (calls++ % 2 ? bytes : bytes.slice());
  assert.equal(await sha256(moving, { subtle: null }), expected(bytes));
  assert.ok(calls > 3);
});

test("one copy of shared memory serves many digests, and plain memory needs none", async () => {
  const spare = new Spare(5000);
  const shared = (/** @type {number} */ length) => {
    const view = new Uint8Array(new SharedArrayBuffer(length));
    view.set(Uint8Array.from({ length }, (_, i) => (i * 11 + length) & 255));
    return view;
  };
  const views = [shared(700), shared(5000), shared(64)];
  const digests = views.map((view) => sha256(() => view, { spare }));
  assert.deepEqual(await Promise.all(digests), views.map(expected));
  const first = spare.unshared(views[0]);
  assert.deepEqual([...first], [...views[0]]);
  assert.equal(spare.unshared(views[1]).buffer, first.buffer);
  spare.free();
  assert.equal(first.length, 0);
  assert.deepEqual([...spare.unshared(views[2])], [...views[2]]);
  const plain = new Uint8Array(3);
  assert.equal(spare.unshared(plain), plain);
});

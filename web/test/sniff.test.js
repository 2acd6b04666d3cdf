import assert from "node:assert/strict";
import test from "node:test";
import { sniff } from "../js/sniff.js";

const bytes = (/** @type {(string | number[])[]} */ ...parts) => new Uint8Array(parts.flatMap((part) => (typeof part === "string" ? [...part].map((c) => c.charCodeAt(0)) : part)));

test("sizes are read from the heads of files", () => {
  const png = bytes([0x89], "PNG\r\n\x1a\n", [0, 0, 0, 13], "IHDR", [0, 0, 2, 0, 0, 0, 1, 1]);
  assert.deepEqual(sniff(png), { type: "png", width: 512, height: 257 });
  // A segment of application data, padding, tables, then the frame.
  const jpeg = bytes([255, 0xd8, 255, 0xe1, 0, 4, 9, 9, 255, 255, 0xc4, 0, 3, 1, 255, 0xc2, 0, 17, 8, 1, 2, 3, 4]);
  assert.deepEqual(sniff(jpeg), { type: "jpeg", width: 0x304, height: 0x102 });
  assert.deepEqual(sniff(bytes("GIF89a", [1, 1, 2, 0])), { type: "gif", width: 257, height: 2 });
  const webp = (/** @type {(string | number[])[]} */ ...rest) => bytes("RIFF", [0, 0, 0, 0], "WEBP", ...rest);
  assert.deepEqual(sniff(webp("VP8X", [10, 0, 0, 0, 0, 0, 0, 0, 255, 1, 0, 2, 0, 1])), { type: "webp", width: 512, height: 65539 });
  assert.deepEqual(sniff(webp("VP8 ", [0, 0, 0, 0, 0, 0, 0, 0x9d, 1, 0x2a, 0, 1, 3, 0])), { type: "webp", width: 256, height: 3 });
  assert.deepEqual(sniff(webp("VP8L", [0, 0, 0, 0, 0x2f, 255, 0xc0, 0, 0])), { type: "webp", width: 256, height: 4 });
  const bmp = bytes("BM", Array(12).fill(0), [40, 0, 0, 0, 7, 0, 0, 0, 254, 255, 255, 255]);
  assert.deepEqual(sniff(bmp), { type: "bmp", width: 7, height: 2 });
});

test("what is cut off or unknown is left to the decoder", () => {
  for (const head of [bytes(), bytes("hello"), bytes([255, 0xd8]), bytes([255, 0xd8, 255, 0xe1, 255, 255]), bytes([255, 0xd8, 1, 2, 3, 4]), bytes("RIFF", [0, 0, 0, 0], "WEBP", "VP8X"), bytes([0x89], "PNG\r\n\x1a\n", [0, 0])]) {
    assert.equal(sniff(head), null);
  }
});

test("any bytes end", () => {
  let state = 1;
  for (let n = 0; n < 3000; n++) {
    const head = Uint8Array.from({ length: 60 }, () => (state = (Math.imul(state, 1103515245) + 12345) >>> 0) >>> 16);
    head.set([[0xff, 0xd8, 0xff], [0x89, 0x50, 0x4e, 0x47, 13, 10, 26, 10], [0x52, 0x49, 0x46, 0x46], [0x42, 0x4d]][n % 4]);
    sniff(head);
  }
});

/** Pixels of PNG files as the demo's pictures are: 8 bits, gray, RGB or RGBA, not interlaced. */

import { inflateSync } from "node:zlib";

/** @param {Uint8Array} file @returns {{ data: Uint8Array, width: number, height: number }} RGB */
export function decodePng(file) {
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  const [width, height] = [view.getUint32(16), view.getUint32(20)];
  const [depth, color, , , interlace] = file.subarray(24, 29);
  const channels = /** @type {Record<number, number>} */ ({ 0: 1, 2: 3, 6: 4 })[color];
  if (depth !== 8 || interlace !== 0 || channels === undefined) throw new Error(`a PNG of depth ${depth}, color ${color}, interlace ${interlace}`);
  const parts = [];
  for (let at = 8; at < file.length; at += 12 + view.getUint32(at)) {
    if (String.fromCharCode(...file.subarray(at + 4, at + 8)) === "IDAT") parts.push(file.subarray(at + 8, at + 8 + view.getUint32(at)));
  }
  const raw = inflateSync(Buffer.concat(parts));
  const pitch = width * channels;
  const rows = new Uint8Array(pitch * height);
  for (let y = 0; y < height; y++) {
    const filter = raw[y * (pitch + 1)];
    for (let x = 0; x < pitch; x++) {
      const left = x >= channels ? rows[y * pitch + x - channels] : 0;
      const up = y > 0 ? rows[(y - 1) * pitch + x] : 0;
      const corner = x >= channels && y > 0 ? rows[(y - 1) * pitch + x - channels] : 0;
      const guess = [0, left, up, (left + up) >> 1, paeth(left, up, corner)][filter];
      rows[y * pitch + x] = raw[y * (pitch + 1) + 1 + x] + guess;
    }
  }
  const data = new Uint8Array(width * height * 3);
  for (let i = 0; i < width * height; i++) {
    for (let c = 0; c < 3; c++) data[i * 3 + c] = rows[i * channels + (channels === 1 ? 0 : c)];
  }
  return { data, width, height };
}

/** @param {number} a @param {number} b @param {number} c */
function paeth(a, b, c) {
  const [pa, pb, pc] = [b - c, a - c, a + b - 2 * c].map(Math.abs);
  return pa <= pb && pa <= pc ? a : pb <= pc ? b : c;
}

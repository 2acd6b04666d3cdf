/**
 * The size of a picture from the first bytes of its file, so that a file of 100 bytes that claims 65535 x 65535 is refused
 * before anything is decoded. What is not recognized is left to the browser.
 */

/** Bytes that are enough but for a JPEG with much before its frame. */
export const SNIFF_BYTES = 512 << 10;

/**
 * @param {Uint8Array} bytes
 * @returns {{ type: string, width: number, height: number } | null}
 */
export function sniff(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  try {
    return png(view) ?? jpeg(view) ?? gif(view) ?? webp(view) ?? bmp(view);
  } catch (error) {
    // The file ends within its header; whoever decodes it will say so.
    if (error instanceof RangeError) return null;
    throw error;
  }
}

/** @param {DataView} view @param {number} at @param {string} text */
function has(view, at, text) {
  return view.byteLength >= at + text.length && [...text].every((char, i) => view.getUint8(at + i) === char.charCodeAt(0));
}

/** @param {DataView} view */
function png(view) {
  if (!has(view, 1, "PNG\r\n\x1a\n")) return null;
  return { type: "png", width: view.getUint32(16), height: view.getUint32(20) };
}

/** @param {DataView} view */
function jpeg(view) {
  if (view.byteLength < 4 || view.getUint16(0) !== 0xffd8) return null;
  for (let at = 2; ; ) {
    if (view.getUint8(at) !== 0xff) return null;
    const marker = view.getUint8(at + 1);
    // Padding.
    if (marker === 0xff) {
      at += 1;
      continue;
    }
    // Frames of all kinds; not DHT, JPG and DAC, which lie between them.
    if (marker >= 0xc0 && marker <= 0xcf && marker !== 0xc4 && marker !== 0xc8 && marker !== 0xcc) {
      return { type: "jpeg", width: view.getUint16(at + 7), height: view.getUint16(at + 5) };
    }
    const alone = marker === 0x01 || (marker >= 0xd0 && marker <= 0xd8);
    at += alone ? 2 : 2 + Math.max(2, view.getUint16(at + 2));
  }
}

/** @param {DataView} view */
function gif(view) {
  if (!has(view, 0, "GIF8")) return null;
  return { type: "gif", width: view.getUint16(6, true), height: view.getUint16(8, true) };
}

/** @param {DataView} view */
function webp(view) {
  if (!has(view, 0, "RIFF") || !has(view, 8, "WEBP")) return null;
  if (has(view, 12, "VP8X")) return { type: "webp", width: 1 + uint24(view, 24), height: 1 + uint24(view, 27) };
  if (has(view, 12, "VP8 ")) return { type: "webp", width: view.getUint16(26, true) & 0x3fff, height: view.getUint16(28, true) & 0x3fff };
  if (!has(view, 12, "VP8L")) return null;
  const bits = view.getUint32(21, true);
  return { type: "webp", width: 1 + (bits & 0x3fff), height: 1 + ((bits >>> 14) & 0x3fff) };
}

/** @param {DataView} view @param {number} at */
function uint24(view, at) {
  return view.getUint16(at, true) | (view.getUint8(at + 2) << 16);
}

/** @param {DataView} view */
function bmp(view) {
  if (!has(view, 0, "BM") || view.getUint32(14, true) < 40) return null;
  return { type: "bmp", width: Math.abs(view.getInt32(18, true)), height: Math.abs(view.getInt32(22, true)) };
}

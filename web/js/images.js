/**
 * What a caller hands in as a picture, to what is sent to the model. Nothing of the caller's is changed or taken away.
 */

import { ArgumentError, DownloadError, ImageError, UnsupportedError } from "./errors.js";
import { isNode, nodeModule } from "./platform.js";
import { bitmapOf, checkBefore, checkSize, tainted, toPixels } from "./pixels.js";

/** Pixels of the largest picture that is taken unless told otherwise: a photo of 48 megapixels fits. */
export const MAX_PIXELS = 64 << 20;

/** Bytes of the largest file. */
const MAX_BYTES = 128 << 20;

/**
 * @typedef {object} ImageOptions
 * @property {number} maxPixels
 * @property {import("../index.js").Decode | undefined} decode
 * @property {AbortSignal | undefined} signal
 */

/**
 * @param {unknown} source
 * @param {ImageOptions} options
 * @returns {Promise<import("./pixels.js").Sent>}
 */
export async function describe(source, options) {
  const scope = /** @type {any} */ (globalThis);
  const is = (/** @type {string} */ name) => typeof scope[name] === "function" && source instanceof scope[name];
  if (typeof source === "string" || source instanceof URL) return fromBlob(await fetchImage(String(source), options), options);
  if (source instanceof Blob) return fromBlob(source, options);
  if (source instanceof Uint8Array || source instanceof ArrayBuffer) {
    return fromBlob(new Blob([/** @type {Uint8Array<ArrayBuffer> | ArrayBuffer} */ (source)]), options);
  }
  if (is("HTMLImageElement")) return fromElement(/** @type {HTMLImageElement} */ (source), options);
  if (is("ImageBitmap") || is("HTMLCanvasElement") || is("OffscreenCanvas") || is("HTMLVideoElement") || is("VideoFrame")) {
    return fromDrawn(/** @type {any} */ (source), options);
  }
  if (typeof source === "object" && source !== null && "data" in source && "width" in source && "height" in source) {
    return fromRaw(/** @type {any} */ (source), options);
  }
  const what = source === null ? "null" : typeof source === "object" ? source.constructor?.name : typeof source;
  throw new ArgumentError(
    "argument",
    `image: ${what} is none: give a Blob or File, an address, an ImageBitmap, ImageData, canvas, image or video element, or { data, width, height }`,
  );
}

/**
 * @param {Blob} blob
 * @param {ImageOptions} options
 * @returns {Promise<import("./pixels.js").Sent>}
 */
async function fromBlob(blob, { maxPixels, decode }) {
  if (blob.size > MAX_BYTES) {
    throw new ImageError("image-too-large", `image: a file of ${blob.size} bytes; the most is ${MAX_BYTES}`, { details: { bytes: blob.size } });
  }
  await checkBefore(blob, maxPixels);
  if (decode) return fromRaw(await decode(new Uint8Array(await blob.arrayBuffer()), blob.type), { maxPixels });
  if (isNode) {
    throw new UnsupportedError(
      "no-decoder",
      "Node decodes no picture files: pass `decode` to load (README, \"Node\"), or give pixels as { data, width, height }",
    );
  }
  return here({ kind: "blob", blob, maxPixels });
}

/**
 * @param {{ data: unknown, width: unknown, height: unknown }} raw
 * @param {{ maxPixels: number }} options
 * @returns {import("./pixels.js").Sent}
 */
function fromRaw({ data, width, height }, { maxPixels }) {
  if (!Number.isInteger(width) || !Number.isInteger(height)) {
    throw new ImageError("image-empty", `image: width ${width} and height ${height} are no whole numbers`);
  }
  const [w, h] = [/** @type {number} */ (width), /** @type {number} */ (height)];
  checkSize(w, h, maxPixels);
  if (!(data instanceof Uint8Array || data instanceof Uint8ClampedArray)) {
    throw new ImageError("image-kind", "image: `data` has to be bytes (Uint8Array or Uint8ClampedArray), RGB or RGBA");
  }
  if (data.length !== w * h * 4 && data.length !== w * h * 3) {
    const gone = data.length === 0 ? "; its buffer was moved elsewhere (detached)" : "";
    throw new ImageError(
      data.length === 0 ? "image-detached" : "image-length",
      `image: \`data\` has ${data.length} bytes, ${w} x ${h} pixels need ${w * h * 3} (RGB) or ${w * h * 4} (RGBA)${gone}`,
      { details: { bytes: data.length, width: w, height: h } },
    );
  }
  // A copy, which is sent without another one.
  return { kind: "pixels", data: new Uint8Array(data), width: w, height: h };
}

/**
 * @param {HTMLImageElement} element
 * @param {ImageOptions} options
 */
async function fromElement(element, options) {
  try {
    await element.decode();
  } catch (cause) {
    throw new ImageError("image-undecodable", `image: the element's picture did not load${element.src ? ` (${element.src.slice(0, 200)})` : ""}`, { cause });
  }
  checkSize(element.naturalWidth, element.naturalHeight, options.maxPixels);
  return fromDrawn(element, options);
}

/**
 * @param {ImageBitmap | HTMLCanvasElement | OffscreenCanvas | HTMLVideoElement | VideoFrame | HTMLImageElement} source
 * @param {ImageOptions} options
 * @returns {Promise<import("./pixels.js").Sent>}
 */
async function fromDrawn(source, { maxPixels }) {
  const { width, height } = /** @type {{ width: number, height: number }} */ (source);
  if ("close" in source && width === 0) throw new ImageError("image-detached", "image: the bitmap was closed or moved elsewhere");
  try {
    const bitmap = await bitmapOf(source);
    // A picture of another origin may be drawn, but neither sent nor read.
    return await here({ kind: "bitmap", bitmap, maxPixels });
  } catch (cause) {
    if (cause instanceof ImageError) throw cause;
    if (/** @type {Error} */ (cause).name === "SecurityError") throw tainted(cause);
    throw new ImageError("image-undecodable", `image: ${width} x ${height} pixels could not be read: ${/** @type {Error} */ (cause).message}`, { cause });
  }
}

/**
 * Pixels at once where a worker could not draw.
 *
 * @param {import("./pixels.js").Sent} sent
 * @returns {Promise<import("./pixels.js").Sent>}
 */
async function here(sent) {
  if (typeof OffscreenCanvas === "function" || typeof document === "undefined") return sent;
  return { kind: "pixels", ...(await toPixels(sent)) };
}

/**
 * @param {string} address
 * @param {ImageOptions} options
 */
async function fetchImage(address, { signal }) {
  let url;
  try {
    url = new URL(address, /** @type {any} */ (globalThis).document?.baseURI);
  } catch (cause) {
    throw new ImageError("image-address", `image: ${JSON.stringify(address.slice(0, 200))} is no address${isNode ? "; for a file, give its bytes or a file: URL" : ""}`, { cause });
  }
  if (isNode && url.protocol === "file:") {
    const fs = await nodeModule("fs/promises");
    try {
      return new Blob([await fs.readFile(url)]);
    } catch (cause) {
      throw new ImageError("image-address", `image: ${/** @type {Error} */ (cause).message}`, { cause });
    }
  }
  let response;
  try {
    response = await fetch(url, { signal: signal ?? null });
  } catch (cause) {
    if (signal?.aborted) throw signal.reason;
    throw new DownloadError("network", `${url}: the picture did not arrive: is the address right, and does its server send \`Access-Control-Allow-Origin\`?`, { cause });
  }
  if (!response.ok) throw new DownloadError("http-status", `${url}: status ${response.status}`, { details: { url: url.href, status: response.status } });
  if (Number(response.headers.get("content-length") ?? 0) > MAX_BYTES) {
    throw new ImageError("image-too-large", `${url}: a file of ${response.headers.get("content-length")} bytes; the most is ${MAX_BYTES}`);
  }
  return response.blob();
}

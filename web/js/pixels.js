/**
 * Pictures to pixels, where the browser decodes them: in the worker, or on the page.
 */

import { ImageError } from "./errors.js";
import { sniff, SNIFF_BYTES } from "./sniff.js";

/**
 * A picture as it travels to where the model is.
 *
 * @typedef {{ kind: "pixels", data: Uint8Array, width: number, height: number }} Raw RGB or RGBA, rows without gaps
 * @typedef {{ kind: "blob", blob: Blob, maxPixels: number } | { kind: "bitmap", bitmap: ImageBitmap, maxPixels: number } | Raw} Sent
 */

/**
 * @param {Sent} image
 * @returns {Promise<Omit<Raw, "kind">>}
 */
export async function toPixels(image) {
  if (image.kind === "pixels") return image;
  if (image.kind === "bitmap") return draw(image.bitmap, image.maxPixels);
  await checkBefore(image.blob, image.maxPixels);
  return draw(await decode(image.blob), image.maxPixels);
}

/**
 * What can be told before decoding.
 *
 * @param {Blob} blob
 * @param {number} maxPixels
 */
export async function checkBefore(blob, maxPixels) {
  if (blob.size === 0) throw new ImageError("image-empty", "image: the file is empty");
  const head = new Uint8Array(await blob.slice(0, SNIFF_BYTES).arrayBuffer());
  const found = sniff(head);
  if (found) checkSize(found.width, found.height, maxPixels);
}

/**
 * @param {number} width
 * @param {number} height
 * @param {number} maxPixels
 */
export function checkSize(width, height, maxPixels) {
  if (!(width > 0 && height > 0)) throw new ImageError("image-empty", `image: ${width} x ${height} pixels`, { details: { width, height } });
  if (width * height > maxPixels) {
    throw new ImageError(
      "image-too-large",
      `image: ${width} x ${height} pixels are more than ${maxPixels}: make it smaller, or raise \`maxPixels\``,
      { details: { width, height, maxPixels } },
    );
  }
}

/**
 * As it is meant to be seen: turned as its EXIF data says, values as stored in the file.
 *
 * @param {Blob} blob
 */
async function decode(blob) {
  try {
    return await bitmapOf(blob);
  } catch (cause) {
    const type = blob.type ? ` (${blob.type})` : "";
    throw new ImageError("image-undecodable", `image: this browser cannot decode the file${type} of ${blob.size} bytes: is it a picture, and whole?`, {
      cause,
      details: { type: blob.type, bytes: blob.size },
    });
  }
}

/**
 * A bitmap with values as they are. Older browsers know fewer of the options, and do most of this without them.
 *
 * @param {ImageBitmapSource} source
 */
export async function bitmapOf(source) {
  try {
    return await createImageBitmap(source, { imageOrientation: "from-image", premultiplyAlpha: "none", colorSpaceConversion: "none" });
  } catch (error) {
    if (!(error instanceof TypeError)) throw error;
    return createImageBitmap(source);
  }
}

/**
 * @param {ImageBitmap} bitmap taken; closed afterwards
 * @param {number} maxPixels
 */
function draw(bitmap, maxPixels) {
  const { width, height } = bitmap;
  try {
    checkSize(width, height, maxPixels);
    const canvas = typeof OffscreenCanvas === "function" ? new OffscreenCanvas(width, height) : pageCanvas(width, height);
    const context = /** @type {OffscreenCanvasRenderingContext2D | CanvasRenderingContext2D | null} */ (
      canvas.getContext("2d", { willReadFrequently: true })
    );
    if (!context) throw new ImageError("image-too-large", `image: no canvas of ${width} x ${height} pixels is to be had: make it smaller`);
    context.drawImage(bitmap, 0, 0);
    const { data } = context.getImageData(0, 0, width, height);
    // Gives its memory back at once.
    canvas.width = canvas.height = 0;
    return { data: new Uint8Array(data.buffer, data.byteOffset, data.byteLength), width, height };
  } catch (cause) {
    if (cause instanceof ImageError) throw cause;
    if (/** @type {Error} */ (cause).name === "SecurityError") throw tainted(cause);
    throw new ImageError("image-undecodable", `image: reading ${width} x ${height} pixels failed: ${/** @type {Error} */ (cause).message}`, { cause });
  } finally {
    bitmap.close();
  }
}

/** @param {unknown} cause */
export function tainted(cause) {
  return new ImageError(
    "image-tainted",
    'image: it is from another origin that did not allow reading it: set crossorigin="anonymous" on the element, and let the server send ' +
      "`Access-Control-Allow-Origin`",
    { cause },
  );
}

/** @param {number} width @param {number} height */
function pageCanvas(width, height) {
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  return canvas;
}

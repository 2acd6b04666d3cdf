/**
 * One file by HTTP, however the network and the server misbehave.
 *
 * What arrived stays: after a break the rest is asked for with a range. Whether the bytes are the right ones is for the caller to
 * check; what can be told before (a page of HTML, another length) is refused before it is downloaded.
 */

import { DownloadError, isAbort } from "./errors.js";
import { isNode, nodeModule, sleep } from "./platform.js";

/**
 * @typedef {object} Policy
 * @property {typeof globalThis.fetch} fetch
 * @property {number} retries attempts in a row that brought nothing
 * @property {number} backoffMs before the second attempt; doubled for each further one
 * @property {number} stallMs without a byte, after which an attempt is given up
 * @property {RequestCredentials} credentials
 */

/** @type {Policy} */
export const POLICY = {
  fetch: (...args) => globalThis.fetch(...args),
  retries: 5,
  backoffMs: 400,
  stallMs: 30_000,
  credentials: "same-origin",
};

/** Statuses that a later attempt may not see. */
const PASSING = new Set([408, 425, 429, 500, 502, 503, 504]);

/**
 * Downloads what is missing of a file whose length is known.
 *
 * @param {object} file
 * @param {string} file.url
 * @param {number} file.bytes its length
 * @param {number} file.have bytes from its beginning that are there
 * @param {boolean} [file.fresh] past the browser's HTTP cache, which gave wrong bytes
 * @param {boolean} [file.kept] the caller keeps it; the HTTP cache need not
 * @param {(chunk: Uint8Array, at: number) => void} file.write may be called for bytes before `have` again, if the server starts over
 * @param {AbortSignal} [file.signal]
 * @param {Policy} [policy]
 */
export async function download(file, policy = POLICY) {
  const { url, bytes, write, signal } = file;
  if (url.startsWith("file:")) return readFile(file);
  if (url.startsWith("data:")) {
    const data = decodeData(url);
    if (data.length !== bytes) throw wrongLength(url, data.length, bytes);
    return write(data, 0);
  }
  let at = file.have;
  let fresh = file.fresh === true;
  // Servers that answer ranges wrongly are asked for the whole file.
  let ranges = true;
  for (let failures = 0; at < bytes; ) {
    const before = at;
    const start = ranges ? at : 0;
    try {
      await attempt(start);
      if (at < bytes) throw truncated(url, at, bytes);
    } catch (error) {
      if (signal?.aborted) throw signal.reason;
      if (error instanceof Restart) {
        // Each way out is taken once.
        if (error.way === "fresh" ? fresh : !ranges) throw error.reason;
        if (error.way === "fresh") fresh = true;
        else ranges = false;
        at = 0;
        continue;
      }
      if (!mayPass(error)) throw error;
      failures = at > before ? 1 : failures + 1;
      if (failures > policy.retries) throw finalError(error, url, at, bytes);
      const asked = error instanceof DownloadError ? Number(error.details.retryAfterMs ?? 0) : 0;
      await sleep(Math.max(policy.backoffMs * 2 ** (failures - 1), Math.min(asked, 30_000)), signal);
    }
  }

  /**
   * One request, from `start` on.
   *
   * @param {number} start
   */
  async function attempt(start) {
    const abort = new AbortController();
    const stop = () => abort.abort(signal?.reason);
    signal?.addEventListener("abort", stop, { once: true });
    let stalled = false;
    const stall = () => {
      stalled = true;
      abort.abort();
    };
    let timer = setTimeout(stall, policy.stallMs);
    try {
      const response = await policy.fetch(url, {
        headers: start > 0 ? { Range: `bytes=${start}-` } : {},
        // A resumed download must not be answered from a cache that holds another version.
        cache: fresh ? "reload" : start > 0 || file.kept ? "no-store" : "default",
        credentials: policy.credentials,
        signal: abort.signal,
      });
      const from = begin(response, start);
      const reader = pieces(response);
      let place = from;
      for (;;) {
        const { done, value } = await reader.read();
        if (done || !value) return;
        clearTimeout(timer);
        timer = setTimeout(stall, policy.stallMs);
        if (place === 0 && looksLikeHtml(value)) throw html(url, response);
        if (place + value.length > bytes) {
          throw new Restart("fresh", wrongLength(url, `more than ${bytes}`, bytes));
        }
        // What is there already is passed over: the server started from the beginning.
        const known = Math.min(Math.max(at - place, 0), value.length);
        if (known < value.length) {
          write(value.subarray(known), place + known);
          at = place + value.length;
        }
        place += value.length;
      }
    } catch (error) {
      if (stalled) {
        throw new DownloadError("stalled", `${url}: nothing arrived for ${policy.stallMs / 1000} s, after ${at} of ${bytes} bytes`, {
          details: { url, passing: true },
        });
      }
      throw error;
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener("abort", stop);
      // Ends what is left of the response; a finished one is not touched by it.
      abort.abort();
    }
  }

  /**
   * Where the response's first byte belongs, if it is a response to what was asked.
   *
   * @param {Response} response
   * @param {number} start
   */
  function begin(response, start) {
    const { status } = response;
    if (status === 416) throw new Restart("whole", httpError(url, response));
    if (!response.ok) throw httpError(url, response);
    if (/text\/html/i.test(response.headers.get("content-type") ?? "")) throw html(url, response);
    const encoded = response.headers.get("content-encoding");
    // Ranges of a compressed representation are not ranges of the file.
    if (status === 206 && encoded !== null && encoded !== "identity") throw new Restart("whole", httpError(url, response));
    const from = status === 206 ? start : 0;
    // Not shown to pages of other origins unless the server exposes it; the digest decides then.
    const range = status === 206 ? response.headers.get("content-range") : null;
    const total = range === null ? null : /^bytes (\d+)-\d+\/(\d+|\*)$/.exec(range.trim());
    if (range !== null && Number(total?.[1]) !== start) throw new Restart("whole", httpError(url, response));
    if (total && total[2] !== "*" && Number(total[2]) !== bytes) throw new Restart("fresh", wrongLength(url, total[2], bytes));
    // Another origin's response does not show whether it was compressed, and then its length says nothing.
    const hidden = response.type === "cors" || (encoded !== null && encoded !== "identity");
    const length = hidden ? null : response.headers.get("content-length");
    // A server may answer a range with less than was asked for, and then with the rest.
    const end = length === null ? bytes : from + Number(length);
    if (status === 206 ? end > bytes : end !== bytes) throw new Restart("fresh", wrongLength(url, end, bytes));
    return from;
  }
}

/**
 * A whole small file.
 *
 * @param {string} url
 * @param {{ signal?: AbortSignal, cache?: RequestCache, most?: number }} [options]
 * @param {Policy} [policy]
 * @returns {Promise<Uint8Array<ArrayBuffer>>}
 */
export async function small(url, { signal, cache = "default", most = 64 << 20 } = {}, policy = POLICY) {
  if (url.startsWith("file:")) {
    const fs = await nodeModule("fs/promises");
    try {
      return new Uint8Array(await fs.readFile(new URL(url)));
    } catch (error) {
      throw noFile(url, error);
    }
  }
  if (url.startsWith("data:")) return decodeData(url);
  for (let failures = 0; ; ) {
    try {
      const response = await policy.fetch(url, { cache, credentials: policy.credentials, signal: signal ?? null });
      if (!response.ok) throw httpError(url, response);
      if (/text\/html/i.test(response.headers.get("content-type") ?? "")) throw html(url, response);
      if (Number(response.headers.get("content-length") ?? 0) > most) throw wrongLength(url, response.headers.get("content-length") ?? "", most);
      const bytes = new Uint8Array(await response.arrayBuffer());
      if (looksLikeHtml(bytes)) throw html(url, response);
      return bytes;
    } catch (error) {
      if (signal?.aborted) throw signal.reason;
      if (!mayPass(error)) throw error;
      failures += 1;
      if (failures > policy.retries) throw finalError(error, url, 0, null);
      await sleep(policy.backoffMs * 2 ** (failures - 1), signal);
    }
  }
}

/** The same bytes are asked for in another way. */
class Restart extends Error {
  /**
   * @param {"fresh" | "whole"} way past the browser's cache; without a range
   * @param {DownloadError} reason thrown where that was tried already
   */
  constructor(way, reason) {
    super(reason.message);
    this.way = way;
    this.reason = reason;
  }
}

/** Bytes that are read at a time where the reader takes a buffer. */
const CHUNK = 256 << 10;

/** Buffers between two responses: a new one for each would wait for its collection. @type {ArrayBuffer[]} */
const rooms = [];

/**
 * Reads pieces of the body, each of which is good until the next one: into one buffer where the engine can, else a new one for each, which
 * is a lot to collect.
 *
 * @param {Response} response
 * @returns {{ read: () => Promise<{ done: boolean, value?: Uint8Array }> }}
 */
export function pieces(response) {
  if (!response.body) throw new TypeError("the response has no body");
  let reader;
  try {
    reader = response.body.getReader({ mode: "byob" });
  } catch {
    return /** @type {any} */ (response.body.getReader());
  }
  const into = reader;
  let room = rooms.pop() ?? new ArrayBuffer(CHUNK);
  return {
    async read() {
      const { done, value } = await into.read(new Uint8Array(room));
      if (value) room = value.buffer;
      // An aborted response keeps it.
      if (done && room.byteLength > 0) rooms.push(room);
      return { done, value };
    },
  };
}

/** @param {{ url: string, bytes: number, have: number, write: (chunk: Uint8Array, at: number) => void, signal?: AbortSignal }} file */
async function readFile({ url, bytes, have, write, signal }) {
  const fs = await nodeModule("fs/promises");
  let file;
  try {
    file = await fs.open(new URL(url));
  } catch (error) {
    throw noFile(url, error);
  }
  try {
    const { size } = await file.stat();
    if (size !== bytes) throw wrongLength(url, size, bytes);
    const chunk = new Uint8Array(1 << 20);
    for (let at = have; at < bytes; ) {
      if (signal?.aborted) throw signal.reason;
      const { bytesRead } = await file.read(chunk, 0, Math.min(chunk.length, bytes - at), at);
      if (bytesRead === 0) throw wrongLength(url, at, bytes);
      write(chunk.subarray(0, bytesRead), at);
      at += bytesRead;
    }
  } finally {
    await file.close();
  }
}

/** What bundlers put in the place of small files; fetching it would need `connect-src data:`. @param {string} url */
function decodeData(url) {
  const comma = url.indexOf(",");
  const head = url.slice(0, comma);
  const tail = url.slice(comma + 1);
  if (!head.endsWith(";base64")) return new TextEncoder().encode(decodeURIComponent(tail));
  return Uint8Array.from(atob(tail), (char) => char.charCodeAt(0));
}

/** @param {Uint8Array} bytes */
function looksLikeHtml(bytes) {
  const start = String.fromCharCode(...bytes.subarray(0, 64)).trimStart().toLowerCase();
  return start.startsWith("<!doctype") || start.startsWith("<html");
}

/** @param {string} url @param {Response} response */
function html(url, response) {
  const from = response.redirected ? ` (redirected to ${response.url})` : "";
  return new DownloadError(
    "html-instead",
    `${url}${from}: the server answered with a page of HTML instead of the file: is it deployed there, and does the server answer ` +
      "unknown paths with a start or login page?",
    { details: { url, status: response.status } },
  );
}

/** @param {string} url @param {Response} response */
function httpError(url, response) {
  const passing = PASSING.has(response.status);
  const after = response.headers.get("retry-after");
  const retryAfterMs = after !== null && /^\d+$/.test(after) ? Number(after) * 1000 : 0;
  const what = response.status === 404 ? "is the whole folder that tvlmc wrote deployed there?" : "the server refused it";
  return new DownloadError("http-status", `${url}: status ${response.status}${response.statusText ? ` ${response.statusText}` : ""}: ${what}`, {
    details: { url, status: response.status, passing, retryAfterMs },
  });
}

/** @param {string} url @param {number | string} found @param {number} expected */
function wrongLength(url, found, expected) {
  return new DownloadError(
    "wrong-length",
    `${url}: ${found} bytes where ${expected} were expected: a file of another version, or cut off while it was deployed? Deploy the whole folder again`,
    { details: { url, found, expected } },
  );
}

/** @param {string} url @param {number} found @param {number} expected */
function truncated(url, found, expected) {
  return new DownloadError("truncated", `${url}: the connection ended after ${found} of ${expected} bytes`, {
    details: { url, found, expected, passing: true },
  });
}

/** Whether another attempt may go better. @param {unknown} error */
function mayPass(error) {
  return error instanceof DownloadError ? error.details.passing === true : !(error instanceof RangeError);
}

/** @param {string} url @param {unknown} cause */
function noFile(url, cause) {
  return new DownloadError("no-file", `${url}: ${/** @type {Error} */ (cause).message}`, { cause, details: { url } });
}

/**
 * What to say after the last attempt.
 *
 * @param {unknown} error
 * @param {string} url
 * @param {number} at
 * @param {number | null} bytes
 */
function finalError(error, url, at, bytes) {
  if (error instanceof DownloadError) return error;
  if (isAbort(error)) return error;
  const here = /** @type {{ location?: Location }} */ (globalThis).location?.origin;
  const cross = !isNode && here !== undefined && new URL(url).origin !== here;
  const done = bytes === null || at === 0 ? "" : ` after ${at} of ${bytes} bytes, which are kept`;
  const why = cross
    ? "the network is down, or the server does not allow this page's origin: it has to send `Access-Control-Allow-Origin` (and `Cross-Origin-Resource-Policy: cross-origin` for isolated pages)"
    : "the network is down, or the server cannot be reached";
  return new DownloadError("network", `${url}: failed${done}: ${why}`, { cause: error, details: { url, found: at } });
}

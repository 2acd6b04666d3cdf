/**
 * A static server that misbehaves on demand.
 */

import { createReadStream, existsSync, readFileSync, statSync } from "node:fs";
import { createServer } from "node:http";
import { extname, join, normalize } from "node:path";
import { gzipSync } from "node:zlib";

const TYPES = /** @type {Record<string, string>} */ ({
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript",
  ".mjs": "text/javascript",
  ".json": "application/json",
  ".css": "text/css",
  ".wasm": "application/wasm",
  ".bin": "application/octet-stream",
  ".png": "image/png",
  ".jpg": "image/jpeg",
  ".webmanifest": "application/manifest+json",
  ".svg": "image/svg+xml",
});

/**
 * @typedef {import("node:http").IncomingMessage} Request
 * @typedef {import("node:http").ServerResponse} Response
 * @typedef {(request: Request, response: Response, file: () => Buffer, next: () => void) => void} Handler
 */

/**
 * @param {string} root
 * @param {{ headers?: Record<string, string> }} [options]
 */
export async function serve(root, { headers = {} } = {}) {
  /** Requests so far. @type {{ path: string, query: string, range: string | undefined }[]} */
  const log = [];
  /** By a part of the path. @type {Map<string, Handler>} */
  const handlers = new Map();
  const server = createServer((request, response) => {
    const url = new URL(request.url ?? "/", "http://x");
    let path = normalize(decodeURIComponent(url.pathname));
    if (path.endsWith("/")) path += "index.html";
    log.push({ path, query: url.search, range: request.headers.range });
    const at = join(root, path);
    const next = () => {
      for (const [name, value] of Object.entries(headers)) response.setHeader(name, value);
      plain(request, response, at);
    };
    for (const [part, handler] of handlers) {
      if (path.includes(part)) return handler(request, response, () => readFileSync(at), next);
    }
    next();
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", () => resolve(undefined)));
  const { port } = /** @type {import("node:net").AddressInfo} */ (server.address());
  return {
    url: `http://127.0.0.1:${port}/`,
    port,
    log,
    /** @param {string} part @param {Handler} handler */
    on: (part, handler) => handlers.set(part, handler),
    /** @param {string} part */
    off: (part) => handlers.delete(part),
    /** Requests of a path. @param {string} part */
    asked: (part) => log.filter((entry) => entry.path.includes(part)),
    /** @param {Record<string, string>} more */
    setHeaders: (more) => Object.assign(headers, more),
    close: () => {
      server.closeAllConnections();
      return new Promise((resolve) => server.close(resolve));
    },
  };
}

/** @param {Request} request @param {Response} response @param {string} at */
function plain(request, response, at) {
  if (!existsSync(at) || !statSync(at).isFile()) {
    response.writeHead(404, { "content-type": "text/plain" });
    response.end("not found");
    return;
  }
  const { size } = statSync(at);
  response.setHeader("content-type", TYPES[extname(at)] ?? "application/octet-stream");
  response.setHeader("cache-control", "no-cache");
  const range = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? "");
  if (!range) {
    response.writeHead(200, { "content-length": size });
    createReadStream(at).pipe(response);
    return;
  }
  const start = Number(range[1]);
  const end = range[2] === "" ? size - 1 : Math.min(Number(range[2]), size - 1);
  if (start >= size) {
    response.writeHead(416, { "content-range": `bytes */${size}` });
    response.end();
    return;
  }
  response.writeHead(206, { "content-range": `bytes ${start}-${end}/${size}`, "content-length": end - start + 1 });
  createReadStream(at, { start, end }).pipe(response);
}

/** A start page instead of a file, with status 200. @type {Handler} */
export const htmlInstead = (_, response) => {
  response.writeHead(200, { "content-type": "text/html" });
  response.end("<!doctype html><title>Welcome</title>");
};

/** Sends `bytes` of the body, then breaks the connection; `times` times. @param {number} bytes @param {number} times @returns {Handler} */
export const breakAfter = (bytes, times) => (request, response, file, next) => {
  if (times-- <= 0) return next();
  const start = Number(/^bytes=(\d+)-/.exec(request.headers.range ?? "")?.[1] ?? 0);
  const body = file();
  response.writeHead(start ? 206 : 200, {
    "content-length": body.length - start,
    ...(start ? { "content-range": `bytes ${start}-${body.length - 1}/${body.length}` } : {}),
  });
  response.write(body.subarray(start, start + bytes), () => setTimeout(() => response.destroy(), 20));
};

/** The body, compressed. @type {Handler} */
export const gzipped = (_, response, file) => {
  const body = gzipSync(file());
  response.writeHead(200, { "content-encoding": "gzip", "content-length": body.length, "content-type": "application/octet-stream" });
  response.end(body);
};

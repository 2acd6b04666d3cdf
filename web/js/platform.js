/**
 * What differs between browsers and Node: files, workers, turns of the event loop.
 *
 * Node's modules are imported where they are used and in a way that bundlers leave alone, so that a page never asks for them.
 */

import { abortError } from "./errors.js";

const process = /** @type {{ versions?: { node?: string }, execArgv?: string[] } | undefined} */ (/** @type {any} */ (globalThis).process);

/** True in Node, also in its workers; false in browsers and in Electron's pages. */
export const isNode = typeof process?.versions?.node === "string" && !("document" in globalThis) && !("importScripts" in globalThis);

/** A module of Node's, by its name without "node:". @param {string} name @returns {Promise<any>} */
export function nodeModule(name) {
  return import(/* @vite-ignore */ /* webpackIgnore: true */ `node:${name}`);
}

/**
 * A worker as this package uses it.
 *
 * @typedef {object} Port
 * @property {(message: unknown, transfer?: Transferable[]) => void} post
 * @property {(listener: (message: any) => void) => void} onMessage
 * @property {(listener: (reason: string) => void) => void} onError
 * @property {() => void | Promise<unknown>} terminate
 * @property {(alive: boolean) => void} keepAlive whether Node's process waits for it
 */

/**
 * @param {Worker} worker
 * @returns {Port}
 */
export function webPort(worker) {
  return {
    post: (message, transfer = []) => worker.postMessage(message, transfer),
    onMessage: (listener) => worker.addEventListener("message", (event) => listener(event.data)),
    onError: (listener) => {
      worker.addEventListener("error", (event) => listener(event.message || "its script did not load"));
      worker.addEventListener("messageerror", () => listener("a message could not be read"));
    },
    terminate: () => worker.terminate(),
    keepAlive: () => {},
  };
}

/**
 * @param {URL} url
 * @returns {Promise<Port>}
 */
export async function nodePort(url) {
  const { Worker } = await nodeModule("worker_threads");
  // What was given for a script on the command line does not fit a file.
  const foreign = process?.execArgv?.some((flag) => flag.startsWith("--input-type"));
  const worker = new Worker(url, foreign ? { execArgv: [] } : {});
  return {
    post: (message, transfer = []) => worker.postMessage(message, transfer),
    onMessage: (listener) => worker.on("message", listener),
    onError: (listener) => {
      worker.on("error", (/** @type {Error} */ error) => listener(error.message));
      worker.on("messageerror", () => listener("a message could not be read"));
      worker.on("exit", (/** @type {number} */ status) => listener(`it ended with status ${status}`));
    },
    terminate: () => worker.terminate(),
    keepAlive: (alive) => (alive ? worker.ref() : worker.unref()),
  };
}

/**
 * The other side of a worker: what its script listens to and answers with.
 *
 * @returns {Promise<{ post: (message: unknown, transfer?: Transferable[]) => void, onMessage: (listener: (message: any) => void) => void, close: () => void }>}
 */
export async function parentPort() {
  const { parentPort: port } = await nodeModule("worker_threads");
  return {
    post: (message, transfer = []) => port.postMessage(message, transfer),
    onMessage: (listener) => port.on("message", listener),
    close: () => port.close(),
  };
}

/**
 * A turn of the event loop, so that messages, downloads and frames get theirs. By a message: timers wait for milliseconds, and what
 * `scheduler.yield` continues goes before frames, of which ten a second are left then.
 *
 * @returns {Promise<void>}
 */
export function turn() {
  return new Promise((resolve) => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => {
      port1.close();
      resolve();
    };
    port2.postMessage(0);
  });
}

/**
 * Waits, unless the signal is aborted.
 *
 * @param {number} ms
 * @param {AbortSignal} [signal]
 * @returns {Promise<void>}
 */
export function sleep(ms, signal) {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(signal.reason);
    const stop = () => {
      clearTimeout(timer);
      reject(signal?.reason ?? abortError());
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", stop);
      resolve();
    }, ms);
    signal?.addEventListener("abort", stop, { once: true });
  });
}

/**
 * The script of all workers: the one that a model lives in, and the members of its team of threads, which it starts from
 * itself. What it is to be, its first message says.
 */

import { serve as serveMember } from "./js/engine.js";
import { toPlain, UnsupportedError } from "./js/errors.js";
import { Host } from "./js/host.js";
import { isNode, nodePort, parentPort, webPort } from "./js/platform.js";

/** @typedef {{ post: (message: unknown) => void, onMessage: (listener: (message: any) => void) => void, close: () => void }} Parent */

/** @param {Parent} parent */
function serve(parent) {
  const host = new Host({ worker: true, spawn });
  /** @type {Map<number, AbortController>} */
  const running = new Map();
  parent.onMessage(async (message) => {
    if (message.type === "member") {
      parent.post({ type: "member" });
      await serveMember(message.number, message.count, message.init);
      parent.close();
      return;
    }
    const { id } = message;
    if (message.type === "cancel") {
      running.get(id)?.abort();
      return;
    }
    const abort = new AbortController();
    running.set(id, abort);
    try {
      const emit = (/** @type {unknown} */ event) => parent.post({ type: "event", id, event });
      parent.post({ type: "result", id, value: await host.call(message.operation, message.args, emit, abort.signal) });
    } catch (error) {
      parent.post({ type: "error", id, error: toPlain(error) });
    } finally {
      running.delete(id);
    }
  });
  parent.post({ type: "hello" });
}

/**
 * Another member of the team.
 *
 * @param {number} number
 * @param {number} count
 * @param {unknown} init
 * @returns {Promise<{ terminate: () => void }>}
 */
async function spawn(number, count, init) {
  // By its own address: bundlers give the script another name, and refuse one that names itself.
  const port = isNode
    ? await nodePort(new URL(import.meta.url))
    : webPort(new Worker(self.location.href, { type: isClassic() ? "classic" : "module", name: `tvlmc ${number}` }));
  try {
    await new Promise((resolve, reject) => {
      port.onMessage((message) => message.type === "member" && resolve(undefined));
      port.onError((reason) => reject(new Error(reason)));
      port.post({ type: "member", number, count, init });
    });
  } catch (cause) {
    port.terminate();
    const reason = /** @type {Error} */ (cause).message;
    throw new UnsupportedError("no-threads", `thread ${number} of ${count} could not be started: ${reason}; \`threads: 1\` does without`, { cause });
  }
  // It goes with the model's worker; alone it keeps no process alive.
  port.keepAlive(false);
  return { terminate: () => void port.terminate() };
}

/** Whether a bundler has made a classic script of this: only those can import in the old way, even if nothing. */
function isClassic() {
  try {
    /** @type {any} */ (self).importScripts();
    return true;
  } catch {
    return false;
  }
}

if (isNode) {
  parentPort().then(serve);
} else {
  serve({
    post: (message) => self.postMessage(message),
    onMessage: (listener) => self.addEventListener("message", (event) => listener(event.data)),
    close: () => self.close(),
  });
}

/**
 * Optional: lets a page start without a network, and isolates it where the host cannot send headers.
 *
 * The page and the code are kept here, the weights by the loader. With a network its answers win, so a new deployment is seen at
 * once. Registered as `service-worker.js?isolate`, it adds the two headers that threads need to everything of its origin.
 */

/// <reference lib="webworker" />

const scope = /** @type {ServiceWorkerGlobalScope} */ (/** @type {unknown} */ (self));
const CACHE = "tvlmc-page";
const ISOLATE = new URL(scope.location.href).searchParams.has("isolate");

/** What the page needs to start, but for the modules that these import and those that model.json names. */
const FILES = ["index.js", "worker.js", "model.json", "demo/", "demo/index.html", "demo/demo.css", "demo/demo.js", "demo/icon.svg", "demo/app.webmanifest"];

scope.addEventListener("install", (event) => {
  event.waitUntil(fill().then(() => scope.skipWaiting()));
});

scope.addEventListener("activate", (event) => {
  event.waitUntil(scope.clients.claim());
});

scope.addEventListener("fetch", (event) => {
  const { request } = event;
  const url = new URL(request.url);
  if (request.method !== "GET" || url.origin !== scope.location.origin || !url.href.startsWith(scope.registration.scope)) return;
  // The loader resumes and keeps weights itself.
  if (url.pathname.includes("/weights/") || request.headers.has("range")) return;
  event.respondWith(answer(request));
});

/** All that the page needs, as it is now. */
async function fill() {
  const cache = await caches.open(CACHE);
  const base = scope.registration.scope;
  /** @type {Set<string>} */
  const known = new Set();
  const keep = async (/** @type {string} */ address) => {
    if (known.has(address)) return;
    known.add(address);
    const response = await fetch(address, { cache: "no-cache" });
    // A folder without a start page is none of a host's duties.
    if (!response.ok && address.endsWith("/")) return;
    if (!response.ok) throw new Error(`${address}: status ${response.status}`);
    await cache.put(key(response.url || address), clean(response.clone()));
    await Promise.all((await needed(address, response)).map((name) => keep(new URL(name, address.endsWith(".js") ? address : base).href)));
  };
  await Promise.all(FILES.map((name) => keep(new URL(name, base).href)));
}

/** What a file needs: imports of a module, code of the model. @param {string} address @param {Response} response */
async function needed(address, response) {
  if (address.endsWith(".js")) {
    return [...(await response.text()).matchAll(/(?:\bfrom|\bimport\(?)\s*"(\.[^"]+)"/g)].map((match) => match[1]);
  }
  if (!address.endsWith("/model.json")) return [];
  const { modules } = await response.json();
  return Object.values(modules).flatMap((/** @type {Record<string, string>} */ each) => Object.values(each));
}

/** @param {Request} request */
async function answer(request) {
  const cache = await caches.open(CACHE);
  try {
    const response = await fetch(request);
    if (response.ok && response.type === "basic" && response.status === 200) {
      // Without room the page is shown all the same.
      cache.put(key(request.url), clean(response.clone())).catch(() => {});
    }
    return isolated(response);
  } catch (error) {
    const kept = (await cache.match(key(request.url))) ?? (request.mode === "navigate" ? await cache.match(key(`${request.url}index.html`)) : undefined);
    if (!kept) throw error;
    return isolated(kept);
  }
}

/** Versions in addresses pass by other caches; here there is one of each. @param {string} address */
function key(address) {
  const url = new URL(address);
  url.search = "";
  url.hash = "";
  return url.href;
}

/** A response that may answer a navigation: one that was not redirected. @param {Response} response */
function clean(response) {
  return response.redirected ? new Response(response.body, { headers: response.headers }) : response;
}

/** @param {Response} response */
function isolated(response) {
  if (!ISOLATE || response.type === "opaqueredirect" || response.status === 0) return response;
  const headers = new Headers(response.headers);
  headers.set("cross-origin-opener-policy", "same-origin");
  headers.set("cross-origin-embedder-policy", "require-corp");
  headers.set("cross-origin-resource-policy", "same-origin");
  const { status, statusText } = response;
  return new Response([204, 205, 304].includes(status) ? null : response.body, { status, statusText, headers });
}

/**
 * Registers the service worker that lets the page start without a network and, if asked, isolates it.
 */

/**
 * @param {{ isolate?: boolean }} [options] `isolate` stays switched on for later visits
 */
export async function offline({ isolate = false } = {}) {
  const container = navigator.serviceWorker;
  if (!container) throw new Error("this browser, or a page without https, has no service workers");
  const scope = new URL("../", import.meta.url);
  const now = await container.getRegistration(scope);
  const script = new URL("../service-worker.js", import.meta.url);
  const on = isolate || new URL(now?.active?.scriptURL ?? script).searchParams.has("isolate");
  if (on) script.searchParams.set("isolate", "");
  const registration = await container.register(script, { scope: scope.pathname });
  // Ready for a visit without a network once this has ended.
  await active(registration);
}

/** @param {ServiceWorkerRegistration} registration */
function active(registration) {
  const worker = registration.installing ?? registration.waiting;
  if (!worker) return undefined;
  return new Promise((resolve, reject) => {
    const look = () => {
      if (worker.state === "activated") resolve(undefined);
      if (worker.state === "redundant") reject(new Error("the service worker could not be installed"));
    };
    worker.addEventListener("statechange", look);
    look();
  });
}

/** ONNX Runtime Web, as its users run it: in a worker, all graph optimizations on. */

/** @param {object} task */
export function run(task) {
  return new Promise((resolve) => {
    const worker = new Worker("/sides/ort-worker.js", { type: "module" });
    worker.onmessage = ({ data }) => resolve(data);
    worker.onerror = ({ message }) => resolve({ error: message });
    worker.postMessage(task);
  });
}

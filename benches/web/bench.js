/**
 * The emitted web package and its peers in headless Chromium, the same work in turn: `cargo xtask bench-web` prepares everything and calls this.
 *
 *     node bench.js --package DIR --peers DIR --models DIR [--threads 1,2] [--rounds N] [--runs N] [--only SIDE,SIDE] [--json FILE] [--markdown FILE]
 *
 * `--package` is what `tvlmc compile --target wasm32-unknown-unknown` wrote; `--peers` has node_modules with onnxruntime-web and @wllama/wllama; `--models`
 * holds vision-int8.onnx, decoder-int8.onnx, decoder-q4_0.gguf and decoder-q8_0.gguf. `--tools` is not needed any more.
 *
 * Every measurement is a browser of its own, which nothing is attached to: developer tools, and so what drives a browser through them, keep up to 100 MB of what
 * a page downloads in its renderer, and slow the download. Phases: the image tower at 1024 x 1024, 290 positions of a prompt, 20 tokens behind them.
 *
 * Memory is the renderer process's: `peakBytes` the most that was resident and `nowBytes` what is at the end, files in its memory included, of which some
 * 110 MB are Chromium's program, which all of its processes share; `peakPrivateBytes` and `nowPrivateBytes` without files, looked at every 20 ms.
 */

import { spawn } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { chromium } from "../../web/test/support/tools.js";
import { serve } from "../../web/test/support/server.js";
import { markdown } from "./table.js";

const { values } = parseArgs({
  options: {
    package: { type: "string" },
    tools: { type: "string" },
    peers: { type: "string" },
    models: { type: "string" },
    threads: { type: "string", default: "1,2" },
    rounds: { type: "string", default: "1" },
    runs: { type: "string", default: "3" },
    only: { type: "string" },
    json: { type: "string" },
    markdown: { type: "string" },
  },
});

/** @param {"package" | "peers" | "models"} name */
function folder(name) {
  const given = values[name];
  if (given === undefined) throw new Error(`--${name}: a folder is expected`);
  return resolve(given);
}

const [ours, peers, models] = [folder("package"), folder("peers"), folder("models")];
const [rounds, runs] = [Number(values.rounds), Number(values.runs)];
const program = chromium();
if (!program) throw new Error("no chromium in PATH (Debian: apt-get install chromium); TVLMC_CHROMIUM names another");

/** What a side is asked to do in its page: a module of `sides/` with a function `run`, and files by their addresses. */
const SIDES = [
  { name: "tvlmc", module: "ours.js", task: { side: 1024 } },
  // A phone's side: for its memory, which is a figure of its own.
  { name: "tvlmc at 512", module: "ours.js", task: { side: 512 } },
  { name: "onnxruntime-int8, tower", module: "ort.js", task: { phase: "vision", model: "/models/vision-int8.onnx" } },
  { name: "onnxruntime-int8, decoder", module: "ort.js", task: { phase: "decoder", model: "/models/decoder-int8.onnx" } },
  { name: "wllama-q4_0", module: "wllama.js", task: { model: "/models/decoder-q4_0.gguf" } },
  { name: "wllama-q8_0", module: "wllama.js", task: { model: "/models/decoder-q8_0.gguf" } },
];

/** What the server's folders lead to. */
const ROOTS = {
  package: ours,
  models,
  sides: join(import.meta.dirname, "sides"),
  ort: join(peers, "node_modules/onnxruntime-web/dist"),
  wllama: join(peers, "node_modules/@wllama/wllama/esm"),
};

/** Between two looks at the memory, and between two looks for processes. */
const [LOOK_MS, FIND_MS] = [20, 500];

/** Bytes by their names in a process's status; 0 where it has ended. @param {string} pid @param {string[]} keys */
function bytesOf(pid, keys) {
  try {
    const status = readFileSync(`/proc/${pid}/status`, "utf8");
    return keys.map((key) => 1024 * Number(new RegExp(`^${key}:\\s+(\\d+)`, "m").exec(status)?.[1] ?? 0));
  } catch {
    return keys.map(() => 0);
  }
}

/** The renderers among a process's descendants. @param {number} ancestor */
function renderers(ancestor) {
  /** @type {Map<string, string>} */
  const parents = new Map();
  for (const pid of readdirSync("/proc").filter((name) => /^\d+$/.test(name))) {
    try {
      parents.set(pid, /^PPid:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1] ?? "");
    } catch {
      // It has ended.
    }
  }
  /** @param {string | undefined} pid @returns {boolean} */
  const below = (pid) => pid !== undefined && (pid === String(ancestor) || below(parents.get(pid)));
  return [...parents.keys()].filter((pid) => {
    try {
      return below(pid) && readFileSync(`/proc/${pid}/cmdline`, "utf8").includes("--type=renderer");
    } catch {
      return false;
    }
  });
}

/** Looks at the memory of a browser's renderers until it is asked for that of the largest. @param {number} browser */
function watch(browser) {
  /** The most private memory of each. @type {Map<string, number>} */
  const most = new Map();
  const look = () => {
    for (const [pid, before] of most) {
      const [anonymous, shared] = bytesOf(pid, ["RssAnon", "RssShmem"]);
      most.set(pid, Math.max(before, anonymous + shared));
    }
  };
  const find = () => {
    for (const pid of renderers(browser)) most.set(pid, most.get(pid) ?? 0);
  };
  const timers = [setInterval(look, LOOK_MS), setInterval(find, FIND_MS)];
  return () => {
    for (const timer of timers) clearInterval(timer);
    find();
    look();
    const all = [...most].map(([pid, peakPrivateBytes]) => {
      const [peakBytes, nowBytes, anonymous, shared] = bytesOf(pid, ["VmHWM", "VmRSS", "RssAnon", "RssShmem"]);
      return { peakBytes, nowBytes, peakPrivateBytes, nowPrivateBytes: anonymous + shared };
    });
    return all.sort((a, b) => b.peakBytes - a.peakBytes)[0];
  };
}

/** @param {string} module @param {object} task */
async function inBrowser(module, task) {
  const profile = mkdtempSync(join(tmpdir(), "tvlmc-bench-"));
  const address = `${server.url}sides/page.html#${encodeURIComponent(JSON.stringify({ module: `/sides/${module}`, task }))}`;
  const flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-component-update"];
  const browser = spawn(/** @type {string} */ (program), [...flags, `--user-data-dir=${profile}`, address], { stdio: "ignore" });
  const ended = new Promise((resolve) => browser.once("exit", resolve));
  const memory = watch(browser.pid ?? 0);
  try {
    /** @type {any} */
    const found = await new Promise((resolve, reject) => {
      browser.once("error", reject);
      ended.then((status) => reject(new Error(`the browser ended with status ${status} before the page was done`)));
      server.on("/found", (request, response) => {
        /** @type {Buffer[]} */
        const parts = [];
        request.on("data", (part) => parts.push(part));
        request.on("end", () => {
          // The page waits for the answer, and its memory is as it was left.
          resolve({ ...JSON.parse(Buffer.concat(parts).toString()), ...memory() });
          response.end();
        });
      });
    });
    if (found.error) throw new Error(found.error);
    return found;
  } finally {
    memory();
    browser.kill();
    await ended;
    try {
      // Processes of the browser may outlive it by a moment, and write.
      rmSync(profile, { recursive: true, force: true, maxRetries: 10, retryDelay: 200 });
    } catch (error) {
      console.error(`${profile} is left: ${error}`);
    }
  }
}

const root = mkdtempSync(join(tmpdir(), "tvlmc-bench-"));
for (const [name, place] of Object.entries(ROOTS)) symlinkSync(place, join(root, name));
const server = await serve(root, {
  headers: { "cross-origin-opener-policy": "same-origin", "cross-origin-embedder-policy": "require-corp", "cross-origin-resource-policy": "same-origin" },
});
/** @type {any[]} */
const figures = [];
try {
  for (let round = 1; round <= rounds; round++) {
    for (const threads of values.threads.split(",").map(Number)) {
      for (const side of SIDES.filter((each) => !values.only || values.only.split(",").some((word) => each.name.startsWith(word)))) {
        console.error(`== round ${round} of ${rounds}, ${threads} threads: ${side.name}`);
        const found = await inBrowser(side.module, { ...side.task, threads, runs });
        console.error(JSON.stringify(found));
        const { peakBytes, peakPrivateBytes, nowBytes, nowPrivateBytes, memoryBytes } = found;
        const at512 = { peakBytes512: peakBytes, peakPrivateBytes512: peakPrivateBytes, nowBytes512: nowBytes, nowPrivateBytes512: nowPrivateBytes };
        if (side.name === "tvlmc at 512") figures.push({ round, threads, side: "tvlmc", ...at512, memoryBytes512: memoryBytes });
        else figures.push({ round, threads, side: side.name, ...found });
      }
    }
  }
} finally {
  await server.close();
  rmSync(root, { recursive: true, force: true });
}
const text = markdown(figures);
console.log(text);
if (values.json) writeFileSync(values.json, `${JSON.stringify({ package: basename(ours), chromium: program, figures }, null, 2)}\n`);
if (values.markdown) writeFileSync(values.markdown, `${text}\n`);

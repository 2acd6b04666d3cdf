/**
 * The emitted web package and its peers in headless Chromium, the same work in turn: `cargo xtask bench-web` prepares everything and calls this.
 *
 *     node bench.js --package DIR --tools DIR --peers DIR --models DIR [--threads 1,2] [--rounds N] [--runs N] [--only SIDE,SIDE] [--json FILE] [--markdown FILE]
 *
 * `--package` is what `tvlmc compile --target wasm32-unknown-unknown` wrote; `--tools` has node_modules with playwright-core, `--peers` with
 * onnxruntime-web and @wllama/wllama; `--models` holds vision-int8.onnx, decoder-int8.onnx, decoder-q4_0.gguf and decoder-q8_0.gguf.
 *
 * Every measurement is a browser of its own. Phases: the image tower at 1024 x 1024, 290 positions of a prompt, 20 tokens behind them. Memory is the most that the
 * renderer process had resident, files in its memory included.
 */

import { mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
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

/** @param {"package" | "tools" | "peers" | "models"} name */
function folder(name) {
  const given = values[name];
  if (given === undefined) throw new Error(`--${name}: a folder is expected`);
  return resolve(given);
}

const [ours, tools, peers, models] = [folder("package"), folder("tools"), folder("peers"), folder("models")];
const [rounds, runs] = [Number(values.rounds), Number(values.runs)];
const { chromium: browsers } = createRequire(join(tools, "x.js"))("playwright-core");
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

/** The most memory that a renderer below this process had resident, and how much it has now. */
function resident() {
  let [peakBytes, nowBytes] = [0, 0];
  for (const pid of readdirSync("/proc").filter((name) => /^\d+$/.test(name))) {
    try {
      if (!readFileSync(`/proc/${pid}/cmdline`, "utf8").includes("--type=renderer")) continue;
      const status = readFileSync(`/proc/${pid}/status`, "utf8");
      const bytes = (/** @type {string} */ key) => 1024 * Number(new RegExp(`${key}:\\s+(\\d+)`).exec(status)?.[1] ?? 0);
      if (bytes("VmHWM") > peakBytes) [peakBytes, nowBytes] = [bytes("VmHWM"), bytes("VmRSS")];
    } catch {
      // It has ended.
    }
  }
  return { peakBytes, nowBytes };
}

/** @param {string} url @param {string} module @param {object} task */
async function inBrowser(url, module, task) {
  const profile = mkdtempSync(join(tmpdir(), "tvlmc-bench-"));
  const context = await browsers.launchPersistentContext(profile, { executablePath: program, headless: true, args: ["--no-sandbox", "--disable-gpu"] });
  try {
    const page = await context.newPage();
    page.setDefaultTimeout(0);
    page.on("pageerror", (/** @type {Error} */ error) => console.error(error.message));
    await page.goto(`${url}sides/blank.html`);
    const found = await page.evaluate(
      async (/** @type {any} */ [address, given]) => {
        try {
          return await (await import(address)).run(given);
        } catch (error) {
          return { error: `${error} ${/** @type {any} */ (error)?.stack ?? ""}` };
        }
      },
      [`/sides/${module}`, task],
    );
    if (found.error) throw new Error(found.error);
    return { ...found, ...resident() };
  } finally {
    await context.close();
    rmSync(profile, { recursive: true, force: true });
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
        const found = await inBrowser(server.url, side.module, { ...side.task, threads, runs });
        console.error(JSON.stringify(found));
        if (side.name === "tvlmc at 512") figures.push({ round, threads, side: "tvlmc", peakBytes512: found.peakBytes, memoryBytes512: found.memoryBytes });
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

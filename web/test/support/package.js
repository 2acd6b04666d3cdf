/**
 * A package as the compiler would write it, in a folder of its own: the files of `web/`, a stand-in for the engine, small modules, and
 * a weight file in shards.
 */

import { createHash } from "node:crypto";
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

export const WEB = fileURLToPath(new URL("../../", import.meta.url));

/** An empty module. */
const EMPTY = new Uint8Array([0, 0x61, 0x73, 0x6d, 1, 0, 0, 0]);

export const digestOf = (/** @type {Uint8Array} */ bytes) => createHash("sha256").update(bytes).digest("hex");

/**
 * A weight file of which every byte matters.
 *
 * @param {number} bytes
 * @param {number} seed
 */
export function weights(bytes, seed = 1) {
  const file = new Uint8Array(bytes);
  let state = seed;
  for (let i = 0; i < bytes; i++) {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0;
    file[i] = state >>> 16;
  }
  file.set([0x46, 0x41, 0x4b, 0x45]);
  return file;
}

/** What the stand-in answers to "sum". @param {Uint8Array} file */
export function sumOf(file) {
  let sum = 0;
  for (const [i, byte] of file.entries()) sum = (sum + byte * ((i % 251) + 1)) % 1000003;
  return `sum=${sum}`;
}

/**
 * @param {{ shardBytes?: number[], seed?: number, name?: string, variants?: string[], folder?: string }} [options]
 */
export function makePackage({ shardBytes = [40_000, 90_000, 90_000, 30_001], seed = 1, name = "fake", variants = ["simd128", "relaxed", "threads"], folder } = {}) {
  const root = folder ?? mkdtempSync(join(tmpdir(), "tvlmc-web-"));
  if (!folder) {
    cpSync(WEB, root, { recursive: true, filter: (from) => !/[\\/](test|node_modules)$|[\\/]\.[^\\/]*$/.test(from) });
    cpSync(join(WEB, "test/support/engine.js"), join(root, "js/engine.js"));
    fill(root, "package.json", name);
    fill(root, "README.md", name);
    fill(root, "demo/index.html", name);
  }
  const file = weights(shardBytes.reduce((sum, bytes) => sum + bytes, 0), seed);
  const put = (/** @type {string} */ path, /** @type {Uint8Array | string} */ content) => {
    mkdirSync(dirname(join(root, path)), { recursive: true });
    writeFileSync(join(root, path), content);
  };
  let at = 0;
  const shards = shardBytes.map((bytes, i) => {
    const data = file.subarray(at, at + bytes);
    at += bytes;
    const path = `weights/weights-${String(i).padStart(5, "0")}.bin`;
    put(path, data);
    return { name: path, bytes, sha256: digestOf(data) };
  });
  const modules = Object.fromEntries(
    variants.map((variant) => [variant, { kernels: `wasm/kernels-${variant}.wasm`, runtime: variant === "threads" ? "wasm/runtime-shared.wasm" : "wasm/runtime.wasm" }]),
  );
  for (const { kernels, runtime } of Object.values(modules)) {
    put(kernels, EMPTY);
    put(runtime, EMPTY);
  }
  const manifest = {
    format: 1,
    name,
    tool_version: "0.0.0",
    digest: digestOf(file),
    sides: [
      { side: 256, tokens: 16, phase: 0, peak_bytes: 100 << 20 },
      { side: 512, tokens: 64, phase: 1, peak_bytes: 200 << 20 },
      { side: 1024, tokens: 256, phase: 2, peak_bytes: 1000 << 20 },
    ],
    kv: "int8",
    max_context: 300,
    threads_default: 2,
    phases: [],
    embed_weights_end: 0,
    arena_bytes: 1000,
    scratch_bytes_per_thread: 1 << 20,
    file: { bytes: file.length, header_end: 1000, sha256: digestOf(file) },
    shards,
    modules,
  };
  put("model.json", JSON.stringify(manifest));
  const names = ["model.json", ...new Set(Object.values(modules).flatMap((each) => [each.runtime, each.kernels])), ...shards.map((shard) => shard.name)];
  const source = readFileSync(join(root, "js/assets.js"), "utf8");
  const lines = names.map((each) => `  ${JSON.stringify(each)}: new URL(${JSON.stringify(`../${each}`)}, import.meta.url),\n`).join("");
  put("js/assets.js", source.replace(/(\/\/ tvlmc:assets begin\n)[^]*?(\s*\/\/ tvlmc:assets end)/, (_, begin, end) => begin + lines.trimEnd() + end));
  return { root, manifest, file, remove: () => rmSync(root, { recursive: true, force: true }) };
}

/** Placeholders as the compiler fills them. @param {string} root @param {string} path @param {string} name */
function fill(root, path, name) {
  const values = /** @type {Record<string, string>} */ ({
    NPM_NAME: name,
    MODEL_NAME: name,
    TOOL_VERSION: "0.0.0",
    LICENSE: "MIT",
    DIGEST: "00",
    SIZES_TABLE: "| code | 0 |",
    SIDES_TABLE: "| 256 | 16 | 100 MB |",
    WEIGHTS_MB: "0.3",
    TOTAL_MB: "0.4",
    CODE_KB: "0",
    SHARDS: "4",
    MAX_CONTEXT: "300",
    LICENSE_NOTE: "None.",
  });
  const text = readFileSync(join(root, path), "utf8").replace(/\{\{([A-Z_]+)\}\}/g, (whole, key) => {
    if (!(key in values)) throw new Error(`${path}: placeholder ${whole} is not agreed on`);
    return values[key];
  });
  writeFileSync(join(root, path), text);
}

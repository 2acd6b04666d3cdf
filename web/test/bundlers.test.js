/** The packed package in projects of its users: plain Node, TypeScript, Vite's build. */

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test from "node:test";
import { makePackage, sumOf, WEB } from "./support/package.js";
import { serve } from "./support/server.js";
import { chromium, HOW, module, skipped, tool } from "./support/tools.js";

/** A project in which the package is installed from its tarball. @param {import("node:test").TestContext} t */
function project(t) {
  const made = makePackage();
  const root = mkdtempSync(join(tmpdir(), "tvlmc-user-"));
  t.after(() => {
    made.remove();
    rmSync(root, { recursive: true, force: true });
  });
  const npm = (/** @type {string[]} */ args, /** @type {string} */ cwd) => {
    const { status, stdout, stderr } = spawnSync("npm", args, { cwd, encoding: "utf8", env: { ...process.env, npm_config_cache: join(root, ".npm") } });
    assert.equal(status, 0, stderr);
    return stdout;
  };
  const [{ filename, files }] = JSON.parse(npm(["pack", "--json", "--offline", "--pack-destination", root], made.root));
  writeFileSync(join(root, "package.json"), JSON.stringify({ name: "user", private: true, type: "module" }));
  npm(["install", "--offline", "--no-audit", "--no-fund", join(root, filename)], root);
  return { ...made, root, files: files.map((/** @type {{ path: string }} */ each) => each.path), at: made.root };
}

test("npm pack holds all that was written, and works in plain Node", (t) => {
  if (spawnSync("npm", ["--version"]).status !== 0) return skipped("npm pack", "npm is not there");
  const { root, file, files, at } = project(t);
  const written = readdirSync(at, { recursive: true, encoding: "utf8" }).filter((each) => statSync(join(at, each)).isFile());
  assert.deepEqual([...files].sort(), written.map((each) => each.replaceAll("\\", "/")).sort());
  const script = `import { load } from "fake"; const model = await load(); console.log(await model.ask("sum")); await model.close();`;
  const { stdout, stderr } = spawnSync(process.execPath, ["--input-type=module", "-e", script], { cwd: root, encoding: "utf8" });
  assert.equal(stdout.trim(), sumOf(file), stderr);

  const typescript = tool("typescript");
  if (!typescript) return skipped("types of the packed package", `typescript is not there: ${HOW}`);
  cpSync(join(WEB, "test/types/usage.ts"), join(root, "usage.ts"));
  writeFileSync(join(root, "usage.ts"), readFileSync(join(root, "usage.ts"), "utf8").replace('"./index.js"', '"fake"'));
  for (const resolution of [["esnext", "bundler"], ["nodenext", "nodenext"]]) {
    const args = ["--noEmit", "--strict", "--target", "es2022", "--lib", "es2024,dom,dom.iterable,esnext.disposable", "--types", "", "--module", resolution[0], "--moduleResolution", resolution[1]];
    assert.equal(spawnSync(process.execPath, [join(typescript, "bin/tsc"), ...args, "usage.ts"], { cwd: root, encoding: "utf8" }).stdout, "");
  }
});

const PAGE = `<!doctype html><meta charset="utf-8"><title>user</title><link rel="icon" href="data:,"><body><script type="module" src="/main.js"></script>`;
const MAIN = `import { load } from "fake";
load({ threads: 2 }).then(async (model) => {
  const text = await model.ask("sum");
  await model.ready;
  document.body.dataset.said = text + " " + model.info.variant + " " + model.info.worker;
}).catch((error) => { document.body.dataset.said = error.name + ": " + error.message; });`;

/** @type {{ name: string, build: (root: string, folder: string) => string }[]} */
const BUNDLERS = [
  {
    name: "vite",
    build(root, folder) {
      const { status, stderr } = spawnSync(process.execPath, [join(folder, "bin/vite.js"), "build", "--logLevel", "error"], { cwd: root, encoding: "utf8" });
      assert.equal(status, 0, stderr);
      return join(root, "dist");
    },
  },
  {
    name: "webpack",
    build(root, folder) {
      const script = `import webpack from ${JSON.stringify(join(folder, "lib/index.js"))};
        webpack({ mode: "production", context: ${JSON.stringify(root)}, entry: "./main.js", output: { path: ${JSON.stringify(join(root, "out"))}, publicPath: "/", filename: "main.js" } },
          (error, stats) => { if (error || stats.hasErrors()) { console.error(error ?? stats.toString()); process.exit(1); } });`;
      const { status, stderr } = spawnSync(process.execPath, ["--input-type=module", "-e", script], { cwd: root, encoding: "utf8" });
      assert.equal(status, 0, stderr);
      writeFileSync(join(root, "out/index.html"), PAGE);
      return join(root, "out");
    },
  },
];

for (const { name, build } of BUNDLERS) {
  test(`${name}: a build without configuration carries worker, modules and weights along`, async (t) => {
    const folder = tool(name);
    const playwright = await module("playwright-core");
    const program = chromium();
    if (!folder) return skipped(`a build with ${name}`, `${name} is not there: ${HOW}`);
    if (!playwright || !program) return skipped(`a build with ${name}`, "no playwright-core, or no chromium");
    const { root, file } = project(t);
    writeFileSync(join(root, "index.html"), PAGE);
    writeFileSync(join(root, "main.js"), MAIN);
    mkdirSync(join(root, "node_modules"), { recursive: true });
    symlinkSync(folder, join(root, "node_modules", name));
    const out = build(root, folder);
    const browser = await playwright.chromium.launch({ executablePath: program, args: ["--no-sandbox", "--disable-gpu"] });
    t.after(() => browser.close());
    const plain = { "content-security-policy": "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; connect-src 'self'; worker-src 'self'; img-src data:" };
    const isolated = { "cross-origin-opener-policy": "same-origin", "cross-origin-embedder-policy": "require-corp" };
    for (const [headers, variant] of /** @type {const} */ ([[plain, "relaxed"], [{ ...plain, ...isolated }, "threads"]])) {
      const server = await serve(out, { headers });
      const page = await browser.newPage();
      await page.goto(server.url);
      await page.waitForFunction(() => document.body.dataset.said !== undefined);
      assert.equal(await page.evaluate(() => document.body.dataset.said), `${sumOf(file)} ${variant} true`);
      await page.close();
      await server.close();
    }
    // Each shard is there once.
    const sizes = readdirSync(out, { recursive: true, encoding: "utf8" }).filter((each) => each.endsWith(".bin"));
    assert.equal(sizes.length, 4, sizes.join());
  });
}

/** The package as a whole: its types, its list of files, what it promises about its own text. */

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { cpSync, existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import test from "node:test";
import { makePackage, WEB } from "./support/package.js";
import { HOW, skipped, tool } from "./support/tools.js";

/** Files of the package's source, but tests. @param {string} [under] @returns {string[]} */
function files(under = "") {
  return readdirSync(join(WEB, under), { withFileTypes: true })
    .filter((entry) => !entry.name.startsWith(".") && !["test", "node_modules", "package-lock.json"].includes(entry.name))
    .flatMap((entry) => (entry.isDirectory() ? files(`${under}${entry.name}/`) : [`${under}${entry.name}`]));
}

test("types: the code is clean under tsc --checkJs --strict, and so is a user's", (t) => {
  const typescript = tool("typescript");
  if (!typescript) return skipped("types of web/", `typescript is not there: ${HOW}`);
  const { root, remove } = makePackage();
  t.after(remove);
  cpSync(join(WEB, "test/types"), root, { recursive: true });
  // The engine itself where it is there, not what stands in for it.
  if (existsSync(join(WEB, "js/engine.js"))) cpSync(join(WEB, "js"), join(root, "js"), { recursive: true });
  for (const project of ["tsconfig.json", "service-worker.json"]) {
    const args = [join(typescript, "bin/tsc"), "-p", join(root, project)];
    const { stdout, status } = spawnSync(process.execPath, args, { encoding: "utf8" });
    assert.equal(stdout, "");
    assert.equal(status, 0);
  }
});

test("nothing needs more than 'self' and 'wasm-unsafe-eval'", () => {
  for (const name of files()) {
    const text = readFileSync(join(WEB, name), "utf8");
    if (name.endsWith(".js")) {
      assert.doesNotMatch(text, /\beval\(|new Function\(|createObjectURL\((?!blob\))/, name);
      for (const [, from] of text.matchAll(/(?:from|import\()\s*"([^"]+)"/g)) assert.match(from, /^\.\.?\//, `${name} imports ${from}`);
    }
    if (name.endsWith(".html")) {
      assert.doesNotMatch(text, /<script(?![^>]*\bsrc=)|<style|\sstyle=|\son[a-z]+=/, name);
    }
    if (name.endsWith(".js") || name.endsWith(".html") || name.endsWith(".css")) assert.doesNotMatch(text, /https?:\/\/(?!www\.w3\.org)/, name);
  }
});

test("every placeholder is filled", (t) => {
  const { root, remove } = makePackage();
  t.after(remove);
  for (const name of files()) assert.doesNotMatch(readFileSync(join(root, name), "utf8"), /\{\{[A-Z_]+\}\}/, name);
  const { name, exports, files: listed } = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
  assert.equal(name, "fake");
  for (const target of Object.values(exports).flatMap((each) => (typeof each === "string" ? [each] : Object.values(each)))) {
    if (!target.includes("*")) assert.ok(existsSync(join(root, target)), target);
  }
  const top = readdirSync(root).filter((each) => each !== "package.json");
  for (const each of top) assert.ok(listed.some((/** @type {string} */ entry) => entry === each), `${each} is not in "files"`);
});

test("exported classes and codes are those that are documented", async () => {
  const types = readFileSync(join(WEB, "index.d.ts"), "utf8");
  const documented = new Set([...types.matchAll(/`([a-z]+(?:-[a-z0-9]+)*)`/g)].map((match) => match[1]));
  /** @type {Set<string>} */
  const used = new Set();
  for (const name of files().filter((each) => each.endsWith(".js") && !each.startsWith("demo/"))) {
    const text = readFileSync(join(WEB, name), "utf8");
    for (const [, code] of text.matchAll(/new (?:Unsupported|Download|Image|Argument|Engine)Error\(\s*"([a-z0-9-]+)"/g)) used.add(code);
  }
  // Becomes a result or the signal's reason.
  used.delete("cancelled");
  assert.ok(used.size > 20);
  for (const code of used) assert.ok(documented.has(code), `${code} is not in index.d.ts`);
});

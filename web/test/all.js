/**
 * Runs all tests of the web package: `node web/test/all.js`. Prints what failed and a line `skipped: WHAT: WHY` for what could not run; exit status 1 after a failure.
 */

import { spawnSync } from "node:child_process";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

// Node's own runner takes every file of a folder that is called `test`, this one included.
if (!process.env.NODE_TEST_CONTEXT) {
  const folder = fileURLToPath(new URL(".", import.meta.url));
  const files = readdirSync(folder).filter((name) => name.endsWith(".test.js"));
  // One after the other: they measure frames and wait for timers.
  const args = ["--test", "--test-reporter=tap", "--test-concurrency=1", ...files.map((name) => join(folder, name))];
  const { stdout, stderr, status } = spawnSync(process.execPath, args, { encoding: "utf8", maxBuffer: 1 << 28 });
  const lines = stdout.split("\n");
  for (const reason of new Set(lines.map((line) => /^\s*# (skipped: .*)/.exec(line)?.[1]).filter(Boolean))) console.log(reason);
  const count = (/** @type {string} */ what) => lines.filter((line) => line.startsWith(`# ${what} `)).at(-1)?.slice(2) ?? `${what}: not told`;
  if (status !== 0) console.error(stdout + stderr);
  console.log(`web package: ${count("pass")}, ${count("fail")}`);
  process.exitCode = status === 0 ? 0 : 1;
}

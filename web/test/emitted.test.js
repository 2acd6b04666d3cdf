/**
 * A package that tvlmc has written, against answers of the same model compiled for another target.
 *
 * `TVLMC_WEB_PACKAGE` names its folder, `TVLMC_WEB_ANSWERS` a file of lines `{ "image", "question", "answer" }`, images relative to it. All answers have to be the same,
 * word for word: in Node and Chromium, with every variant that runs there, with 1 to 4 threads, in a worker and on the page's own thread.
 * Relaxed SIMD in Node 20 takes `node --experimental-wasm-relaxed-simd --test web/test/emitted.test.js`.
 */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import test from "node:test";
import { pathToFileURL } from "node:url";
import { decodePng } from "./support/png.js";
import { serve } from "./support/server.js";
import { chromium, HOW, module, skipped } from "./support/tools.js";

const { TVLMC_WEB_PACKAGE: given, TVLMC_WEB_ANSWERS: answers } = process.env;

/** @typedef {{ image: string, question: string, answer: string }} Line */

if (!given || !answers) skipped("an emitted web package", "TVLMC_WEB_PACKAGE and TVLMC_WEB_ANSWERS name none");
else run(resolve(given), resolve(answers));

/** @param {string} root @param {string} answers */
function run(root, answers) {
  /** @type {Line[]} */
  const lines = readFileSync(answers, "utf8").split("\n").filter((line) => line !== "").map((line) => JSON.parse(line));
  const image = (/** @type {Line} */ line) => join(dirname(answers), line.image);
  const manifest = JSON.parse(readFileSync(join(root, "model.json"), "utf8"));

  test("Node: every variant and number of threads gives the same answers", async (t) => {
    /** @type {typeof import("../index.js")} */
    const api = await import(pathToFileURL(join(root, "index.js")).href);
    const found = await api.capabilities();
    /** @type {import("../index.js").LoadOptions[]} */
    const ways = [{ variant: "simd128" }, { variant: "simd128", worker: false }];
    if (found.relaxedSimd) ways.push({ variant: "relaxed" });
    else skipped("relaxed SIMD in Node", "off; run with --experimental-wasm-relaxed-simd");
    if (found.threads) ways.push(...[1, 2, 3, 4].map((threads) => ({ threads, variant: /** @type {const} */ ("threads") })));
    const dots = ways.filter((each) => manifest.modules[`${each.variant}-dot`]);
    if (Number(process.versions.node.split(".")[0]) >= 22) ways.push(...dots.map((way) => ({ ...way, dotProduct: true })));
    else if (dots.length > 0) skipped("dot products in one instruction in Node", "computed wrongly before version 22");
    for (const way of ways.filter((each) => manifest.modules[each.variant ?? ""])) {
      await t.test(JSON.stringify(way), async () => {
        const model = await api.load(way);
        try {
          for (const line of lines) {
            const picture = decodePng(readFileSync(image(line)));
            assert.equal(await model.ask(picture, line.question), line.answer, `${line.image}: ${line.question}`);
          }
          assert.equal(model.info.threads, way.threads ?? 1);
          assert.equal(model.info.dotProduct, (way.dotProduct ?? found.dotProduct) && manifest.modules[`${way.variant}-dot`] !== undefined);
        } finally {
          await model.close();
        }
      });
    }
  });

  test("Node: memory does not grow from question to question", async () => {
    /** @type {typeof import("../index.js")} */
    const api = await import(pathToFileURL(join(root, "index.js")).href);
    const model = await api.load();
    /** @type {(number | null)[]} */
    const sizes = [];
    for (let i = 0; i < 50; i++) {
      const line = lines[i % lines.length];
      sizes.push((await model.ask(decodePng(readFileSync(image(line))), line.question, { maxNewTokens: 4 }).result).memoryBytes);
    }
    assert.equal(sizes[49], sizes[9]);
    await model.close();
  });

  test("Chromium: the same answers, on the demo page and by every variant", async (t) => {
    const playwright = await module("playwright-core");
    const program = chromium();
    if (!playwright || !program) return skipped("an emitted web package in Chromium", playwright ? "no chromium in PATH" : `playwright-core is not there: ${HOW}`);
    const browser = await playwright.chromium.launch({ executablePath: program, args: ["--no-sandbox", "--disable-gpu"] });
    const server = await serve(root, { headers: { "cross-origin-opener-policy": "same-origin", "cross-origin-embedder-policy": "require-corp" } });
    t.after(async () => {
      await browser.close();
      await server.close();
    });
    const page = await browser.newPage();
    await page.goto(`${server.url}demo/index.html`);
    await page.locator("#load").click({ timeout: 2000 }).catch(() => {});
    for (const line of lines.slice(0, 5)) {
      await page.setInputFiles("#file", image(line));
      await page.waitForFunction(() => document.querySelectorAll("#log li").length === 0);
      await page.fill("#question", line.question);
      await page.press("#question", "Enter");
      const entry = page.locator("#log li").first().locator(".answer:not(.working)");
      await entry.waitFor({ timeout: 120_000 });
      assert.equal(await entry.textContent(), line.answer, `${line.image}: ${line.question}`);
    }
    const ways = [{ variant: "simd128" }, { variant: "relaxed" }, { variant: "relaxed", worker: false }, ...[1, 2, 3, 4].map((threads) => ({ variant: "threads", threads }))];
    for (const way of ways.filter((each) => manifest.modules[`${each.variant}-dot`])) ways.push({ ...way, dotProduct: true });
    for (const way of ways.filter((each) => manifest.modules[each.variant])) {
      await t.test(JSON.stringify(way), async () => {
        const asked = lines.map((line) => ({ question: line.question, png: readFileSync(image(line)).toString("base64") }));
        const said = await page.evaluate(
          async (/** @type {{ way: any, asked: { question: string, png: string }[] }} */ { way, asked }) => {
            const { load } = await import(/** @type {any} */ ("/index.js"));
            const model = await load(way);
            const said = [];
            for (const { question, png } of asked) {
              said.push(await model.ask(new Blob([Uint8Array.from(atob(png), (char) => char.charCodeAt(0))], { type: "image/png" }), question));
            }
            await model.close();
            return said;
          },
          { way, asked },
        );
        assert.deepEqual(said, lines.map((line) => line.answer));
      });
    }
  });
}

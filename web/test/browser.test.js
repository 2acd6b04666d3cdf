/** The package and the demo page in Chromium. */

import assert from "node:assert/strict";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import test from "node:test";
import { makePackage, sumOf } from "./support/package.js";
import { breakAfter, serve } from "./support/server.js";
import { chromium, HOW, module, skipped } from "./support/tools.js";

const ISOLATED = { "cross-origin-opener-policy": "same-origin", "cross-origin-embedder-policy": "require-corp" };
const BLANK = "<!doctype html><meta charset=utf-8><title>test</title><link rel=icon href=data:,>";

const playwright = await module("playwright-core");
const program = chromium();
if (!playwright) skipped("web package in Chromium", `playwright-core is not there: ${HOW}`);
else if (!program) skipped("web package in Chromium", "no chromium in PATH, and TVLMC_CHROMIUM is not set");
else await run(playwright, program);

/** @param {any} playwright @param {string} program */
async function run(playwright, program) {
  const browser = await playwright.chromium.launch({
    executablePath: program,
    // The name stands for another machine, whose pages are no secure contexts.
    args: ["--no-sandbox", "--disable-gpu", "--host-resolver-rules=MAP other.test 127.0.0.1", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"],
  });
  test.after(() => browser.close());

  /**
   * A package, its server, and a page of it in a profile of its own.
   *
   * @param {import("node:test").TestContext} t
   * @param {{ headers?: Record<string, string>, at?: string, host?: string, context?: object, package?: object }} [options]
   */
  async function open(t, { headers = {}, at = "blank.html", host = "127.0.0.1", context: more = {}, package: options = {} } = {}) {
    const made = makePackage(options);
    writeFileSync(join(made.root, "blank.html"), BLANK);
    const server = await serve(made.root, { headers });
    const context = await browser.newContext(more);
    const page = await context.newPage();
    /** @type {string[]} */
    const complaints = [];
    page.on("console", (/** @type {any} */ message) => message.type() === "error" && complaints.push(message.text()));
    page.on("pageerror", (/** @type {Error} */ error) => complaints.push(String(error)));
    t.after(async () => {
      await context.close();
      await server.close();
      made.remove();
    });
    const url = server.url.replace("127.0.0.1", host);
    await page.goto(url + at);
    return { ...made, server, context, page, complaints, url };
  }

  /**
   * Loads in the page and returns what `act` gives; what it throws comes as its name, code and message.
   *
   * @param {any} page
   * @param {string} act the body of an async function of `model`, `api` and `picture`
   * @param {object} [options] of load
   */
  const inPage = (page, act, options = {}) =>
    page.evaluate(
      async (/** @type {{ act: string, options: any }} */ { act, options }) => {
        const api = await import(/** @type {any} */ ("/index.js"));
        const picture = () => {
          const canvas = document.createElement("canvas");
          canvas.width = 40;
          canvas.height = 20;
          const draw = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
          // Red above left, blue below right.
          draw.fillStyle = "#f00";
          draw.fillRect(0, 0, 40, 20);
          draw.fillStyle = "#00f";
          draw.fillRect(20, 10, 20, 10);
          return canvas;
        };
        const events = [];
        const model = await api.load({ onProgress: (/** @type {any} */ event) => events.push(event), ...options }).catch((/** @type {any} */ error) => error);
        if (model instanceof Error) return { error: { name: model.name, code: /** @type {any} */ (model).code, message: model.message } };
        try {
          const AsyncFunction = Object.getPrototypeOf(async () => {}).constructor;
          return { info: model.info, value: await new AsyncFunction("model", "api", "picture", "events", act)(model, api, picture, events) };
        } catch (error) {
          const { name, code, message } = /** @type {any} */ (error);
          return { error: { name, code, message } };
        } finally {
          await model.close();
        }
      },
      { act, options },
    );

  const SUM = "const text = await model.ask('sum'); await model.ready; return text";

  test("Chromium: in a worker, relaxed SIMD, weights in OPFS, and none of them asked for again", async (t) => {
    const { page, file, server, complaints } = await open(t);
    const first = await inPage(page, SUM);
    assert.equal(first.value, sumOf(file));
    assert.equal(first.info.variant, "relaxed");
    assert.equal(first.info.worker, true);
    assert.equal(first.info.cache, "opfs");
    // Versions in addresses, although nothing was said about where they are.
    const fetched = server.log.filter((entry) => /^\/(weights|wasm)\//.test(entry.path));
    assert.equal(fetched.length, 4 + 2);
    for (const { path, query } of fetched) assert.match(query, /^\?v=[0-9a-f]{16}$/, path);
    server.log.length = 0;
    const second = await inPage(page, "const text = await model.ask('sum'); await model.ready; return [text, events.at(-1)]");
    assert.equal(second.value[0], sumOf(file));
    assert.equal(second.value[1].cached, true);
    assert.deepEqual(server.asked("weights"), []);
    assert.deepEqual(complaints, []);
  });

  test("Chromium: isolated pages get a team of threads, others are told how", async (t) => {
    const { page, file } = await open(t, { headers: ISOLATED });
    const { info, value } = await inPage(page, SUM, { threads: 2 });
    assert.equal(info.variant, "threads");
    assert.equal(info.threads, 2);
    assert.equal(value, sumOf(file));
    const plain = await open(t);
    const told = await inPage(plain.page, "return model.capabilities");
    assert.equal(told.value.threads, false);
    assert.match(told.value.advice.join(), /Cross-Origin-Embedder-Policy/);
    assert.equal((await inPage(plain.page, "", { variant: "threads" })).error.code, "no-threads");
  });

  test("Chromium: what lies in OPFS is not trusted, and a broken download goes on after a reload", async (t) => {
    const { page, file, server, manifest } = await open(t);
    await inPage(page, SUM);
    const poison = (/** @type {string} */ sha256) =>
      page.evaluate(async (/** @type {string} */ sha256) => {
        const root = await navigator.storage.getDirectory();
        const file = await (await root.getDirectoryHandle("tvlmc-weights")).getFileHandle(sha256);
        const writable = await file.createWritable({ keepExistingData: true });
        await writable.write({ type: "write", position: 99, data: new Uint8Array([1, 2, 3]) });
        await writable.close();
      }, sha256);
    await poison(manifest.shards[1].sha256);
    server.log.length = 0;
    assert.equal((await inPage(page, SUM)).value, sumOf(file));
    assert.deepEqual(server.asked("weights").map((entry) => entry.path), ["/weights/weights-00001.bin"]);

    const other = await open(t);
    other.server.on("weights-00003.bin", (request, response, body, next) =>
      request.headers.range ? request.socket.destroy() : breakAfter(10_000, 1)(request, response, body, next),
    );
    const broken = await inPage(other.page, "await model.ready", { download: { retries: 1, backoffMs: 5 } });
    assert.equal(broken.error.code, "network");
    other.server.off("weights-00003.bin");
    other.server.log.length = 0;
    await other.page.reload();
    assert.equal((await inPage(other.page, SUM)).value, sumOf(other.file));
    const ranges = other.server.asked("weights").map((entry) => entry.range);
    assert.equal(ranges.length, 1);
    assert.match(String(ranges[0]), /^bytes=[1-9]\d*-$/);
  });

  test("Chromium: corrupted bytes, HTML and gzip", async (t) => {
    const { page, file, server } = await open(t);
    server.on("weights-00002.bin", (_, response, body) => {
      const bytes = body();
      bytes[1] ^= 1;
      response.writeHead(200, { "content-length": bytes.length }).end(bytes);
    });
    assert.equal((await inPage(page, "await model.ready")).error.code, "wrong-digest");
    server.on("weights-00002.bin", (_, response) => response.writeHead(200, { "content-type": "text/html" }).end(BLANK));
    const html = await inPage(page, "await model.ready");
    assert.equal(html.error.name, "DownloadError");
    assert.equal(html.error.code, "html-instead");
    const { gzipped } = await import("./support/server.js");
    server.on("weights-00002.bin", gzipped);
    assert.equal((await inPage(page, SUM)).value, sumOf(file));
  });

  test("Chromium: without room the model runs all the same", async (t) => {
    const { page, file, context, url } = await open(t);
    const client = await context.newCDPSession(page);
    await client.send("Storage.overrideQuotaForOrigin", { origin: new URL(url).origin, quotaSize: 60_000 });
    const { value } = await inPage(page, "const text = await model.ask('sum'); await model.ready; return [text, events.at(-1)]");
    assert.equal(value[0], sumOf(file));
    assert.notEqual(value[1].storeProblem, null);
  });

  test("Chromium: weights of another origin, with and without its leave", async (t) => {
    const elsewhere = makePackage();
    const server = await serve(elsewhere.root);
    t.after(async () => {
      await server.close();
      elsewhere.remove();
    });
    const { page } = await open(t, { headers: ISOLATED });
    const options = { url: server.url, download: { retries: 1, backoffMs: 5 } };
    const refused = await inPage(page, "", options);
    assert.equal(refused.error.code, "network");
    assert.match(refused.error.message, /Access-Control-Allow-Origin/);
    server.setHeaders({ "access-control-allow-origin": "*", "cross-origin-resource-policy": "cross-origin" });
    server.on("weights-00003.bin", breakAfterOpen(10_000));
    const { value } = await inPage(page, SUM, options);
    assert.equal(value, sumOf(elsewhere.file));
    // A resumed download of another origin does not see the range that it got.
    assert.deepEqual(server.asked("weights-00003").map((entry) => entry.range), [undefined, "bytes=10000-"]);
  });

  test("Chromium: a page that is no secure context", async (t) => {
    const { page, file } = await open(t, { host: "other.test" });
    const { info, value } = await inPage(page, "const text = await model.ask('sum'); return [text, isSecureContext, typeof crypto.subtle, model.capabilities.advice.join()]");
    assert.deepEqual(value.slice(0, 3), [sumOf(file), false, "undefined"]);
    assert.match(value[3], /secure context/);
    assert.equal(info.cache, "none");
  });

  test("Chromium: under a Content-Security-Policy", async (t) => {
    const strict = "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; connect-src 'self'; worker-src 'self'";
    // Playwright's own evaluate is not bound by the page's policy; `inPage` makes its function there, so a script does it here.
    const script = `import { load } from "/index.js";
      try {
        const model = await load({ worker: document.title !== "page" ? "auto" : false });
        document.body.dataset.said = await model.ask("hello") + model.info.worker;
      } catch (error) { document.body.dataset.said = error.name + " " + error.code; }`;
    const said = async (/** @type {string} */ policy, title = "worker") => {
      const { page, root, url } = await open(t, { headers: { "content-security-policy": policy } });
      writeFileSync(join(root, "csp.js"), script);
      writeFileSync(join(root, "csp.html"), `<!doctype html><title>${title}</title><body><script type="module" src="csp.js"></script>`);
      await page.goto(`${url}csp.html`);
      await page.waitForFunction(() => document.body.dataset.said !== undefined);
      return page.evaluate(() => document.body.dataset.said);
    };
    assert.equal(await said(strict), "turns=none sees=nothing asked=hellotrue");
    assert.equal(await said(strict.replace(" 'wasm-unsafe-eval'", "")), "UnsupportedError csp");
    assert.equal(await said(strict.replace(" 'wasm-unsafe-eval'", ""), "page"), "UnsupportedError csp");
    // Without workers the page's own thread does it.
    assert.equal(await said(strict.replace("worker-src 'self'", "worker-src 'none'")), "turns=none sees=nothing asked=hellofalse");
  });

  test("Chromium: pictures of all kinds", async (t) => {
    const { page, root } = await open(t, { headers: ISOLATED });
    const right = "40x20@1024:255,0,0:0,0,255";
    for (const worker of [true, false]) {
      const { value, error } = await inPage(
        page,
        `const canvas = picture();
         const blob = await new Promise((resolve) => canvas.toBlob(resolve));
         const url = URL.createObjectURL(blob);
         const img = new Image();
         img.src = url;
         const off = new OffscreenCanvas(40, 20);
         off.getContext("2d").drawImage(canvas, 0, 0);
         const bitmap = await createImageBitmap(canvas);
         const seen = {};
         const of = async (name, source) => { seen[name] = (await model.ask(source, "q")).split("sees=")[1].split(" asked")[0]; };
         await of("blob", blob);
         await of("bytes", new Uint8Array(await blob.arrayBuffer()));
         await of("url", url);
         await of("img", img);
         await of("canvas", canvas);
         await of("offscreen", off);
         await of("bitmap", bitmap);
         await of("data", canvas.getContext("2d").getImageData(0, 0, 40, 20));
         await of("frame", new VideoFrame(canvas, { timestamp: 0 }));
         if (bitmap.width !== 40) throw new Error("the bitmap was taken away");
         return seen;`,
        { worker },
      );
      assert.equal(error, undefined, JSON.stringify(error));
      for (const [kind, seen] of Object.entries(value)) assert.equal(seen, right, `${kind}, worker ${worker}`);
    }
    // Taken upright whatever the file's orientation, as the browser shows it.
    const turned = await inPage(
      page,
      `const canvas = document.createElement("canvas");
       canvas.width = 48; canvas.height = 32;
       const draw = canvas.getContext("2d");
       draw.fillStyle = "#000"; draw.fillRect(0, 0, 48, 32);
       draw.fillStyle = "#fff"; draw.fillRect(0, 0, 16, 16);
       const jpeg = new Uint8Array(await (await new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", 1))).arrayBuffer());
       const exif = [0xff, 0xe1, 0, 34, 69, 120, 105, 102, 0, 0, 77, 77, 0, 42, 0, 0, 0, 8, 0, 1, 1, 18, 0, 3, 0, 0, 0, 1, 0, 6, 0, 0, 0, 0, 0, 0];
       const file = new Blob([jpeg.subarray(0, 2), new Uint8Array(exif), jpeg.subarray(2)], { type: "image/jpeg" });
       return [await model.ask(new Blob([jpeg]), "q"), await model.ask(file, "q")];`,
    );
    const sizes = turned.value.map((/** @type {string} */ text) => /sees=(\d+x\d+)@1024:(\d+)/.exec(text)?.slice(1));
    assert.deepEqual(sizes, [["48x32", "255"], ["32x48", "0"]]);

    const refused = async (/** @type {string} */ source) => (await inPage(page, `return model.ask(${source}, "q")`)).error;
    assert.equal((await refused('new Blob(["no picture"], { type: "image/png" })')).code, "image-undecodable");
    assert.equal((await refused("(() => { const image = new Image(); image.src = '/nothing.png'; return image; })()")).code, "image-undecodable");
    assert.equal((await refused("await createImageBitmap(picture()).then((bitmap) => (bitmap.close(), bitmap))")).code, "image-detached");
    assert.equal((await refused("'/nothing.png'")).code, "http-status");
    assert.equal((await inPage(page, "return model.ask(picture(), 'q')", { maxPixels: 100 })).error.code, "image-too-large");

    // Of another origin that shows, but does not give away.
    const elsewhere = makePackage();
    const server = await serve(elsewhere.root, { headers: { "cross-origin-resource-policy": "cross-origin" } });
    t.after(async () => {
      await server.close();
      elsewhere.remove();
    });
    const png = Buffer.from("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg==", "base64");
    writeFileSync(join(elsewhere.root, "dot.png"), png);
    writeFileSync(join(root, "dot.png"), png);
    const image = `(() => { const image = new Image(); image.src = "${server.url}dot.png"; return image; })()`;
    assert.equal((await refused(image)).code, "image-tainted");
    assert.match((await inPage(page, "return model.ask('/dot.png', 'q')")).value, /sees=1x1/);
  });

  test("Chromium: cancelling, aborting, two models on one page", async (t) => {
    const { page } = await open(t);
    const { value } = await inPage(
      page,
      `const abort = new AbortController();
       const slow = model.ask("slow", { signal: abort.signal, maxNewTokens: 400 });
       let pieces = 0, name = "";
       try { for await (const _ of slow) if (++pieces === 3) abort.abort(); } catch (error) { name = error.name; }
       const other = await api.load({ worker: false });
       const both = await Promise.all([model.ask("a"), other.ask("b")]);
       await other.close();
       return [name, pieces < 390, both];`,
    );
    assert.deepEqual(value, ["AbortError", true, ["turns=none sees=nothing asked=a", "turns=none sees=nothing asked=b"]]);
  });

  test("Chromium: on the page's own thread frames go on", async (t) => {
    const { page } = await open(t);
    const { value, info } = await inPage(
      page,
      `await model.ready;
       let frames = 0, on = true;
       const count = () => { frames++; if (on) requestAnimationFrame(count); };
       requestAnimationFrame(count);
       const began = performance.now();
       for (let i = 0; i < 40; i++) await model.ask(picture(), "hello " + i);
       on = false;
       return frames / (performance.now() - began) * 1000;`,
      { worker: false },
    );
    assert.equal(info.worker, false);
    assert.equal(info.cache, "cache");
    assert.ok(value > 20, `${value} frames a second`);
  });

  test("Chromium: the Cache API keeps, is checked, and can be forgotten", async (t) => {
    const { page, file, server, manifest } = await open(t);
    const options = { cache: "cache" };
    assert.equal((await inPage(page, SUM, options)).info.cache, "cache");
    server.log.length = 0;
    assert.equal((await inPage(page, SUM, options)).value, sumOf(file));
    assert.deepEqual(server.asked("weights"), []);
    await page.evaluate(async (/** @type {string} */ sha256) => {
      const cache = await caches.open("tvlmc-weights");
      const key = new URL(`/tvlmc-weights/${sha256}`, location.origin);
      const bytes = new Uint8Array(await /** @type {Response} */ (await cache.match(key)).arrayBuffer());
      bytes[0] ^= 1;
      await cache.put(key, new Response(bytes, { headers: { "content-length": String(bytes.length) } }));
    }, manifest.shards[2].sha256);
    assert.equal((await inPage(page, SUM, options)).value, sumOf(file));
    assert.deepEqual(server.asked("weights").map((entry) => entry.path), ["/weights/weights-00002.bin"]);
    await inPage(page, "await model.ready; await model.forget()", options);
    assert.equal(await page.evaluate(async () => (await (await caches.open("tvlmc-weights")).keys()).length), 0);
  });

  /** Asks on the demo page, and waits for the whole answer. @param {any} page @param {string} question */
  async function ask(page, question) {
    const before = await page.locator("#log li").count();
    await page.fill("#question", question);
    await page.press("#question", "Enter");
    const entry = page.locator("#log li").nth(before);
    await entry.locator(".answer:not(.working)").waitFor();
    return entry.locator(".answer").textContent();
  }

  test("Demo page: a picture, questions, figures, all by keyboard", async (t) => {
    const { page, complaints } = await open(t, { at: "demo/index.html" });
    await page.focus("#sample");
    await page.keyboard.press("Enter");
    const first = await ask(page, "What is it?");
    assert.match(first, /sees=512x512@1024:232,226,212/);
    assert.match(await page.textContent("#status"), /picture \d+ ms · question \d+ ms · .*relaxed SIMD, 1 thread, 1024 px/);
    const second = await ask(page, "And then?");
    assert.match(second, /turns=\[1\|What is it\?/);
    // A suggestion, and another picture by drop.
    await page.click("#suggestions button:nth-child(2)");
    await page.locator("#log li").nth(2).locator(".answer:not(.working)").waitFor();
    await page.evaluate(async () => {
      const canvas = new OffscreenCanvas(30, 10);
      canvas.getContext("2d")?.fillRect(0, 0, 30, 10);
      const transfer = new DataTransfer();
      transfer.items.add(new File([await canvas.convertToBlob()], "drop.png", { type: "image/png" }));
      dispatchEvent(new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true }));
    });
    assert.equal(await page.locator("#log li").count(), 0);
    assert.match(await ask(page, "new"), /turns=none sees=30x10@/);
    // By paste.
    await page.evaluate(async () => {
      const canvas = new OffscreenCanvas(20, 10);
      canvas.getContext("2d")?.fillRect(0, 0, 20, 10);
      const transfer = new DataTransfer();
      transfer.items.add(new File([await canvas.convertToBlob()], "paste.png", { type: "image/png" }));
      dispatchEvent(new ClipboardEvent("paste", { clipboardData: transfer, cancelable: true }));
    });
    assert.match(await ask(page, "new"), /turns=none sees=20x10@/);
    // By camera.
    await page.click("#camera");
    await page.waitForFunction(() => /** @type {HTMLVideoElement} */ (document.getElementById("video")).videoWidth > 0);
    await page.click("#take");
    await page.waitForFunction(() => document.querySelectorAll("#log li").length === 0);
    assert.match(await ask(page, "new"), /turns=none sees=\d{3,}x\d{3,}@/);
    // A smaller side.
    await page.click("summary");
    await page.selectOption("#side", "256");
    assert.match(await ask(page, "small"), /@256:/);
    assert.deepEqual(complaints, []);
  });

  test("Demo page: stopping, and errors in words", async (t) => {
    const { page } = await open(t, { at: "demo/index.html" });
    await page.fill("#question", "too early");
    await page.click("#send");
    assert.match(await page.textContent("#problem"), /Choose a picture first/);
    await page.click("#sample");
    await page.fill("#question", "slow");
    await page.click("#send");
    await page.waitForFunction(() => (document.querySelector(".answer")?.textContent ?? "").length > 10);
    await page.click("#stop");
    await page.locator(".answer:not(.working)").waitFor();
    assert.match(await page.textContent("#status"), /stopped/);
    await page.setInputFiles("#file", { name: "notes.txt", mimeType: "text/plain", buffer: Buffer.from("hello") });
    assert.match(await page.textContent("#problem"), /no picture/);
  });

  test("Demo page: starts and answers without a network after the first visit", async (t) => {
    const { page, server, complaints, root } = await open(t, { at: "demo/index.html" });
    await page.click("#sample");
    await ask(page, "hello");
    await page.evaluate(() => navigator.serviceWorker.ready);
    await page.waitForFunction(() => navigator.serviceWorker.controller !== null);
    // Every module is kept, also those that the first visit did not need.
    const kept = await page.evaluate(async () => (await (await caches.open("tvlmc-page")).keys()).map((request) => new URL(request.url).pathname));
    const modules = imported(root, ["/index.js", "/worker.js"]);
    assert.ok(modules.length > 15);
    const code = readdirSync(join(root, "wasm")).map((name) => `/wasm/${name}`);
    for (const name of [...modules, ...code, "/index.js", "/worker.js", "/demo/offline.js"]) assert.ok(kept.includes(name), name);
    await server.close();
    await page.reload();
    await page.click("#sample");
    assert.match(await ask(page, "still there?"), /asked=still there\?/);
    assert.deepEqual(complaints.filter((text) => !/ERR_CONNECTION_REFUSED|Failed to load resource/.test(text)), []);
  });

  test("Demo page: threads on a host that sends no headers, by choice", async (t) => {
    const { page } = await open(t, { at: "demo/index.html" });
    await page.click("#sample");
    await ask(page, "hello");
    assert.match(await page.textContent("#status"), /1 thread/);
    await page.click("summary");
    await Promise.all([page.waitForNavigation(), page.click("#isolate")]);
    await page.click("#sample");
    await ask(page, "hello");
    assert.equal(await page.evaluate(() => crossOriginIsolated), true);
    assert.match(await page.textContent("#status"), /relaxed SIMD, [2-9] threads/);
    // It stays switched on.
    await page.reload();
    assert.equal(await page.evaluate(() => crossOriginIsolated), true);
  });

  test("Demo page: a download that breaks, and goes on by a button", async (t) => {
    const { page, server, root, url } = await open(t, { headers: {} });
    server.on("weights-00003.bin", (_, response) => response.writeHead(403).end());
    await page.goto(`${url}demo/index.html`);
    await page.locator("#problem:not([hidden])").waitFor();
    assert.match(await page.textContent("#problem"), /403/);
    server.off("weights-00003.bin");
    await page.click("#load");
    await page.click("#sample");
    assert.match(await ask(page, "hello"), /hello/);
    assert.ok(root);
  });

  test("Demo page: large models are loaded when asked for", async (t) => {
    const { page, root, url, server } = await open(t);
    const html = readFileSync(join(root, "demo/index.html"), "utf8");
    writeFileSync(join(root, "demo/index.html"), html.replace('data-weights-mb="0.3"', 'data-weights-mb="380.0"'));
    await page.goto(`${url}demo/index.html`);
    await page.click("#sample");
    await page.waitForTimeout(300);
    assert.deepEqual(server.asked("weights"), []);
    await page.click("#load");
    assert.match(await ask(page, "hello"), /hello/);
    await page.reload();
    await page.waitForFunction(() => /** @type {HTMLSelectElement} */ (document.getElementById("side")).options.length > 0);
  });

  test("Demo page: nothing moves where motion is not wanted", async (t) => {
    for (const [reducedMotion, names] of /** @type {const} */ ([["no-preference", ["blink"]], ["reduce", []]])) {
      const { page } = await open(t, { at: "demo/index.html", context: { reducedMotion } });
      await page.click("#sample");
      await page.fill("#question", "slow");
      await page.press("#question", "Enter");
      await page.waitForFunction(() => document.querySelector(".answer")?.textContent);
      assert.deepEqual(await page.evaluate(moving), names);
    }
  });

  test("Demo page: fits phones and desktops, has names for everything, and contrast in both schemes", async (t) => {
    for (const colorScheme of ["light", "dark"]) {
      for (const viewport of [{ width: 320, height: 568 }, { width: 390, height: 844 }, { width: 820, height: 1180 }, { width: 1440, height: 900 }]) {
        const { page, context } = await open(t, { at: "demo/index.html", context: { viewport, colorScheme } });
        await page.click("#sample");
        await ask(page, "a long word: " + "w".repeat(200));
        await page.click("summary");
        const { wide, unnamed, small, faint } = await page.evaluate(look);
        const where = `${colorScheme} ${viewport.width}`;
        assert.ok(wide <= viewport.width, `${where}: ${wide} pixels wide`);
        assert.deepEqual(unnamed, [], where);
        assert.deepEqual(small, [], where);
        assert.deepEqual(faint, [], where);
        await context.close();
      }
    }
  });
}

/** Names of the page's animations. */
const moving = () => [...document.querySelectorAll("*")].map((element) => getComputedStyle(element, "::after").animationName).filter((name) => name !== "none");

/** Modules of a package by their addresses: some, and all that these import. @param {string} root @param {string[]} from */
function imported(root, from) {
  const found = new Set(from);
  for (const at of found) {
    const text = readFileSync(join(root, at), "utf8");
    for (const [, name] of text.matchAll(/^(?:import|export)\b[^;]*?\bfrom "(\.[^"]+)"/gm)) found.add(new URL(name, `http://x${at}`).pathname);
  }
  return [...found];
}

/** Breaks once, with the headers that other origins need. @param {number} bytes @returns {import("./support/server.js").Handler} */
function breakAfterOpen(bytes) {
  const breaks = breakAfter(bytes, 1);
  return (request, response, file, next) => {
    response.setHeader("access-control-allow-origin", "*");
    response.setHeader("cross-origin-resource-policy", "cross-origin");
    breaks(request, response, file, next);
  };
}

/** Runs in the page: what is too wide, has no name, is too small for a finger, or is hard to read. */
function look() {
  const shown = (/** @type {Element} */ element) => /** @type {HTMLElement} */ (element).offsetParent !== null;
  const controls = [...document.querySelectorAll("button, input, select, textarea, summary, progress, img, video")].filter(shown);
  const name = (/** @type {any} */ element) =>
    element.getAttribute("aria-label") || element.alt || element.labels?.[0]?.textContent || (["BUTTON", "SUMMARY"].includes(element.tagName) && element.textContent);
  const unnamed = controls.filter((element) => !name(element)?.trim()).map((element) => element.outerHTML.slice(0, 80));
  const small = [...document.querySelectorAll("button, .button, select, textarea")]
    .filter(shown)
    .filter((element) => element.getBoundingClientRect().height < 44)
    .map((element) => `${element.outerHTML.slice(0, 60)}: ${element.getBoundingClientRect().height}`);
  const color = (/** @type {string} */ text) => (text.match(/[\d.]+/g) ?? []).map(Number);
  const light = (/** @type {number[]} */ rgb) => {
    const [r, g, b] = rgb.map((value) => (value / 255 <= 0.03928 ? value / 255 / 12.92 : ((value / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (/** @type {Element | null} */ element) => {
    for (let at = element; at; at = at.parentElement) {
      const rgb = color(getComputedStyle(at).backgroundColor);
      if (rgb.length === 3 || rgb[3] > 0) return rgb;
    }
    return [255, 255, 255];
  };
  /** @type {string[]} */
  const faint = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const element = node.parentElement;
    if (!element || !shown(element) || !node.textContent?.trim() || element.matches("option, :disabled")) continue;
    const [a, b] = [light(color(getComputedStyle(element).color)), light(behind(element))];
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (contrast < 4.5) faint.push(`${contrast.toFixed(2)}: ${node.textContent.trim().slice(0, 40)}`);
  }
  return { wide: document.documentElement.scrollWidth, unnamed, small, faint };
}

/**
 * Twelve ways in which a server, a proxy or a cache misbehaves, and more: each ends in the right weights or in an error that says what to
 * do, and what arrived is not asked for again.
 */

import assert from "node:assert/strict";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test from "node:test";
import { pathToFileURL } from "node:url";
import { digestOf, makePackage, sumOf, weights } from "./support/package.js";
import { breakAfter, gzipped, htmlInstead, serve } from "./support/server.js";

/** @typedef {typeof import("../index.js")} Api */

const QUICK = { retries: 3, backoffMs: 5, stallMs: 300 };

/** A package, its server, and its code. @param {import("node:test").TestContext} t @param {Parameters<typeof makePackage>[0]} [options] */
async function setup(t, options) {
  const made = makePackage(options);
  const server = await serve(made.root);
  const store = mkdtempSync(join(tmpdir(), "tvlmc-store-"));
  t.after(async () => {
    await server.close();
    made.remove();
    rmSync(store, { recursive: true, force: true });
  });
  const api = /** @type {Api} */ (await import(pathToFileURL(join(made.root, "index.js")).href));
  const load = (/** @type {import("../index.js").LoadOptions} */ more = {}) =>
    api.load({ url: server.url, worker: false, cache: "none", download: QUICK, ...more });
  /** Loads, and checks that every byte is right. @param {import("../index.js").LoadOptions} [more] */
  const right = async (more) => {
    /** @type {import("../index.js").Progress[]} */
    const events = [];
    const model = await load({ onProgress: (event) => events.push(event), ...more });
    assert.equal(await model.ask("sum"), sumOf(made.file));
    await model.ready;
    await model.close();
    return events;
  };
  /** Loads whatever there is, and fails. @param {import("../index.js").LoadOptions} [more] */
  const fails = async (more) => {
    const model = await load(more);
    try {
      await model.ask("sum");
    } finally {
      await assert.rejects(model.ready);
      await model.close();
    }
  };
  return { ...made, server, store, api, load, right, fails };
}

const LAST = "weights-00003.bin";

test("1: a page of HTML in the place of a shard, with status 200", async (t) => {
  const { server, fails, api } = await setup(t);
  server.on(LAST, htmlInstead);
  await assert.rejects(fails(), (/** @type {any} */ error) => error instanceof api.DownloadError && error.code === "html-instead" && /start or login page/.test(error.message));
  assert.equal(server.asked(LAST).length, 1);
});

test("1a: HTML that does not say so, and says so without looking like it", async (t) => {
  const { server, fails } = await setup(t);
  server.on(LAST, (_, response) => response.writeHead(200).end("  <!DOCTYPE html><p>Welcome"));
  await assert.rejects(fails(), { code: "html-instead" });
  server.on(LAST, (_, response) => response.writeHead(200, { "content-type": "text/html; charset=utf-8" }).end("Please log in"));
  await assert.rejects(fails(), { code: "html-instead" });
});

test("1b: 404, with what to look for", async (t) => {
  const { server, fails } = await setup(t);
  server.on(LAST, (_, response) => response.writeHead(404).end("gone"));
  await assert.rejects(fails(), { code: "http-status", message: /weights-00003.*404.*whole folder/ });
  assert.equal(server.asked(LAST).length, 1);
});

test("2: another length than the model's, before it is downloaded", async (t) => {
  const { server, fails } = await setup(t);
  server.on(LAST, (_, response) => response.writeHead(200, { "content-length": 7 }).end("1234567"));
  await assert.rejects(fails(), { code: "wrong-length", message: /7 bytes where 30001 were expected/ });
  // Once more past the browser's cache, then no more.
  assert.equal(server.asked(LAST).length, 2);
});

test("2b: a body that goes on without end, of a server that tells no length", async (t) => {
  const { server, fails } = await setup(t);
  server.on(LAST, (_, response) => {
    response.writeHead(200);
    const more = () => response.destroyed || response.write(Buffer.alloc(10_000, 1), () => setTimeout(more));
    more();
  });
  await assert.rejects(fails(), { code: "wrong-length" });
});

test("3: a range is ignored: the whole file comes again, and only what is missing is taken", async (t) => {
  const { server, right } = await setup(t);
  const breaks = breakAfter(10_000, 1);
  server.on(LAST, (request, response, file, next) => {
    if (!request.headers.range) return breaks(request, response, file, next);
    const body = file();
    response.writeHead(200, { "content-length": body.length }).end(body);
  });
  await right();
  assert.deepEqual(server.asked(LAST).map((entry) => entry.range), [undefined, "bytes=10000-"]);
});

test("3b: another range than asked for", async (t) => {
  const { server, right } = await setup(t);
  const breaks = breakAfter(10_000, 1);
  server.on(LAST, (request, response, file, next) => {
    if (!request.headers.range) return breaks(request, response, file, next);
    const body = file();
    response.writeHead(206, { "content-range": `bytes 0-${body.length - 1}/${body.length}`, "content-length": body.length }).end(body);
  });
  await right();
  assert.deepEqual(server.asked(LAST).map((entry) => entry.range), [undefined, "bytes=10000-", undefined]);
});

test("4: the connection breaks, again and again: each attempt goes on where the last one ended", async (t) => {
  const { server, right } = await setup(t);
  server.on(LAST, breakAfter(6_000, 4));
  await right();
  assert.deepEqual(server.asked(LAST).map((entry) => entry.range), [undefined, "bytes=6000-", "bytes=12000-", "bytes=18000-", "bytes=24000-"]);
});

test("4b: a server that breaks every connection at once ends in an error", async (t) => {
  const { server, fails } = await setup(t);
  server.on(LAST, (request) => request.socket.destroy());
  await assert.rejects(fails(), { code: "network", message: /cannot be reached/ });
  assert.equal(server.asked(LAST).length, 1 + QUICK.retries);
});

test("5: wrong bytes of the right length: fetched once more, then refused", async (t) => {
  const { server, fails, right } = await setup(t);
  let bad = 1;
  server.on(LAST, (_, response, file) => {
    const body = file();
    if (bad-- > 0) body[12_345] ^= 1;
    response.writeHead(200, { "content-length": body.length }).end(body);
  });
  await right();
  bad = Infinity;
  await assert.rejects(fails(), { code: "wrong-digest", message: /SHA-256 differs.*deploy/ });
  assert.equal(server.asked(LAST).length, 4);
});

test("6: a redirect is followed, one to a login page is told", async (t) => {
  const { server, right, fails, root } = await setup(t);
  writeFileSync(join(root, "moved.bin"), readFileSync(join(root, "weights", LAST)));
  server.on(LAST, (_, response) => response.writeHead(302, { location: "/moved.bin" }).end());
  await right();
  server.on(LAST, (_, response) => response.writeHead(302, { location: "/login.html" }).end());
  server.on("login.html", htmlInstead);
  await assert.rejects(fails(), { code: "html-instead", message: /redirected to .*login\.html/ });
});

test("7: slow is not broken, silent is", async (t) => {
  const { server, right, fails } = await setup(t);
  server.on(LAST, (_, response, file) => {
    const body = file();
    response.writeHead(200, { "content-length": body.length });
    let at = 0;
    const more = () => {
      response.write(body.subarray(at, (at += 3000)));
      if (at < body.length) setTimeout(more, 60);
      else response.end();
    };
    more();
  });
  await right();
  assert.equal(server.asked(LAST).length, 1);
  server.on(LAST, (_, response, file) => {
    response.writeHead(200, { "content-length": file().length });
    response.write("x");
  });
  await assert.rejects(fails({ download: { ...QUICK, stallMs: 60 } }), { code: "stalled", message: /nothing arrived for 0.06 s/ });
});

test("8: a busy server is asked again, when it says", async (t) => {
  const { server, right } = await setup(t);
  let busy = 2;
  server.on(LAST, (_, response, __, next) => (busy-- > 0 ? response.writeHead(503, { "retry-after": "0" }).end() : next()));
  await right();
  assert.equal(server.asked(LAST).length, 3);
});

test("9: a cache that holds a former version is passed by: addresses carry the digest", async (t) => {
  const { server, right, manifest } = await setup(t);
  /** @type {string[]} */
  const seen = [];
  server.on(LAST, (request, _, __, next) => (seen.push(String(request.url)), next()));
  await right();
  assert.deepEqual(seen, [`/weights/${LAST}?v=${manifest.shards[3].sha256.slice(0, 16)}`]);
});

test("10: a file that was cut off while it was deployed", async (t) => {
  const { root, fails } = await setup(t);
  truncateSync(join(root, "weights", LAST), 20_000);
  await assert.rejects(fails(), { code: "wrong-length", message: /20000 bytes where 30001/ });
});

test("11: content-encoding gzip, whole and after a break", async (t) => {
  const { server, right } = await setup(t);
  server.on(LAST, gzipped);
  await right();
  const breaks = breakAfter(10_000, 1);
  server.on(LAST, (request, response, file, next) => (request.headers.range ? gzipped : breaks)(request, response, file, next));
  await right();
});

test("12: 416 starts over without a range", async (t) => {
  const { server, right } = await setup(t);
  const breaks = breakAfter(10_000, 1);
  server.on(LAST, (request, response, file, next) => {
    if (request.headers.range) return response.writeHead(416, { "content-range": "bytes */5" }).end();
    breaks(request, response, file, next);
  });
  await right();
  assert.deepEqual(server.asked(LAST).map((entry) => entry.range), [undefined, "bytes=10000-", undefined]);
});

test("the code itself: HTML for the manifest, for a module, and something else for a module", async (t) => {
  const { server, load } = await setup(t);
  server.on("model.json", htmlInstead);
  await assert.rejects(load(), { code: "html-instead" });
  server.off("model.json");
  server.on("runtime", htmlInstead);
  await assert.rejects(load(), { code: "html-instead" });
  server.on("runtime", (_, response) => response.end("hello, world"));
  await assert.rejects(load(), { code: "not-wasm" });
  server.on("runtime", (_, response) => response.end(Buffer.from([0, 0x61, 0x73, 0x6d, 1, 0, 0, 0, 99])));
  await assert.rejects(load(), { code: "not-wasm" });
});

test("kept: a second load asks for no shard", async (t) => {
  const { server, right, store } = await setup(t);
  await right({ cache: { folder: store } });
  server.log.length = 0;
  const events = await right({ cache: { folder: store } });
  assert.deepEqual(server.asked("weights"), []);
  assert.equal(events.at(-1)?.phase, "ready");
  assert.equal(events.at(-1)?.cached, true);
});

test("kept: a broken download goes on after a restart", async (t) => {
  const { server, right, fails, store } = await setup(t);
  server.on(LAST, (request, response, file, next) => (request.headers.range ? request.socket.destroy() : breakAfter(10_000, 1)(request, response, file, next)));
  await assert.rejects(fails({ cache: { folder: store }, download: { ...QUICK, retries: 1 } }), { code: "network", message: /after 10000 of 30001 bytes, which are kept/ });
  server.off(LAST);
  server.log.length = 0;
  await right({ cache: { folder: store } });
  assert.deepEqual(server.asked("weights").map((entry) => entry.range), ["bytes=10000-"]);
});

test("kept: a poisoned, an overlong and an emptied file are found and fetched again", async (t) => {
  const { server, right, store, manifest } = await setup(t);
  const at = join(store, manifest.shards[3].sha256);
  const spoil = /** @type {((good: Buffer) => Buffer)[]} */ ([
    (good) => ((good[777] ^= 4), good),
    (good) => Buffer.concat([good, Buffer.from("more")]),
    () => Buffer.alloc(0),
    // A beginning that is wrong is found at the end.
    (good) => ((good[5] ^= 1), good.subarray(0, 100)),
  ]);
  await right({ cache: { folder: store } });
  for (const change of spoil) {
    writeFileSync(at, change(readFileSync(at)));
    server.log.length = 0;
    await right({ cache: { folder: store } });
    assert.ok(server.asked(LAST).length >= 1);
    assert.equal(server.asked("weights").length, server.asked(LAST).length);
    assert.equal(digestOf(readFileSync(at)), manifest.shards[3].sha256);
  }
});

test("kept: a new version downloads what changed and removes what is stale", async (t) => {
  const { server, right, store, root, file, manifest } = await setup(t);
  await right({ cache: { folder: store } });
  const before = manifest.shards.map((shard) => shard.sha256);
  // The same bytes but for those of the last shard.
  const changed = file.slice();
  changed.set(weights(30_001, 9), changed.length - 30_001);
  const tail = changed.subarray(changed.length - 30_001);
  writeFileSync(join(root, "weights", LAST), tail);
  manifest.shards[3].sha256 = digestOf(tail);
  manifest.digest = digestOf(changed);
  writeFileSync(join(root, "model.json"), JSON.stringify(manifest));
  file.set(changed);
  server.log.length = 0;
  await right({ cache: { folder: store } });
  assert.equal(server.asked("weights").length, 1);
  assert.equal(existsSync(join(store, before[3])), false);
  assert.equal(readdirSync(store).length, 4 + 1);
});

test("kept: two packages share what is equal, and forgetting one leaves the other's", async (t) => {
  const { server, store, load, right, root } = await setup(t);
  const cache = { folder: store };
  symlinkSync(".", join(root, "copy"));
  await right({ cache });
  server.log.length = 0;
  const copy = await load({ url: `${server.url}copy/`, cache });
  await copy.ready;
  assert.deepEqual(server.asked("weights"), []);
  assert.equal(readdirSync(store).length, 4 + 2);
  await copy.forget();
  await copy.close();
  assert.equal(readdirSync(store).length, 4 + 1);
  const model = await load({ cache });
  await model.ready;
  await model.forget();
  await model.close();
  assert.deepEqual(readdirSync(store), []);
});

test("kept: a store that refuses is done without, and said so", async (t) => {
  const { right, store, manifest } = await setup(t);
  // A folder where the file would be.
  mkdirSync(join(store, manifest.shards[0].sha256));
  const events = await right({ cache: { folder: store } });
  assert.match(String(events.at(-1)?.storeProblem), /EISDIR/);
  assert.equal(readdirSync(store).length, 4 + 1);
});

test("only what is missing is tried again: resume", async (t) => {
  const { server, load, file } = await setup(t);
  server.on(LAST, (request, response, body, next) => (request.headers.range ? request.socket.destroy() : breakAfter(10_000, 1)(request, response, body, next)));
  const model = await load({ download: { ...QUICK, retries: 1 } });
  await assert.rejects(async () => model.ask("sum"), { code: "network" });
  await assert.rejects(model.ready, { code: "network" });
  // Still the same without another try.
  await assert.rejects(async () => model.ask("sum"), { code: "network" });
  server.off(LAST);
  server.log.length = 0;
  await model.resume();
  assert.equal(await model.ask("sum"), sumOf(file));
  assert.deepEqual(server.asked("weights").map((entry) => entry.range), ["bytes=10000-"]);
  await model.close();
});

test("progressive: questions are taken before the last shard is there", async (t) => {
  const { server, load, file } = await setup(t);
  /** @type {(() => void)[]} */
  const held = [];
  server.on(LAST, (_, __, ___, next) => held.push(next));
  /** @type {string[]} */
  const stages = [];
  for (const worker of [true, false]) {
    const model = await load({ worker, download: { ...QUICK, stallMs: 30_000 } });
    let ready = false;
    model.ready.then(() => (ready = true), () => {});
    const answer = model.ask({ data: new Uint8Array(12), width: 2, height: 2 }, "sum", { onStage: (stage) => stages.push(stage) });
    // The stand-in's vision needs all of the file, so it waits; that it began shows in the stage. The last shard may be asked for
    // before or after that, and a busy machine takes its time.
    for (let i = 0; i < 3000 && (answer.stage !== "vision" || held.length === 0); i++) await new Promise((resolve) => setTimeout(resolve, 10));
    assert.equal(answer.stage, "vision");
    assert.equal(held.length, 1);
    assert.equal(ready, false);
    for (const next of held.splice(0)) next();
    assert.equal(await answer, sumOf(file));
    await model.ready;
    await model.close();
  }
  assert.deepEqual(stages.slice(0, 4), ["picture", "vision", "question", "answer"]);
});

test("aborting a load ends it with the signal's reason", async (t) => {
  const { server, load } = await setup(t);
  server.on("weights", (_, response) => void response.writeHead(200));
  for (const worker of [true, false]) {
    const abort = new AbortController();
    const loading = load({ signal: abort.signal, worker, download: { stallMs: 10_000 } });
    setTimeout(() => abort.abort(new Error("enough")), 150);
    await assert.rejects(loading, /enough/);
    await assert.rejects(load({ signal: AbortSignal.abort(new Error("before")) }), /before/);
  }
});

test("a file: folder, whole and with a shard that is gone", async (t) => {
  const { root, api, file } = await setup(t);
  const model = await api.load({ url: pathToFileURL(`${root}/`) });
  assert.equal(await model.ask("sum"), sumOf(file));
  await model.close();
  rmSync(join(root, "weights", LAST));
  const rest = await api.load({ url: pathToFileURL(`${root}/`) });
  await assert.rejects(async () => rest.ask("sum"), { code: "no-file", message: /weights-00003/ });
  await rest.close();
});

test("weights that are another model's are refused by the engine", async (t) => {
  const { root, load, manifest, api } = await setup(t);
  const first = new Uint8Array(manifest.shards[0].bytes);
  writeFileSync(join(root, manifest.shards[0].name), first);
  manifest.shards[0].sha256 = digestOf(first);
  writeFileSync(join(root, "model.json"), JSON.stringify(manifest));
  await assert.rejects(load(), (/** @type {any} */ error) => error instanceof api.EngineError && error.code === "weights-wrong-build");
  await assert.rejects(load({ worker: true }), (/** @type {any} */ error) => error instanceof api.EngineError && error.code === "weights-wrong-build");
});

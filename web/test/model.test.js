/** What a user of the package sees: answers, conversations, cancelling, errors; in a worker and on one's own thread. */

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { join } from "node:path";
import test from "node:test";
import { pathToFileURL } from "node:url";
import { makePackage } from "./support/package.js";

const made = makePackage();
/** @type {typeof import("../index.js")} */
const api = await import(pathToFileURL(join(made.root, "index.js")).href);
test.after(made.remove);

/** A picture of one color. @param {number} value @param {number} [width] @param {number} [height] */
const picture = (value, width = 2, height = 3) => ({ data: new Uint8Array(width * height * 4).fill(value), width, height });
const seen = (/** @type {number} */ value, side = 1024) => `2x3@${side}:${value},${value},${value}:${value},${value},${value}`;

for (const worker of [true, false]) {
  const where = worker ? "in a worker" : "on one's own thread";
  /** @param {import("node:test").TestContext} t @param {import("../index.js").LoadOptions} [more] */
  const open = async (t, more) => {
    const model = await api.load({ worker, ...more });
    t.after(() => model.close());
    assert.equal(model.info.worker, worker);
    return model;
  };

  test(`${where}: an answer is its pieces, its text, its result`, async (t) => {
    const model = await open(t);
    const answer = model.ask(picture(7), "what is it?");
    const pieces = [];
    for await (const piece of answer) pieces.push(piece);
    const text = `turns=none sees=${seen(7)} asked=what is it?`;
    assert.ok(pieces.length > 2);
    assert.equal(pieces.join(""), text);
    assert.equal(await answer, text);
    assert.equal(answer.text, text);
    assert.equal(answer.stage, "done");
    const result = await answer.result;
    assert.equal(result.stop, "end");
    assert.equal(result.tokens, pieces.length);
    assert.equal(result.promptTokens, "what is it?".length);
    assert.ok(result.timings && result.timings.decodeSteps === pieces.length);
    assert.ok(Number(result.memoryBytes) > made.file.length);
    // Once more, from the first piece on.
    const again = [];
    for await (const piece of answer) again.push(piece);
    assert.deepEqual(again, pieces);
  });

  test(`${where}: no picture, several, RGB, a side of one's own`, async (t) => {
    const model = await open(t);
    assert.equal(await model.ask("hello"), "turns=none sees=nothing asked=hello");
    assert.equal(await model.ask(null, "hello"), "turns=none sees=nothing asked=hello");
    assert.equal(await model.ask([picture(1), picture(2)], "two"), `turns=none sees=${seen(1)} ${seen(2)} asked=two`);
    const rgb = { data: new Uint8ClampedArray(18).fill(9), width: 2, height: 3 };
    assert.equal(await model.ask(rgb, "rgb", { side: 256 }), `turns=none sees=${seen(9, 256)} asked=rgb`);
    assert.equal(rgb.data.length, 18);
    await assert.rejects(async () => model.ask(rgb, "q", { side: 300 }), { code: "argument", message: /256, 512, 1024/ });
    assert.deepEqual(await model.tokenize("ab"), [97, 98]);
  });

  test(`${where}: options come through, bounds end an answer`, async (t) => {
    const model = await open(t);
    const result = await model.ask("a b c d e f g h", { maxNewTokens: 2 }).result;
    assert.equal(result.stop, "max-tokens");
    assert.equal(result.tokens, 2);
  });

  test(`${where}: aborting ends an answer with the signal's reason, at once or in the middle`, async (t) => {
    const model = await open(t);
    const abort = new AbortController();
    const pieces = [];
    const reason = new Error("no more");
    await assert.rejects(async () => {
      for await (const piece of model.ask("slow", { signal: abort.signal, maxNewTokens: 400 })) {
        pieces.push(piece);
        if (pieces.length === 3) abort.abort(reason);
      }
    }, reason);
    assert.ok(pieces.length >= 3 && pieces.length < 390, `${pieces.length} pieces`);
    await assert.rejects(async () => model.ask("slow", { signal: abort.signal }), reason);
    await assert.rejects(async () => model.ask(picture(1), "x", { signal: AbortSignal.abort() }), { name: "AbortError" });
    // The model goes on.
    assert.match(await model.ask("hello"), /asked=hello/);
  });

  test(`${where}: cancelling keeps what is there; leaving a loop cancels`, async (t) => {
    const model = await open(t);
    const answer = model.ask("slow", { maxNewTokens: 400 });
    let count = 0;
    for await (const _ of answer) if (++count === 3) answer.cancel();
    const result = await answer.result;
    assert.equal(result.stop, "cancelled");
    assert.ok(result.text.startsWith("0 1 2 ") && result.tokens < 390);
    const left = model.ask("slow", { maxNewTokens: 400 });
    for await (const _ of left) break;
    assert.equal((await left.result).stop, "cancelled");
    // Before it began.
    const first = model.ask("slow", { maxNewTokens: 50 });
    const second = model.ask(picture(1), "waits");
    second.cancel();
    assert.equal((await second.result).stop, "cancelled");
    assert.equal((await first.result).tokens, 50);
  });

  test(`${where}: questions at once are answered one after the other`, async (t) => {
    const model = await open(t);
    const answers = await Promise.all(["a", "b", "c"].map(async (text) => model.ask(picture(3), text)));
    assert.deepEqual(answers, ["a", "b", "c"].map((text) => `turns=none sees=${seen(3)} asked=${text}`));
  });

  test(`${where}: a conversation knows what was said`, async (t) => {
    const model = await open(t);
    const chat = model.chat({ maxNewTokens: 3 });
    const first = await chat.ask(picture(5), "one");
    assert.equal(first, `turns=none sees=${seen(5)} asked=one`);
    const second = await chat.ask("two");
    assert.equal(second.split(" ")[0], `turns=[1|one|turns=none`);
    assert.deepEqual(chat.turns.map((turn) => [turn.images, turn.question]), [[1, "one"], [0, "two"]]);
    // An answer that was cut off is what was said; none at all was not asked.
    const third = chat.ask("slow", { maxNewTokens: 400 });
    assert.throws(() => chat.ask("at once"), { code: "argument" });
    for await (const _ of third) third.cancel();
    assert.equal(chat.turns.length, 3);
    await assert.rejects(async () => chat.ask("aborted", { signal: AbortSignal.abort() }), { name: "AbortError" });
    await assert.rejects(async () => chat.ask(" "), { code: "empty-prompt" });
    assert.equal(chat.turns.length, 3);
    chat.reset();
    assert.match(await chat.ask("four", { maxNewTokens: 9 }), /turns=none sees=nothing/);
    chat.close();
    assert.throws(() => chat.ask("five"), { code: "argument" });
  });

  test(`${where}: pictures are looked at once and given back`, async (t) => {
    const model = await open(t);
    const count = async () => model.ask("count images");
    const before = Number((await count()).slice(7));
    const image = await model.encode(picture(8), { side: 512 });
    assert.equal(image.side, 512);
    assert.equal(image.tokens, 64);
    assert.equal(await model.ask(image, "x"), `turns=none sees=${seen(8, 512)} asked=x`);
    const vision = (await model.ask(image, "y").result).timings?.visionMs;
    assert.equal((await model.ask([image, image], "z").result).timings?.visionMs, vision);
    const chat = model.chat();
    await chat.ask(image, "kept by the conversation");
    image.release();
    assert.match(await chat.ask("more"), /\[1\|kept/);
    assert.equal(Number((await count()).slice(7)), before + 1);
    chat.close();
    for (let i = 0; i < 50; i++) await model.ask(picture(i), "again", { maxNewTokens: 1 });
    assert.equal(Number((await count()).slice(7)), before);
    await assert.rejects(async () => model.ask(image, "released"), { code: "argument", message: /released/ });
    const other = await api.load({ worker });
    const foreign = await other.encode(picture(1));
    await assert.rejects(async () => model.ask(foreign, "whose?"), { code: "argument", message: /another model/ });
    await other.close();
  });

  test(`${where}: a file is decoded as the user says, and the latest one is looked at once`, async (t) => {
    let decoded = 0;
    const model = await open(t, {
      decode: async (file, type) => {
        decoded += 1;
        assert.equal(type, "image/x-test");
        return { data: new Uint8Array(18).fill(file[0]), width: 2, height: 3 };
      },
    });
    const blob = new Blob([new Uint8Array([4, 5, 6])], { type: "image/x-test" });
    assert.equal(await model.ask(blob, "a"), `turns=none sees=${seen(4)} asked=a`);
    assert.equal(await model.ask(blob, "b"), `turns=none sees=${seen(4)} asked=b`);
    assert.equal(decoded, 1);
    await model.ask(blob, "c", { side: 256 });
    assert.equal(decoded, 2);
  });

  test(`${where}: errors have a class, a code and a message that says what to do`, async (t) => {
    const model = await open(t);
    /** @param {() => PromiseLike<unknown>} act @param {any} Class @param {string} code @param {RegExp} message */
    const refuses = (act, Class, code, message) =>
      assert.rejects(
        async () => act(),
        (/** @type {any} */ error) => {
          assert.ok(error instanceof Class && error instanceof api.TvlmError, `${error.name}: ${error.message}`);
          assert.equal(error.code, code);
          assert.match(error.message, message);
          return true;
        },
      );
    const { ImageError, ArgumentError, EngineError, UnsupportedError } = api;
    await refuses(() => model.ask(/** @type {any} */ (undefined)), ArgumentError, "argument", /a text is needed/);
    await refuses(() => model.ask(/** @type {any} */ (17), "q"), ArgumentError, "argument", /image: number is none/);
    await refuses(() => model.ask(/** @type {any} */ ({}), "q"), ArgumentError, "argument", /image: Object is none/);
    await refuses(() => model.ask(""), ArgumentError, "empty-prompt", /empty/);
    await refuses(() => model.ask("long ".repeat(100)), ArgumentError, "prompt-too-long", /500 positions, the model has 300/);
    await refuses(() => model.ask("q", { temperature: NaN }), ArgumentError, "argument", /temperature: NaN/);
    await refuses(() => model.ask("q", { temperature: 1000 }), ArgumentError, "argument", /0 \(greedy\) to 100/);
    await refuses(() => model.ask("q", { maxNewTokens: -1 }), ArgumentError, "argument", /maxNewTokens: -1/);
    await refuses(() => model.ask("q", { maxNewTokens: 1.5 }), ArgumentError, "argument", /maxNewTokens/);
    await refuses(() => model.ask({ ...picture(1), width: 0 }, "q"), ImageError, "image-empty", /0 x 3/);
    await refuses(() => model.ask({ ...picture(1), width: 9 }, "q"), ImageError, "image-length", /24 bytes, 9 x 3 pixels need 81 \(RGB\) or 108/);
    await refuses(() => model.ask({ ...picture(1), width: 65535, height: 65535 }, "q"), ImageError, "image-too-large", /maxPixels/);
    await refuses(() => model.ask(/** @type {any} */ ({ data: new Float32Array(6), width: 1, height: 2 }), "q"), ImageError, "image-kind", /bytes/);
    const gone = picture(1);
    structuredClone(gone.data, { transfer: [gone.data.buffer] });
    await refuses(() => model.ask(gone, "q"), ImageError, "image-detached", /detached/);
    await refuses(() => model.ask(new Blob([]), "q"), ImageError, "image-empty", /empty/);
    await refuses(() => model.ask(new Blob(["x"]), "q"), UnsupportedError, "no-decoder", /decode/);
    await refuses(() => model.ask("no address", "q"), ImageError, "image-address", /no address/);
    await refuses(() => model.ask("trap"), EngineError, "poisoned", /failed/);
    // A header of 30 bytes that claims more than any picture has.
    const bomb = new Uint8Array(30);
    bomb.set([0x89, 0x50, 0x4e, 0x47, 13, 10, 26, 10, 0, 0, 0, 13, 0x49, 0x48, 0x44, 0x52, 0, 0, 255, 255, 0, 0, 255, 255]);
    await refuses(() => model.ask(new Blob([bomb]), "q"), ImageError, "image-too-large", /65535 x 65535/);
    assert.match(await model.ask("hello"), /hello/);
  });

  test(`${where}: closed is closed, also for what is asked at the time`, async () => {
    const model = await api.load({ worker });
    const slow = model.ask("slow", { maxNewTokens: 400 });
    for await (const _ of slow) break;
    const waiting = model.ask("slow");
    await model.close();
    await assert.rejects(async () => model.ask("late"), (/** @type {any} */ error) => error instanceof api.EngineError && error.code === "closed");
    await assert.rejects(async () => waiting, { code: "closed" });
    await model.close();
  });
}

/** What a script prints that has `load` and `api`. @param {string} script @param {string[]} [flags] */
function child(script, flags = []) {
  const index = JSON.stringify(pathToFileURL(join(made.root, "index.js")).href);
  const text = `const api = await import(${index}); const { load } = api; ${script}`;
  const { stdout, status, stderr } = spawnSync(process.execPath, [...flags, "--input-type=module", "-e", text], { encoding: "utf8", timeout: 30_000 });
  assert.equal(status, 0, stderr);
  return stdout;
}

/** Later versions have it without. */
const RELAXED = Number(process.versions.node.split(".")[0]) < 21 ? ["--experimental-wasm-relaxed-simd"] : [];

test("a team of threads is started where there can be one", () => {
  const script = `const model = await load({ threads: 3 }); console.log(model.info.variant, model.info.threads, await model.ask("hello"));`;
  assert.equal(child(script, RELAXED), "threads 3 turns=none sees=nothing asked=hello\n");
  if (RELAXED.length) assert.equal(child(script), "simd128 1 turns=none sees=nothing asked=hello\n");
});

test("with shared memory a long phase is ended in its middle, and only the one that was meant", () => {
  const script = `const model = await load({ threads: 2 });
    const phase = model.ask("phase"), after = model.ask("after it");
    setTimeout(() => phase.cancel(), 100);
    const began = performance.now();
    const { text, stop } = await phase.result;
    console.log(text, stop, performance.now() - began < 1300, await after, (await after.result).stop);
    const whole = model.ask("phase"), waiting = model.ask("waiting");
    setTimeout(() => waiting.cancel(), 100);
    console.log(await whole, (await waiting.result).stop);`;
  const first = "phase ended early cancelled true turns=none sees=nothing asked=after it end\n";
  assert.equal(child(script, RELAXED), `${first}phase ended late cancelled\n`);
});

test("a team that cannot be started is done without, unless it was asked for", () => {
  // The stand-in's members of a model with this name fail.
  const other = makePackage({ name: "memberless" });
  const index = JSON.stringify(pathToFileURL(join(other.root, "index.js")).href);
  const script = `const other = await import(${index}); const model = await other.load();
    console.log(model.info.variant, model.info.threads, await model.ask("hello"));
    await model.close();
    await other.load({ threads: 2 }).catch((error) => console.log(error.name, error.code));`;
  assert.equal(child(script, RELAXED), "threads 1 turns=none sees=nothing asked=hello\nUnsupportedError no-threads\n");
  other.remove();
});

test("a page drives the model itself: work happens in `step` alone", async (t) => {
  const model = await api.load({ manual: true });
  t.after(() => model.close());
  await model.ready;
  const answer = model.ask("a b c");
  await new Promise((resolve) => setTimeout(resolve, 30));
  assert.equal(answer.text, "");
  let steps = 0;
  for (; steps < 1000 && answer.stage !== "done"; steps++) {
    model.step(1);
    await new Promise((resolve) => setTimeout(resolve));
  }
  assert.ok(steps > 3);
  assert.match(await answer, /asked=a b c/);
  assert.equal(model.step(1), false);
  // Closing does not wait for steps.
  const left = model.ask("slow");
  await new Promise((resolve) => setTimeout(resolve, 5));
  model.step(1);
  await model.close();
  assert.equal((await left.result).stop, "cancelled");
});

test("on one's own thread the event loop goes on during an answer", async (t) => {
  const model = await api.load({ worker: false });
  t.after(() => model.close());
  await model.ready;
  let turns = 0;
  const timer = setInterval(() => (turns += 1), 1);
  await model.ask("slow", { maxNewTokens: 300 });
  clearInterval(timer);
  assert.ok(turns > 5, `${turns} turns`);
});

test("two models at once", async () => {
  const [one, two] = await Promise.all([api.load({}), api.load({ worker: false })]);
  assert.deepEqual(await Promise.all([one.ask("a"), two.ask("a")]), Array(2).fill("turns=none sees=nothing asked=a"));
  await Promise.all([one.close(), two.close()]);
});

test("options with impossible values are refused", async () => {
  for (const bad of [{ threads: 0 }, { threads: 1.5 }, { side: 1.5 }, { worker: "yes" }, { cache: "attic" }, { url: "nowhere" }, { profile: "watch" }]) {
    await assert.rejects(api.load(/** @type {any} */ (bad)), { code: "argument" }, JSON.stringify(bad));
  }
});

test("options that there are not are refused, with the one that was meant", async () => {
  const table = /** @type {[any, RegExp][]} */ ([
    [{ thread: 2 }, /^thread: there is no such option; did you mean `threads`\?$/],
    [{ onprogress() {} }, /^onprogress: .*did you mean `onProgress`\?$/],
    [{ maxpixel: 1 }, /did you mean `maxPixels`\?/],
    [{ download: { retry: 1 } }, /^download\.retry: .*did you mean `download\.retries`\?$/],
    [{ quantization: "int4" }, /^quantization: .*options are url, onProgress, /],
    ["https://example.org/model/", /^load: https:.* is no object of options$/],
    [null, /^load: null is no object of options$/],
  ]);
  for (const [bad, message] of table) {
    await assert.rejects(api.load(bad), (/** @type {any} */ error) => {
      assert.ok(error instanceof api.ArgumentError && error.code === "argument");
      assert.match(error.message, message);
      return true;
    });
  }
});

test("a process ends by itself with a model that nobody uses", () => {
  assert.equal(child(`const model = await load(); await model.ready; console.log(model.info.worker, await model.ask("hello"));`), "true turns=none sees=nothing asked=hello\n");
});

// A weight file that arrives while it is used, a job that is cancelled, ended, or in another one's way.

import assert from "node:assert/strict";

import { serve } from "../../../web/js/engine.js";
import { description, file, make, opened } from "./setup.mjs";

const weights = file("weights.tvlm");
const { header_end: begin } = description(weights).file;
const pixels = new Uint8Array(4 * 4 * 3).fill(9);
const question = "what is it?";
const options = { ignoreEos: true, maxNewTokens: 5 };

/** Text of a job that is stepped to its end. */
function stepped(job) {
  while (job.step(1) !== "done");
  return job.take();
}

/** An engine of which only what it needs to open is there. */
async function early() {
  const engine = await make();
  await assert.rejects(engine.open(), { code: "weights-truncated" });
  engine.file.set(weights.subarray(0, begin));
  engine.arrived(begin);
  await engine.open();
  return engine;
}

const arrive = (engine, end) => {
  engine.file.set(weights.subarray(engine.available, end), engine.available);
  engine.arrived(end);
};

const whole = await opened();
const expected = stepped(whole.ask([], question, options));
whole.reset();

{
  // In slices: each step waits for its weights and for no others.
  const engine = await early();
  const job = engine.image(pixels, 4, 4);
  assert.equal(job.step(1000), "waiting");
  arrive(engine, begin + 10);
  assert.equal(job.step(1000), "waiting");
  assert.equal(job.result, undefined);
  arrive(engine, weights.length);
  assert.equal(job.step(1000), "done");
  assert.equal(job.result.tokens, 3);
  assert.equal(stepped(engine.ask([], question, options)), expected);
}
{
  // In whole phases, with the file behind.
  const engine = await early();
  const done = (async () => {
    let text = "";
    for await (const piece of engine.ask([], question, options).pieces()) text += piece;
    return text;
  })();
  for (let end = begin; end <= weights.length; end += 9) {
    await new Promise((resolve) => setTimeout(resolve, 1));
    arrive(engine, Math.min(end, weights.length));
  }
  arrive(engine, weights.length);
  assert.equal(await done, expected);
  // A job that waits can be cancelled.
  const other = await early();
  const job = other.ask([], question, options);
  setTimeout(() => job.cancel(), 5);
  assert.equal((await job.run()).stop, "cancelled");
  const vision = other.image(pixels, 4, 4);
  vision.cancel();
  await assert.rejects(vision.run(), { code: "cancelled" });
}
{
  // A cancelled question was never asked; one job at a time.
  const job = whole.ask([], question, options);
  assert.throws(() => whole.ask([], question), { code: "argument" });
  assert.throws(() => whole.reset(), { code: "argument" });
  job.step(0);
  job.cancel();
  assert.equal(stepped(job), "");
  assert.equal(job.result.stop, "cancelled");
  assert.equal(whole.position().used, 0);
  assert.equal(stepped(whole.ask([], question, options)), expected);
  // One that is left alone is ended by the engine, in the middle of an answer as well.
  whole.reset();
  const left = whole.ask([], question, { ...options, maxNewTokens: 50 });
  for (let text = ""; text.length < 3; text += left.take()) assert.equal(left.step(0), "again");
  whole.stop();
  assert.throws(() => left.step(0), { code: "cancelled" });
  whole.reset();
  assert.equal(stepped(whole.ask([], question, options)), expected);
}
{
  // Who leaves an answer ends it.
  whole.reset();
  for await (const piece of whole.ask([], question, { ...options, maxNewTokens: 50 }).pieces()) {
    assert.equal(piece.length, 1);
    break;
  }
  whole.reset();
  assert.equal(stepped(whole.ask([], question, options)), expected);
  // Images that were released are nobody's; memory comes back.
  const big = new Uint8Array(1000 * 1000 * 4).fill(3);
  const encode = () => {
    const job = whole.image(big, 1000, 1000);
    stepped(job);
    return job.result;
  };
  whole.release(encode());
  const before = whole.memoryBytes;
  for (let i = 0; i < 20; i++) whole.release(encode());
  assert.equal(whole.memoryBytes, before);
  const image = encode();
  whole.release(image);
  assert.throws(() => whole.ask([image], question), { code: "argument" });
  // Time is the host's.
  const { preprocess } = whole.timings();
  assert.ok(preprocess > 0 && preprocess < 60000, `${preprocess} ms`);
}
{
  // A team: everybody is told the same, and where one cannot be had there is none.
  const told = [];
  const spawn = (member, count, init) => told.push([member, count, init]);
  const team = await opened({ shared: true, threads: 3, spawn });
  assert.deepEqual(told.map(([member, count]) => [member, count]), [[1, 3], [2, 3]]);
  const { memory, kernels, arena, weights: at, control } = told[0][2];
  assert.ok(memory.buffer instanceof SharedArrayBuffer && kernels instanceof WebAssembly.Module);
  for (const address of [arena, at, control]) assert.ok(address > 0 && address % 64 === 0, `${address}`);
  assert.equal(new Uint8Array(memory.buffer, at, 1)[0], 3);
  // The stand-in's members have nothing to do, but they are there.
  await serve(1, 3, told[0][2]);
  assert.equal((await team.ask([], question, options).run()).stop, "max-tokens");
  // Somebody else may stop the kernels.
  const job = team.ask([], question, options);
  assert.deepEqual(team.cancelWord, { memory, at: control });
  Atomics.store(new Int32Array(memory.buffer, control, 1), 0, 1);
  assert.equal((await job.run()).stop, "cancelled");
  const alone = await opened({ shared: true, threads: 3, spawn: (member) => member === 2 && Promise.reject(new Error("no")) });
  assert.equal(alone.threads, 1);
  assert.equal(stepped(alone.ask([], question, options)), expected);
  await assert.rejects(opened({ shared: true, threads: 2 }), { code: "argument" });
}
{
  // Kernels that trap take the engine with them, by name.
  const text = `
    (func $units (export "units") (param $phase i32) (param $index i32) (param $rows i32) (result i32) (return (i32.const 1)))
    (func $embed (export "embed") (param $id i32) (param $row i32) (unreachable))`;
  const engine = await opened({ text });
  const job = engine.ask([], question, options);
  const poisoned = ({ code, message }) => code === "poisoned" && message.includes("unreachable");
  assert.throws(() => job.step(1), poisoned);
  assert.throws(() => job.step(1), poisoned);
  assert.throws(() => engine.ask([], question), poisoned);
  assert.throws(() => engine.tokenize("a"), poisoned);
  engine.close();
}
console.log(JSON.stringify("ok"));

// Runs a kernels module as a page would: node run.mjs PLAN.json, a line on stdout for each command.
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { Worker, isMainThread, workerData } from 'node:worker_threads';

const instantiate = ({ module, memory, control, arena, weights }) => {
  const number = (value) => new WebAssembly.Global({ value: 'i32' }, value);
  const env = { memory, control: number(control), arena: number(arena), weights: number(weights) };
  return new WebAssembly.Instance(module, { env }).exports;
};

if (!isMainThread) {
  instantiate(workerData.parts).work(workerData.member, workerData.count);
} else {
  const plan = JSON.parse(readFileSync(process.argv[2]));
  const line = (n) => Math.ceil(n / 64) * 64;
  const [control, arena] = [1024, 4096];
  const weights = arena + line(plan.arena) + line(plan.scratch) * plan.threads;
  const packed = readFileSync(plan.weights);
  const pages = Math.ceil((weights + packed.length) / 65536);
  const memory = new WebAssembly.Memory(plan.shared ? { initial: pages, maximum: 65536, shared: true } : { initial: pages });
  const bytes = new Uint8Array(memory.buffer);
  bytes.set(packed, weights);
  const module = new WebAssembly.Module(readFileSync(plan.module));
  const [section] = WebAssembly.Module.customSections(module, 'tvlmc.info');
  if (!section || section.byteLength < 100) throw new Error('no section tvlmc.info');
  const parts = { module, memory, control, arena, weights };
  const kernels = instantiate(parts);
  const workers = [];
  for (let member = 1; plan.shared && member < plan.threads; member++) {
    workers.push(new Worker(new URL(import.meta.url), { workerData: { parts, member, count: plan.threads } }));
  }
  const hash = () => createHash('sha256').update(bytes.subarray(arena, arena + plan.arena)).digest('hex');
  for (const command of plan.commands) {
    if (command.load) bytes.set(readFileSync(command.load), arena);
    if (command.embed) kernels.embed(...command.embed);
    if (command.run) {
      const [phase, start, rows] = command.run;
      if (plan.shared && plan.threads > 1) kernels.begin(phase, start, rows, plan.threads);
      const began = performance.now();
      const stopped = kernels.run(phase, start, rows, 0, plan.shared ? plan.threads : 1);
      if (plan.times) console.error(`phase ${phase}: ${(performance.now() - began).toFixed(2)} ms`);
      if (stopped !== (command.cancelled ? 1 : 0)) throw new Error(`run gave ${stopped}`);
    }
    if (command.cancel !== undefined) new Int32Array(memory.buffer, control, 1)[0] = command.cancel;
    if (command.steps) {
      // Each step in parts, as several members would do them, later ones first.
      const [phase, start, rows, n] = command.steps;
      for (let i = 0; i < n; i++) {
        const units = kernels.units(phase, i, rows);
        for (let part = plan.threads - 1; part >= 0; part--) {
          const at = (p) => Math.floor((units * p) / plan.threads);
          kernels.step(phase, i, at(part), at(part + 1), start, rows, part);
        }
        console.log(hash());
      }
      continue;
    }
    console.log(hash());
  }
  if (plan.shared) {
    kernels.stop();
    await Promise.all(workers.map((worker) => new Promise((resolve) => worker.on('exit', resolve))));
  }
}

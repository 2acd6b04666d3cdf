// As much of WebAssembly's text format as the stand-in kernels need: folded instructions, functions, the memory and the
// three globals that kernels import. `assemble(text, { shared, section })` gives the module's bytes.

const OPS = {
  unreachable: 0x00, return: 0x0f, "i32.eqz": 0x45, "i32.eq": 0x46, "i32.ne": 0x47, "i32.lt_u": 0x49, "i32.gt_u": 0x4b, "i32.ge_u": 0x4f,
  "i32.add": 0x6a, "i32.sub": 0x6b, "i32.mul": 0x6c, "i32.div_u": 0x6e, "i32.rem_u": 0x70, "i32.and": 0x71, "i32.xor": 0x73, "i32.shl": 0x74,
  "i32.shr_u": 0x76, "i32.rotl": 0x77, "f32.add": 0x92, "f32.convert_i32_u": 0xb3, "i32.trunc_f32_u": 0xa9,
};
const MEMORY = { "i32.load": 0x28, "f32.load": 0x2a, "i32.store": 0x36, "f32.store": 0x38 };
const TYPES = { i32: 0x7f, f32: 0x7d };
const GLOBALS = ["$arena", "$weights", "$control"];

const unsigned = (n) => (n < 128 ? [n] : [(n & 127) | 128, ...unsigned(n >>> 7)]);
const signed = (n) => (n >= -64 && n < 64 ? [n & 127] : [(n & 127) | 128, ...signed(n >> 7)]);
const vector = (items) => [...unsigned(items.length), ...items.flat()];
const name = (text) => vector([...new TextEncoder().encode(text)]);
const section = (id, bytes) => [id, ...unsigned(bytes.length), ...bytes];
const float = (n) => [...new Uint8Array(new Float32Array([n]).buffer)];

function parse(text) {
  const tokens = text.replace(/;;.*/g, "").match(/[()]|"[^"]*"|[^\s()]+/g);
  const list = () => {
    const items = [];
    for (;;) {
      const token = tokens.shift();
      if (token === undefined || token === ")") return items;
      items.push(token === "(" ? list() : token);
    }
  };
  return list();
}

function body(items, locals, functions, labels = []) {
  const one = (item) => {
    const [op, ...args] = item;
    const all = (list, inner = labels) => list.flatMap((arg) => body([arg], locals, functions, inner));
    const local = () => {
      const at = locals.indexOf(args[0]);
      if (at < 0) throw new Error(`no local ${args[0]}`);
      return unsigned(at);
    };
    const label = () => {
      const at = labels.indexOf(args[0]);
      if (at < 0) throw new Error(`no label ${args[0]}`);
      return unsigned(at);
    };
    switch (op) {
      case "local.get": return [0x20, ...local()];
      case "local.set": return [...all(args.slice(1)), 0x21, ...local()];
      case "global.get": return [0x23, ...unsigned(GLOBALS.indexOf(args[0]))];
      case "i32.const": return [0x41, ...signed(Number(args[0]) | 0)];
      case "f32.const": return [0x43, ...float(Number(args[0]))];
      case "call": return [...all(args.slice(1)), 0x10, ...unsigned(functions.indexOf(args[0]))];
      case "br": return [0x0c, ...label()];
      case "br_if": return [...all(args.slice(1)), 0x0d, ...label()];
      case "block": case "loop": return [op === "block" ? 2 : 3, 0x40, ...all(args.slice(1), [args[0], ...labels]), 0x0b];
      case "if": {
        const inner = ["", ...labels];
        const [condition, then, otherwise] = args;
        const code = [...all([condition]), 0x04, 0x40, ...all(then.slice(1), inner)];
        return [...code, ...(otherwise ? [0x05, ...all(otherwise.slice(1), inner)] : []), 0x0b];
      }
    }
    if (op in MEMORY) return [...all(args), MEMORY[op], 2, 0];
    if (!(op in OPS)) throw new Error(`no instruction ${op}`);
    return [...all(args), OPS[op]];
  };
  return items.flatMap(one);
}

export function assemble(text, { shared = false, info } = {}) {
  const defined = parse(text).map(([, id, ...rest]) => {
    const named = (word) => rest.filter((item) => item[0] === word);
    const params = named("param").map(([, n]) => n);
    const locals = named("local");
    const code = rest.filter((item) => !["param", "local", "result", "export"].includes(item[0]));
    return { id, params, locals, code, results: named("result").map(([, type]) => TYPES[type]), exports: named("export").map(([, n]) => n.slice(1, -1)) };
  });
  const ids = defined.map(({ id }) => id);
  const types = defined.map(({ params, results }) => [0x60, ...vector(params.map(() => [TYPES.i32])), ...vector(results.map((r) => [r]))]);
  const memory = shared ? [2, 3, ...unsigned(1), ...unsigned(65536)] : [2, 0, ...unsigned(1)];
  const imports = [[...name("env"), ...name("memory"), ...memory], ...GLOBALS.map((g) => [...name("env"), ...name(g.slice(1)), 3, TYPES.i32, 0])];
  const codes = defined.map(({ params, locals, code }) => {
    const names = [...params, ...locals.map(([, n]) => n)];
    const bytes = [...vector(locals.map(([, , type]) => [1, TYPES[type]])), ...body(code, names, ids), 0x0b];
    return [...unsigned(bytes.length), ...bytes];
  });
  const exports = defined.flatMap((f, i) => f.exports.map((n) => [...name(n), 0, ...unsigned(i)]));
  return new Uint8Array([
    0, 0x61, 0x73, 0x6d, 1, 0, 0, 0,
    ...section(1, vector(types)), ...section(2, vector(imports)), ...section(3, vector(ids.map((_, i) => unsigned(i)))),
    ...section(7, vector(exports)), ...section(10, vector(codes)),
    ...(info ? section(0, [...name("tvlmc.info"), ...info]) : []),
  ]);
}

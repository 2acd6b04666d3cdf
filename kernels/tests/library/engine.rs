//! Encoded kernels in a WebAssembly engine: one Node for all tests, asked through pipes.

use std::io::{Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::rc::Rc;
use std::sync::{Mutex, OnceLock};

use codegen_wasm::{Level, callable_module};
use kernels::{Kernel, Memory, Place};

/// Reads requests: three numbers (bytes of the module, bytes of memory, arguments), then all of these. Answers with the
/// memory, or 1 and an error.
const SERVER: &str = "
const fs = require('fs');
const read = (n) => {
  const out = Buffer.alloc(n);
  for (let at = 0; at < n;) {
    try { const got = fs.readSync(0, out, at, n - at); if (got === 0) process.exit(0); at += got; }
    catch (e) { if (e.code !== 'EAGAIN') throw e; }
  }
  return out;
};
const write = (bytes) => {
  for (let at = 0; at < bytes.length;) {
    try { at += fs.writeSync(1, bytes, at, bytes.length - at); } catch (e) { if (e.code !== 'EAGAIN') throw e; }
  }
};
for (;;) {
  const head = read(12), [code, bytes, n] = [0, 4, 8].map((at) => head.readUInt32LE(at));
  const module = read(code), input = read(bytes), words = read(4 * n);
  const args = Array.from({ length: n }, (_, i) => words.readInt32LE(4 * i));
  const status = Buffer.alloc(8);
  try {
    const memory = new WebAssembly.Memory({ initial: Math.ceil(bytes / 65536) });
    const instance = new WebAssembly.Instance(new WebAssembly.Module(module), { env: { memory } });
    new Uint8Array(memory.buffer).set(input);
    instance.exports.run(...args);
    status.writeUInt32LE(bytes, 4);
    write(Buffer.concat([status, Buffer.from(memory.buffer, 0, bytes)]));
  } catch (e) {
    const text = Buffer.from(String(e));
    status.writeUInt32LE(1, 0);
    status.writeUInt32LE(text.length, 4);
    write(Buffer.concat([status, text]));
  }
}
";

struct Node {
    _child: Child,
    ask: ChildStdin,
    answer: ChildStdout,
}

fn node() -> &'static Option<Mutex<Node>> {
    static NODE: OnceLock<Option<Mutex<Node>>> = OnceLock::new();
    NODE.get_or_init(|| {
        let there = Command::new("node").arg("--version").output().is_ok_and(|out| out.status.success());
        if !there {
            println!("skipped: encoded kernels in an engine: no node");
            return None;
        }
        let mut child = Command::new("node")
            .args(["--experimental-wasm-relaxed-simd", "-e", SERVER])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("node starts");
        let (ask, answer) = (child.stdin.take().expect("piped"), child.stdout.take().expect("piped"));
        Some(Mutex::new(Node { _child: child, ask, answer }))
    })
}

/// Whether there is no engine for a level here, which is told once.
pub fn missing(level: Level) -> bool {
    static DOTS: OnceLock<bool> = OnceLock::new();
    // The baseline compiler of Node 20's V8, where relaxed SIMD is an experiment, computes the single one wrongly.
    let dots = || {
        let version = Command::new("node").arg("--version").output().map(|out| out.stdout).unwrap_or_default();
        let version = String::from_utf8_lossy(&version).trim().to_string();
        let major = version.trim_start_matches('v').split('.').next().and_then(|n| n.parse::<u32>().ok());
        let right = major.is_some_and(|n| n >= 22);
        if !right {
            println!("skipped: kernels with single dot products: node {version} computes them wrongly");
        }
        right
    };
    node().is_none() || level == Level::RelaxedDot && !*DOTS.get_or_init(dots)
}

/// Runs the function of a legalized kernel as the interpreter would.
pub fn run(kernel: &Kernel, level: Level, memory: &mut Memory, places: &[Place], sizes: &[i64]) -> Result<(), String> {
    // Buffers one after the other, behind the first line.
    let (mut image, mut starts) = (vec![0u8; 64], Vec::new());
    for buffer in &memory.buffers {
        image.resize(image.len().next_multiple_of(64), 0);
        starts.push(image.len());
        image.extend(buffer.iter().flat_map(|word| word.to_le_bytes()));
    }
    let (mut pointers, mut numbers) = (places.iter(), sizes.iter());
    let args: Vec<u32> = kernel
        .params
        .iter()
        .map(|param| match param.kind {
            kernels::ParamKind::Ptr(..) => {
                let place = pointers.next().expect("as many as parameters");
                (starts[place.buffer] + place.at) as u32
            }
            kernels::ParamKind::Size(_) => *numbers.next().expect("as many as parameters") as u32,
        })
        .collect();
    let after = ask(&callable_module(&Rc::new(kernel.clone()), level), &image, &args)?;
    for (buffer, start) in memory.buffers.iter_mut().zip(starts) {
        for (word, bytes) in buffer.iter_mut().zip(after[start..].chunks_exact(4)) {
            *word = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        }
    }
    Ok(())
}

fn ask(module: &[u8], image: &[u8], args: &[u32]) -> Result<Vec<u8>, String> {
    let mut node = node().as_ref().expect("there is a node").lock().unwrap_or_else(|e| e.into_inner());
    let mut request = Vec::new();
    for n in [module.len(), image.len(), args.len()] {
        request.extend((n as u32).to_le_bytes());
    }
    request.extend_from_slice(module);
    request.extend_from_slice(image);
    request.extend(args.iter().flat_map(|n| n.to_le_bytes()));
    node.ask.write_all(&request).expect("node listens");
    node.ask.flush().expect("node listens");
    let mut head = [0; 8];
    node.answer.read_exact(&mut head).expect("node answers");
    let word = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let mut rest = vec![0; word(4) as usize];
    node.answer.read_exact(&mut rest).expect("node answers");
    if word(0) == 0 { Ok(rest) } else { Err(String::from_utf8_lossy(&rest).into_owned()) }
}

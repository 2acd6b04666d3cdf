//! Developer commands: `cargo xtask COMMAND`. What a command runs is printed before it runs.

mod bench;
mod demo;
mod emitted;
mod facts;
mod full;
mod json;
mod options;
mod peers;
mod report;
mod runtime_wasm;
mod setup;
mod shell;
mod test;
mod web;

use std::process::ExitCode;

const HELP: &str = "\
cargo xtask COMMAND

  setup [--full]   install what the tests (--full: also the long ladder) need and this machine lacks
  test             the one test command: format, lints, the demo's answers, every test of the workspace
  full             the long ladder: fresh checkpoints, the 0.5B model, an old processor, Miri
  demo             compile the demo model and answer questions about its pictures
  runtime-wasm     build the runtime of WebAssembly targets anew, which the compiler embeds
  facts [--write]  count the assembly of the hot kernels; --write makes it the reviewed one
  bench [--checkpoint DIR] [--rounds N] [--runs N] [--threads N,N] [--json FILE]
                   the emitted vision tower and ONNX Runtime, side by side
  bench-peers [--checkpoint DIR] [--quant FORMAT] [--rounds N] [--runs N] [--threads N,N]
              [--only SIDE,SIDE] [--json FILE] [--markdown FILE]
                   the emitted model and all peers in turn, every phase; installs the peers first
  bench-web [--checkpoint DIR] [--rounds N] [--runs N] [--threads N,N] [--only SIDE,SIDE]
            [--json FILE] [--markdown FILE]
                   the emitted web package and its peers in Chromium

Fresh checkpoints and environments live in $TVLMC_CACHE [~/.cache/tvlmc].
";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match args.as_slice() {
        ["setup"] => setup::run(false),
        ["setup", "--full"] => setup::run(true),
        ["test"] => test::run(),
        ["full"] => full::run(),
        ["demo", rest @ ..] => demo::run(rest),
        ["facts", rest @ ..] => facts::run(rest),
        ["runtime-wasm"] => write_runtime(),
        ["bench", rest @ ..] => bench::run(rest),
        ["bench-peers", rest @ ..] => peers::run(rest),
        ["bench-web", rest @ ..] => peers::web::bench(rest),
        ["help" | "-h" | "--help"] => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        [] => return usage("no command"),
        [other, ..] => return usage(&format!("`{other}` is not a command, or takes other arguments")),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(reason) => {
            eprintln!("xtask: {reason}");
            ExitCode::from(4)
        }
    }
}

/// Builds the module and puts it where the compiler finds it.
fn write_runtime() -> Result<bool, String> {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), Into::into);
    let module = runtime_wasm::build(&root, &target.join("runtime-wasm"))?;
    let files = [(runtime_wasm::MODULE, module), (runtime_wasm::VERSION, runtime_wasm::rustc()?.into_bytes())];
    for (name, bytes) in files {
        std::fs::write(root.join(name), &bytes).map_err(|error| format!("{name}: {error}"))?;
        println!("{name}: {} bytes", bytes.len());
    }
    Ok(true)
}

fn usage(reason: &str) -> ExitCode {
    eprint!("xtask: {reason}\n\n{HELP}");
    ExitCode::from(2)
}

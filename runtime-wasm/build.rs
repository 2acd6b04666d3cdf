//! How the module is linked: its memory is the host's, and its stack is small.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_FAMILY").as_deref() == Ok("wasm") {
        // Nothing of the runtime recurses, and its largest frames hold some hundred bytes. The stack lies first in memory, so
        // that one too deep traps.
        for argument in ["--import-memory", "-zstack-size=65536", "--stack-first", "--gc-sections"] {
            println!("cargo::rustc-cdylib-link-arg={argument}");
        }
    }
}

//! The emitted crate under Miri, the interpreter that finds undefined behavior and races: a picture, a prompt and a token,
//! by two threads. The model is the smallest there can be; its kernels are those of all models, at other sizes.

mod frontend_support;

use std::path::Path;
use std::process::Command;

use frontend_support::{Folder, description};
use models::Layout;
use tvlmc::assemble::{Options, assemble};
use tvlmc::output::Staging;
use tvlmc::package::WEIGHTS_NAME;

/// `cargo` of the nightly toolchain; that of this process must not leak into it.
fn miri(args: &[&str]) -> Command {
    let mut command = Command::new("cargo");
    command.args(["+nightly", "miri"]).args(args);
    command.env_remove("CARGO").env_remove("RUSTUP_TOOLCHAIN").env_remove("RUSTC").env_remove("LD_LIBRARY_PATH");
    command
}

/// Values that stay small through the whole model.
fn calm(folder: &mut Folder) {
    for tensor in folder.tensors.values_mut().filter(|tensor| tensor.dtype == "BF16") {
        for value in tensor.bytes.as_chunks_mut::<2>().0 {
            // A sixteenth: the exponent of a bf16 begins at bit 7.
            let bits = u16::from_le_bytes(*value);
            let smaller = if bits & 0x7f80 > 4 << 7 { bits - (4 << 7) } else { bits };
            *value = smaller.to_le_bytes();
        }
    }
}

#[test]
#[ignore = "minutes; cargo xtask full"]
fn the_emitted_crate_has_no_undefined_behavior() {
    let there = miri(&["--version"]).output();
    if !there.is_ok_and(|output| output.status.success()) {
        println!("skipped: the emitted crate under Miri, which is not installed");
        return;
    }
    let dir = tempfile::tempdir().expect("a folder");
    let mut small = description(Layout::FastVlm);
    small.vision.dims = [8, 16, 32, 64, 128];
    (small.text.hidden, small.text.head_dim) = (64, 32);
    let mut folder = Folder::of(&small);
    calm(&mut folder);
    let model = dir.path().join("model");
    std::fs::create_dir(&model).expect("a folder");
    folder.write_to(&model);
    let assembled = assemble(&model, &Options::default()).unwrap_or_else(|e| panic!("{e}"));
    let staging = Staging::begin(&dir.path().join("out"), false).unwrap_or_else(|e| panic!("{e}"));
    assembled.write(&staging, &|_| Ok(())).unwrap_or_else(|e| panic!("{e}"));
    let out = staging.commit().unwrap_or_else(|e| panic!("{e}"));

    let (width, height) = (9, 5);
    let pixels: Vec<u8> = (0..width * height * 3).map(|i| (i * 89 % 256) as u8).collect();
    let picture = dir.path().join("picture.rgb");
    std::fs::write(&picture, pixels).expect("written");
    let rgb = format!("{width}x{height}:{}", picture.display());
    let args = ["--rgb", &rgb, "--prompt", "a", "--max-new-tokens", "2", "--ignore-eos", "--threads", "2"];
    let mut run = miri(&["run", "--offline", "--quiet", "--", "--level", "x86-64-v3", "--json"]);
    run.args(args).arg("--weights").arg(out.join(WEIGHTS_NAME)).current_dir(&out);
    run.env("CARGO_TARGET_DIR", Path::new(env!("CARGO_TARGET_TMPDIR")).join("miri"));
    run.env("RUSTFLAGS", "-Ctarget-feature=+avx2,+fma");
    run.env("MIRIFLAGS", "-Zmiri-disable-isolation");
    let done = run.output().expect("cargo runs");
    let (stdout, stderr) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "{stdout}{stderr}");
    println!("{}", stdout.trim());
    let report: serde_json::Value = serde_json::from_str(stdout.trim()).expect("one JSON object");
    assert_eq!(report["token_ids"].as_array().map(Vec::len), Some(2), "{report}");
}

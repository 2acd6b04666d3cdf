//! `cargo xtask full`: the long ladder. What a machine lacks is named in the summary line.

use crate::emitted::{self, Choices};
use crate::report::{Outcome, Report};
use crate::{facts, shell, test};

/// Runs the short ladder strictly, then what takes long or needs other tools.
pub fn run() -> Result<bool, String> {
    let cache = shell::cache()?;
    let mut report = Report::default();
    report.stage("format, strict", || {
        let good = shell::run(&mut shell::cargo(&["fmt", "--all", "--check"]))?;
        Ok(if good { Outcome::Good(String::new()) } else { Outcome::Bad("run `cargo fmt --all`".to_string()) })
    });
    report.stage("lints, strict", || test::lints(&["-D", "warnings"]));
    report.stage("fresh checkpoints", fresh);
    test::stages(&mut report);

    report.stage("assembly facts", facts::check);
    let mut skipped = Vec::new();
    let oracle = cache.join("oracle").display().to_string();
    report.stage("long tests", || {
        let args = ["--workspace", "--release", "--no-fail-fast", "--", "--ignored"];
        test::cargo_test(&args, &[("TVLMC_ORACLE", &oracle)], &mut skipped)
    });
    for reason in skipped {
        report.skip(&reason);
    }
    report.stage("hostile bytes", || test::cargo_test(&["--manifest-path", "fuzz/Cargo.toml"], &[], &mut Vec::new()));
    report.stage("orders of threads", orders);
    report.stage("old processor", old_processor);
    report.stage("levels of other processors", other_levels);
    report.stage("Miri", miri);
    Ok(report.summary())
}

/// Draws the checkpoints of `xtask/oracle/draw.sh` and records what the reference computes with them.
fn fresh() -> Result<Outcome, String> {
    let python = shell::cache()?.join("oracle-venv/bin/python");
    if !python.is_file() {
        return Ok(Outcome::Skipped("no reference implementation; `cargo xtask setup --full` installs it".to_string()));
    }
    let set = std::env::var_os("TVLMC_ORACLE_SCRIPTS").filter(|folder| !folder.is_empty());
    let scripts = set.map_or_else(|| shell::root().join("../shared/oracle"), |folder| shell::root().join(folder));
    for script in ["make_checkpoint.py", "run_reference.py"] {
        if !scripts.join(script).is_file() {
            let why = format!("no {script} in {}; TVLMC_ORACLE_SCRIPTS names another folder", scripts.display());
            return Ok(Outcome::Skipped(why));
        }
    }
    let args = ["xtask/oracle/draw.sh", "--scripts", emitted::utf8(&scripts)?, "all"];
    let good = shell::run(&mut shell::command("bash", &args))?;
    Ok(if good { Outcome::Good(String::new()) } else { Outcome::Bad("draw.sh failed".to_string()) })
}

/// The thread team under a model checker, in a folder of its own: the flag changes all dependencies.
fn orders() -> Result<Outcome, String> {
    let args = ["-p", "runtime-min", "--test", "team_loom", "--release"];
    let target = shell::target().join("loom");
    test::cargo_test(
        &args,
        &[("RUSTFLAGS", "--cfg loom"), ("CARGO_TARGET_DIR", emitted::utf8(&target)?)],
        &mut Vec::new(),
    )
}

/// A processor without AVX2 gets an error, never an illegal instruction.
fn old_processor() -> Result<Outcome, String> {
    if shell::ask("qemu-x86_64", &["--version"]).is_none() {
        return Ok(Outcome::Skipped("no qemu-x86_64; `cargo xtask setup --full` installs it".to_string()));
    }
    let out = shell::target().join("emitted-demo");
    let made = emitted::make(&shell::root().join("models/demo"), &out, &Choices::default())?;
    let args = [
        "-cpu",
        "Nehalem",
        emitted::utf8(&made.runner)?,
        "--weights",
        emitted::utf8(&made.weights())?,
        "--prompt",
        "Hello",
    ]
    .map(str::to_string);
    let mut command = shell::command("qemu-x86_64", &[]);
    let status = command.args(&args).status().map_err(|e| format!("cannot run qemu-x86_64: {e}"))?;
    Ok(match status.code() {
        Some(4) => Outcome::Good("refused with exit code 4".to_string()),
        Some(code) => Outcome::Bad(format!("exit code {code}, expected 4")),
        None => Outcome::Bad("killed by a signal: an instruction this processor lacks".to_string()),
    })
}

/// Bits at the levels that this processor lacks, on an emulated one.
fn other_levels() -> Result<Outcome, String> {
    const TESTS: [&[&str]; 2] =
        [&["-p", "snapshots", "--test", "native"], &["-p", "tvlmc", "--test", "quantized", "--test", "emitted"]];
    if !shell::cache()?.join("emulator/complete-1").is_file() {
        return Ok(Outcome::Skipped("no emulated processor; `cargo xtask setup --full` installs it".to_string()));
    }
    let run = shell::root().join("xtask/emulator/run.sh");
    let env = [("TVLMC_EMULATOR", emitted::utf8(&run)?)];
    let mut told = Vec::new();
    for args in TESTS {
        match test::cargo_test(args, &env, &mut Vec::new())? {
            Outcome::Good(figures) => told.push(figures),
            other => return Ok(other),
        }
    }
    Ok(Outcome::Good(told.join("; ")))
}

/// The runtime's shared memory under the interpreter that finds undefined behavior and races. What loops over
/// megabytes or over all characters is left out: an interpreter is a thousand times slower.
fn miri() -> Result<Outcome, String> {
    const TESTS: [&[&str]; 2] = [&["--test", "team"], &["--lib", "--", "hash::", "cpu::", "host::json::"]];
    if shell::ask("cargo", &["+nightly", "miri", "--version"]).is_none() {
        return Ok(Outcome::Skipped("no Miri; `cargo xtask setup --full` adds it".to_string()));
    }
    for tests in TESTS {
        let args = [&["+nightly", "miri", "test", "-p", "runtime-min"], tests].concat();
        let mut command = shell::command("cargo", &args);
        // The toolchain of this process must not leak into the other one's.
        command
            .env_remove("CARGO")
            .env_remove("RUSTUP_TOOLCHAIN")
            .env("CARGO_TARGET_DIR", shell::target().join("miri"));
        if !shell::run(command.env("MIRIFLAGS", "-Zmiri-disable-isolation"))? {
            return Ok(Outcome::Bad(format!("runtime-min {}", tests.join(" "))));
        }
    }
    Ok(Outcome::Good(String::new()))
}

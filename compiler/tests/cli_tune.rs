//! `tune`, `--tuned` and `--explain`: measured schedules are kept, taken where asked for, named in the manifest and change no
//! answer; what is no tuning is refused with a reason.

mod cli_support;

use std::path::{Path, PathBuf};
use std::process::Command;

use cli_support::{fail, finish, names, nano, succeed, tree, tvlmc};
use serde_json::{Value, json};

/// A folder for everything, a cache in it, and a tuning of nano at the least level that is there.
struct Tuned {
    folder: tempfile::TempDir,
    file: PathBuf,
    report: String,
}

impl Tuned {
    fn new() -> Tuned {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("tuning.json");
        let mut tuned = Tuned { folder, file, report: String::new() };
        tuned.report = succeed(tuned.tvlmc().arg("tune").arg(nano("hf")).arg("-o").arg(&tuned.file));
        tuned
    }

    fn tvlmc(&self) -> Command {
        let mut command = tvlmc();
        command.env("TVLMC_CACHE", self.folder.path().join("cache")).arg("--quiet");
        command
    }

    fn compile(&self, out: &str) -> Command {
        let mut command = self.tvlmc();
        command.arg("compile").arg(nano("hf")).args(["--name", "nano", "--target", cli_support::TARGET]);
        command.arg("-o").arg(self.folder.path().join(out));
        command
    }

    fn run(&self, model: &Path) -> Command {
        let mut command = self.tvlmc();
        command.arg("run").arg(model).args(["--prompt", "What is this?", "--max-new-tokens", "6", "--ignore-eos"]);
        command
    }

    fn manifest(&self, out: &str) -> Value {
        let text = std::fs::read(self.folder.path().join(out).join("manifest.json")).expect("a manifest");
        serde_json::from_slice(&text).expect("JSON")
    }

    /// The tuning with something else in it, as a file.
    fn changed(&self, change: impl FnOnce(&mut Value)) -> PathBuf {
        let mut value: Value = serde_json::from_slice(&std::fs::read(&self.file).expect("a tuning")).expect("JSON");
        change(&mut value);
        let path = self.folder.path().join("changed.json");
        std::fs::write(&path, value.to_string()).expect("written");
        path
    }
}

#[test]
fn what_was_measured_is_kept_and_taken() {
    if !is_x86_feature_detected!("avx2") {
        println!("skipped: measuring, this processor has no AVX2");
        return;
    }
    let tuned = Tuned::new();
    for words in ["noise", "model", "ms", "tile of quantized rows", "written to"] {
        assert!(tuned.report.contains(words), "{}\nshould have: {words}", tuned.report);
    }
    let cache = tuned.folder.path().join("cache");
    assert_eq!(names(&cache.join("tuned")).len(), 1, "what was measured is kept");
    assert_eq!(names(&cache.join("build")), [""; 0], "what measured it is not");

    // Not taken unless asked for, and then the same bytes again.
    for (out, flag) in [("plain", None), ("off", Some("--tuned=off")), ("cached", Some("--tuned"))] {
        succeed(tuned.compile(out).args(flag));
    }
    let given = format!("--tuned={}", tuned.file.display());
    let explained = succeed(tuned.compile("given").args([&given, "--explain"]));
    let at = |out: &str| tree(&tuned.folder.path().join(out));
    assert!(at("plain") == at("off"), "--tuned=off is the default of compile");
    assert!(at("cached") == at("given"), "the file is what the cache has");
    assert_eq!(tuned.manifest("plain").get("tuning"), None);
    let of_file: Value = serde_json::from_slice(&std::fs::read(&tuned.file).expect("a tuning")).expect("JSON");
    assert_eq!(tuned.manifest("given")["tuning"], of_file["tuning"]);
    assert!(explained.contains("Measured on"), "{explained}");

    // A schedule that differs for certain: other code, the same answer, and verify knows it.
    let other = tuned.changed(|file| {
        let schedule = &mut file["tuning"]["levels"][0]["schedule"];
        schedule["integer_tiles"] = json!([[2, 1], [3, 2]]);
        schedule["nibble_lines"] = json!(2);
        schedule["byte_lines"] = json!(3);
        schedule["depthwise"] = json!(3);
    });
    let given = format!("--tuned={}", other.display());
    let explained = succeed(tuned.compile("other").args([&given, "--explain"]));
    for words in ["2 x 16, else 3 x 32: measured, taken instead", "registers", "units:", "vision", "prefill", "decode"]
    {
        assert!(explained.contains(words), "{explained}\nshould have: {words}");
    }
    assert!(at("other") != at("plain"));
    let answers = ["other", "plain"].map(|out| succeed(&mut tuned.run(&tuned.folder.path().join(out))));
    assert_eq!(answers[0], answers[1]);
    succeed(tuned.tvlmc().arg("verify").arg(tuned.folder.path().join("other")).arg("--checkpoint").arg(nano("hf")));
    // A run of the checkpoint takes the cache's, which compile would take when asked.
    assert_eq!(succeed(&mut tuned.run(&nano("hf"))), answers[1]);
    let models = cache.join("models");
    let kept = models.join(&names(&models)[0]).join("manifest.json");
    let kept: Value = serde_json::from_slice(&std::fs::read(kept).expect("a manifest")).expect("JSON");
    assert_eq!(kept["tuning"], of_file["tuning"]);
    fail(tuned.run(&tuned.folder.path().join("plain")).arg("--tuned"), 2, &["--tuned", "compiled already"]);
    refused(&tuned);
}

/// Files that are no tuning, or one of something else.
fn refused(tuned: &Tuned) {
    let with = |path: &Path| {
        let mut command = tuned.compile("refused");
        command.arg(format!("--tuned={}", path.display()));
        command
    };
    let schedule = |change: fn(&mut Value)| tuned.changed(|file| change(&mut file["tuning"]["levels"][0]["schedule"]));
    type Change = fn(&mut Value);
    let changes: [(Change, &str); 8] = [
        (|s| s["tile"] = json!([0, 3]), "tile of float rows"),
        (|s| s["tile"] = json!([17, 1]), "up to 16 rows"),
        (|s| s["integer_tiles"] = json!([[4, 3], [4, 900]]), "tile of quantized rows"),
        (|s| s["depth_block"] = json!(24), "a multiple of 16"),
        (|s| s["nibble_lines"] = json!(0), "1 to 16"),
        (|s| s["strip_bytes"] = json!(0), "bytes of a widened strip"),
        (|s| s["byte_lines"] = json!(-1), "is no tuning"),
        (|s| s["more"] = json!(1), "unknown field"),
    ];
    for (change, words) in changes {
        fail(&mut with(&schedule(change)), 3, &["changed.json", words, "tvlmc tune"]);
    }
    let files: [(Change, &str); 5] = [
        (|f| f["format"] = json!("\u{1b}[2J"), "expected tvlmc-tuning"),
        (|f| f["version"] = json!(2), "version 2"),
        (|f| f["tool"] = json!("tvlmc 0.0.0"), "was made by"),
        (|f| f["model"] = json!("0"), "another model, recipe or context"),
        (|f| *f = json!([]), "is no tuning"),
    ];
    for (change, words) in files {
        fail(&mut with(&tuned.changed(change)), 3, &["changed.json", words]);
    }
    fail(with(&tuned.file).args(["--quant", "f32"]), 3, &["another model, recipe or context"]);
    let file = tuned.folder.path().join("changed.json");
    for bytes in [&b""[..], b"\xff\xfe", b"{", &[b' '; (1 << 20) + 1]] {
        std::fs::write(&file, bytes).expect("written");
        fail(&mut with(&file), 3, &["changed.json", "tvlmc tune"]);
    }
    fail(&mut with(&tuned.folder.path().join("absent")), 3, &["absent"]);
    fail(tuned.compile("refused").args(["--tuned", "--quant", "f32"]), 4, &["nothing was measured", "tvlmc tune"]);
    fail(tuned.tvlmc().arg("tune").arg(nano("hf")).args(["--level", "x86-64-v9"]), 2, &["x86-64-v9", "x86-64-v3"]);
    fail(tuned.tvlmc().arg("tune").arg(nano("hf")).args(["--target", "mips"]), 2, &["mips"]);
    fail(tuned.tvlmc().arg("tune").arg(tuned.folder.path().join("plain")), 3, &["compiled already"]);
    // In the cache, what cannot be used is told and left.
    let cached = tuned.folder.path().join("cache/tuned");
    let cached = cached.join(&names(&cached)[0]);
    std::fs::write(&cached, b"{").expect("written");
    let mut run = tvlmc();
    run.env("TVLMC_CACHE", tuned.folder.path().join("cache")).arg("run").arg(nano("hf"));
    let done = finish(run.args(["--prompt", "What is this?", "--max-new-tokens", "1"]));
    assert_eq!(done.code, 0, "{}", done.stderr);
    assert!(done.stderr.contains("note: not used: ") && done.stderr.contains("is no tuning"), "{}", done.stderr);
}

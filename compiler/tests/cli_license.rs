//! The license of the weights goes where the weights go, or its absence is said plainly.

mod cli_support;

use std::path::{Path, PathBuf};

use cli_support::{compile, copy, fail, finish, names, nano, succeed, tree, tvlmc};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A checkpoint with these files beside its weights.
fn model(dir: &Path, files: &[(&str, &[u8])]) -> PathBuf {
    let model = dir.join("nano");
    copy(&nano("hf"), &model);
    for (name, bytes) in files {
        std::fs::write(model.join(name), bytes).expect("written");
    }
    model
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Compiles to `out`; what was said.
fn compiled(model: &Path, out: &Path) -> String {
    let done = finish(compile(model).arg("-o").arg(out));
    assert_eq!(done.code, 0, "{}", done.stderr);
    done.stderr
}

fn manifest(out: &Path) -> Value {
    serde_json::from_str(&read(&out.join("manifest.json"))).expect("JSON")
}

#[test]
fn what_lies_beside_the_weights_is_copied_and_named() {
    let dir = TempDir::new().expect("a folder");
    let card =
        b"---\nlibrary_name: ml-fastvlm\nlicense: apple-amlr\nlicense_link: https://example.org/a?b=(c)\n---\n# x\n";
    let files: [(&str, &[u8]); 4] =
        [("LICENSE", b"Do good.\n\xff"), ("notice.txt", b"Ours."), ("README.md", card), ("NOTES", b"none of these")];
    let model = model(dir.path(), &files);
    let out = dir.path().join("out");
    let said = compiled(&model, &out);
    let line = "license of the weights: apple-amlr, at https://example.org/a?b=(c), as the checkpoint's README.md says; \
                LICENSE is copied to LICENSE-weights; notice.txt is copied to LICENSE-weights-2";
    assert!(said.lines().any(|l| l == line), "{said}");
    assert_eq!(read(&out.join("LICENSE-weights")), "Do good.\n\u{fffd}");
    assert_eq!(read(&out.join("LICENSE-weights-2")), "Ours.");
    assert!(!out.join("LICENSE-weights-3").exists());
    let readme = read(&out.join("README.md"));
    for words in
        ["`license: apple-amlr`", "[LICENSE-weights](LICENSE-weights), a copy of its `LICENSE`", "`notice.txt`"]
    {
        assert!(readme.contains(words), "{readme}\n  should have: {words}");
    }
    let expected = json!({
        "declared": {"license": "apple-amlr", "license_link": "https://example.org/a?b=(c)"},
        "texts": [
            {"file": "LICENSE-weights", "from": "LICENSE"},
            {"file": "LICENSE-weights-2", "from": "notice.txt"},
        ],
    });
    assert_eq!(manifest(&out)["license"], expected);
    let inspected: Value =
        serde_json::from_str(&succeed(tvlmc().arg("inspect").arg("--json").arg(&model))).expect("JSON");
    assert_eq!(inspected["license"], expected);
    // The code's own license is that of this project.
    for name in ["LICENSE-MIT", "LICENSE-APACHE"] {
        assert_eq!(read(&out.join("runtime").join(name)), read(&cli_support::root().join(name)));
    }

    let check = || finish(compile(&model).arg("--check").arg(&out));
    assert_eq!(check().code, 0, "{}", check().stdout);
    // Other terms are another output, with other weights to it.
    std::fs::write(model.join("LICENSE"), "Do better.\n").expect("written");
    let done = check();
    assert_eq!(done.code, 1);
    for line in ["+Do better.", "weights.tvlm: pairing digest"] {
        assert!(done.stdout.lines().any(|l| l.starts_with(line)), "{}\n  should have: {line}", done.stdout);
    }
}

#[test]
fn none_is_said_plainly() {
    let dir = TempDir::new().expect("a folder");
    let out = dir.path().join("out");
    let said = compiled(&model(dir.path(), &[("README.md", b"license: mit, says the text")]), &out);
    assert!(said.contains("license of the weights: none found: no LICENSE, NOTICE or COPYING beside"), "{said}");
    assert!(read(&out.join("README.md")).contains("**It came without one**"));
    assert_eq!(manifest(&out)["license"], json!({"declared": {}, "texts": []}));
    assert!(!names(&out).iter().any(|name| name.starts_with("LICENSE")), "{:?}", names(&out));
    let quiet = finish(compile(&nano("hf")).arg("--quiet").arg("-o").arg(dir.path().join("quiet")));
    assert_eq!(quiet.stderr, "");
}

#[test]
fn hostile_names_and_words_are_not_repeated() {
    let dir = TempDir::new().expect("a folder");
    let card = b"---\nlicense: \"</script><script>alert(1)\"\nlicense_name: a`b\xe2\x80\xae\x1b[2J\n---\n";
    let evil = ["LICENSE\";evil", "LICENSE`; rm -rf", "license\u{202e}dm.", "NOTICE\n[x](evil)", "COPYING\u{1b}[2J"];
    let mut files: Vec<(&str, &[u8])> = evil.iter().map(|name| (*name, &b"text"[..])).collect();
    files.push(("README.md", card));
    let out = dir.path().join("out");
    let said = compiled(&model(dir.path(), &files), &out);
    assert!(
        said.contains(
            "(unreadable), named (unreadable), as the checkpoint's README.md says; a text is copied to LICENSE-weights;"
        ),
        "{said}"
    );
    let written: Vec<String> = names(&out).into_iter().filter(|name| name.starts_with("LICENSE")).collect();
    assert_eq!(
        written,
        ["LICENSE-weights", "LICENSE-weights-2", "LICENSE-weights-3", "LICENSE-weights-4", "LICENSE-weights-5"]
    );
    for (path, bytes) in tree(&out) {
        let text = String::from_utf8_lossy(&bytes);
        let found = ["evil", "alert(1)", "\u{202e}", "\u{1b}", "rm -rf"].iter().find(|bad| text.contains(**bad));
        assert!(
            found.is_none() || path.starts_with("runtime") || path.ends_with("weights.tvlm"),
            "{path:?}: {found:?}"
        );
    }
    assert!(!said.contains(['\u{202e}', '\u{1b}']) && !said.contains("evil"), "{said}");
}

/// A text that may not be dropped and cannot be copied: nothing is written.
#[test]
fn what_cannot_be_copied_is_refused() {
    let refused = |files: &[(&str, &[u8])], link: Option<&str>, words: &[&str]| {
        let dir = TempDir::new().expect("a folder");
        let model = model(dir.path(), files);
        if let Some(target) = link {
            std::os::unix::fs::symlink(target, model.join("LICENSE")).expect("linked");
        }
        fail(compile(&model).arg("-o").arg(dir.path().join("out")), 3, words);
        assert_eq!(names(dir.path()), ["nano"]);
    };
    refused(&[("LICENSE", &vec![b'x'; (1 << 20) + 1])], None, &["nano/LICENSE", "1,048,577 bytes", "rename it"]);
    refused(&[], Some("/etc/passwd"), &["nano/LICENSE", "leaves the model folder"]);
    refused(&[], Some("gone"), &["nano/LICENSE", "does not exist"]);
    let many: Vec<String> = (0..17).map(|i| format!("LICENSE-{i}")).collect();
    let many: Vec<(&str, &[u8])> = many.iter().map(|name| (name.as_str(), &b"x"[..])).collect();
    refused(&many, None, &["nano", "17 files named like a license", "join them"]);
}

#[test]
fn a_folder_of_licenses_is_named() {
    let dir = TempDir::new().expect("a folder");
    let model = model(dir.path(), &[]);
    std::fs::create_dir(model.join("LICENSES")).expect("created");
    let said = compiled(&model, &dir.path().join("out"));
    assert!(said.contains("a folder of licenses is not copied: do that yourself"), "{said}");
}

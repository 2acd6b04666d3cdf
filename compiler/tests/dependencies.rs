//! How many crates of others we build on, under which licenses, and from where. A number here changes by review only.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Where crates of others may come from.
const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// Crates of others that a package needs to be built, those that help to build included.
const REVIEWED: [(&str, usize); 3] = [("runtime-min", 0), ("runtime-decode", 24), ("tvlmc", 115)];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn cargo(args: &[&str]) -> String {
    let done = Command::new(env!("CARGO")).args(args).current_dir(root()).output().expect("cargo runs");
    assert!(done.status.success(), "{args:?}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).expect("UTF-8")
}

#[test]
fn each_program_builds_on_as_many_crates_as_were_reviewed() {
    for (package, reviewed) in REVIEWED {
        let args = ["tree", "-p", package, "-e", "normal,build", "--target", TARGET];
        let tree = cargo(&[&args[..], &["--prefix", "none", "--offline", "--locked"]].concat());
        // Ours stand with their path.
        let crates: BTreeSet<&str> = tree.lines().map(|line| line.trim_end_matches(" (*)")).collect();
        let theirs: Vec<&str> = crates.into_iter().filter(|line| !line.contains("(/")).collect();
        assert_eq!(theirs.len(), reviewed, "{package} now builds on\n{}", theirs.join("\n"));
    }
}

/// The words of one list of `deny.toml`.
fn listed(key: &str) -> Vec<String> {
    let text = std::fs::read_to_string(root().join("deny.toml")).expect("deny.toml");
    let begin = format!("\n{key} = [");
    let (_, list) = text.split_once(&begin).unwrap_or_else(|| panic!("deny.toml has no {key}"));
    let (list, _) = list.split_once(']').expect("its end");
    list.split(',').map(|word| word.trim().trim_matches('"').to_owned()).filter(|word| !word.is_empty()).collect()
}

/// Whether a license expression is met by licenses out of `allowed`. Older ones write `/` for `OR`.
fn is_met(expression: &str, allowed: &[String]) -> bool {
    let plain = expression.replace(['(', ')'], "").replace('/', " OR ");
    plain.split(" AND ").all(|all| all.split(" OR ").any(|one| allowed.iter().any(|known| known == one.trim())))
}

#[test]
fn every_crate_has_a_license_and_a_place_that_were_reviewed() {
    let args = ["metadata", "--format-version", "1", "--offline", "--locked", "--filter-platform", TARGET];
    let metadata: Value = serde_json::from_str(&cargo(&args)).expect("JSON");
    let used: BTreeSet<&str> =
        metadata["resolve"]["nodes"].as_array().expect("nodes").iter().filter_map(|node| node["id"].as_str()).collect();
    let allowed = listed("allow");
    assert_eq!(listed("allow-registry"), [REGISTRY.trim_start_matches("registry+")]);
    let (mut wrong, mut n_theirs) = (Vec::new(), 0);
    for package in metadata["packages"].as_array().expect("packages") {
        let text = |key: &str| package[key].as_str().unwrap_or_default();
        if package["source"].is_null() || !used.contains(text("id")) {
            continue;
        }
        n_theirs += 1;
        if !is_met(text("license"), &allowed) || text("source") != REGISTRY {
            wrong.push(format!("{} {}: {} from {}", text("name"), text("version"), text("license"), text("source")));
        }
    }
    assert!(n_theirs > 90, "{n_theirs} crates");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn expressions_of_licenses() {
    let allowed = ["MIT", "Zlib"].map(String::from);
    for good in ["MIT", "MIT/Apache-2.0", "GPL-3.0 OR MIT", "(MIT OR X) AND Zlib"] {
        assert!(is_met(good, &allowed), "{good}");
    }
    for bad in ["", "GPL-3.0", "MIT AND GPL-3.0", "(X OR Y) AND MIT"] {
        assert!(!is_met(bad, &allowed), "{bad}");
    }
}

/// The same and more by the tool made for it: advisories need its data, which a machine may not have.
#[test]
fn cargo_deny() {
    let has = Command::new(env!("CARGO")).args(["deny", "--version"]).output().is_ok_and(|done| done.status.success());
    if !has {
        println!("skipped: cargo deny check, which is not installed (cargo install cargo-deny --locked)");
        return;
    }
    cargo(&["deny", "--offline", "check", "bans", "licenses", "sources"]);
}

//! Code of every model, format and choice against weight files of every other: only its own is taken.

use std::path::Path;

use models::Recipe;
use runtime_min::weights::{Expect, WeightFile};
use runtime_min::{Error, Residence, Verify};
use tvlmc::assemble::{Options, assemble};
use tvlmc::output::Staging;
use tvlmc::package::WEIGHTS_NAME;

struct Compiled {
    what: String,
    digest: [u8; 32],
    weights: std::path::PathBuf,
}

fn compile(folder: &Path, layout: &str, quant: &str, options: &Options<'_>) -> Compiled {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/nano").join(layout);
    let recipe = Recipe::named(quant).expect("built in");
    let what = format!("{layout}-{quant}-{}-{}", options.name.unwrap_or("nano"), options.context.unwrap_or(0));
    let options = Options { name: Some(options.name.unwrap_or("nano")), recipe: Some(recipe), ..options.clone() };
    let assembled = assemble(&model, &options).unwrap_or_else(|e| panic!("{what}: {e}"));
    let staging = Staging::begin(&folder.join(&what), false).expect("a folder");
    assembled.write(&staging, &|_| Ok(())).unwrap_or_else(|e| panic!("{what}: {e}"));
    let out = staging.commit().expect("named");
    Compiled { what, digest: assembled.digest, weights: out.join(WEIGHTS_NAME) }
}

/// All of them.
fn compiled(folder: &Path) -> Vec<Compiled> {
    let mut all = Vec::new();
    for layout in ["hf", "llava", "odd"] {
        for quant in ["f32", "int8", "int4"] {
            all.push(compile(folder, layout, quant, &Options::default()));
        }
    }
    // The same weights in the same layout, but other code.
    all.push(compile(folder, "hf", "int4", &Options { name: Some("other"), ..Options::default() }));
    all.push(compile(folder, "hf", "int4", &Options { context: Some(200), ..Options::default() }));
    all
}

#[test]
fn code_takes_its_own_weights_only() {
    let folder = tempfile::tempdir().expect("a folder");
    let all = compiled(folder.path());
    for code in &all {
        let expect = Expect { model: "nano", digest: code.digest };
        for file in &all {
            let what = format!("code {}, weights {}", code.what, file.what);
            for residence in [Residence::Mapped, Residence::Copied] {
                match WeightFile::open(&file.weights, &expect, Verify::Full, residence) {
                    Ok(_) => assert_eq!(code.what, file.what),
                    Err(error) => {
                        assert_ne!(code.what, file.what, "{error}");
                        assert!(matches!(error, Error::WrongBuild { .. }), "{what}: {error}");
                        assert_eq!(error.exit_code(), 3, "{what}");
                    }
                }
            }
        }
    }
    assert_eq!(all.len(), 11);
}

/// Files of another version, of the other byte order or of another kind are told apart from damaged ones.
#[test]
fn what_is_not_of_this_format_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let all = compiled(folder.path());
    for code in &all {
        let intact = std::fs::read(&code.weights).expect("weights");
        let expect = Expect { model: "nano", digest: code.digest };
        let say = |at: usize, bytes: &[u8]| {
            let mut changed = intact.clone();
            changed[at..at + bytes.len()].copy_from_slice(bytes);
            WeightFile::from_bytes("w", &changed, &expect).expect_err("refused").to_string()
        };
        for version in [0_u32, 2, 0x0100_0000, u32::MAX] {
            let said = say(8, &version.to_le_bytes());
            assert!(said.contains(&format!("version is {version:#x}, this build reads 0x1")), "{}: {said}", code.what);
        }
        assert!(say(12, &0x0102_0304_u32.to_be_bytes()).contains("byte order"), "{}", code.what);
        assert!(say(0, b"TVLMWT02").contains("not a weight file"), "{}", code.what);
    }
}

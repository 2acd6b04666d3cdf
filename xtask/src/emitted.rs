//! Emitted crates: compiling a checkpoint, building what comes out, and where its runner is.

use std::path::{Path, PathBuf};

use crate::shell;

/// The one target there is so far.
pub const TARGET: &str = "x86_64-unknown-linux-gnu";

/// An emitted crate that was built.
pub struct Emitted {
    /// Its folder.
    pub folder: PathBuf,
    /// Its runner.
    pub runner: PathBuf,
}

impl Emitted {
    /// Its weight file.
    pub fn weights(&self) -> PathBuf {
        self.folder.join("weights.tvlm")
    }
}

/// The arguments of cargo that run `tvlmc`, without tvlmc's own.
pub const TVLMC: [&str; 6] = ["run", "--quiet", "--release", "--bin", "tvlmc", "--"];

/// Runs `tvlmc` with these arguments; whether it succeeded.
pub fn tvlmc(args: &[&str]) -> Result<bool, String> {
    shell::run(&mut shell::cargo(&[&TVLMC, args].concat()))
}

/// What may be chosen when compiling; `tvlmc`'s own defaults otherwise.
#[derive(Default)]
pub struct Choices<'a> {
    /// Number format of the weights.
    pub quant: Option<&'a str>,
    /// Positions of a conversation.
    pub context: Option<usize>,
}

/// Compiles the checkpoint to `out` and builds the crate there.
pub fn make(checkpoint: &Path, out: &Path, choices: &Choices<'_>) -> Result<Emitted, String> {
    let (from, to) = (utf8(checkpoint)?, utf8(out)?);
    let context = choices.context.map(|n| n.to_string());
    let mut args = vec!["compile", from, "--target", TARGET, "-o", to, "--force"];
    args.extend(choices.quant.iter().flat_map(|quant| ["--quant", quant]));
    args.extend(context.iter().flat_map(|n| ["--context", n.as_str()]));
    if !tvlmc(&args)? {
        return Err(format!("tvlmc could not compile {from}"));
    }
    let manifest = out.join("Cargo.toml");
    let built = shell::target().join("emitted");
    let args = ["build", "--release", "--manifest-path", utf8(&manifest)?, "--target-dir", utf8(&built)?];
    let messages =
        shell::output(&mut shell::cargo(&[&args[..], &["--message-format", "json-render-diagnostics"]].concat()))?;
    let runner = executable(&messages).ok_or_else(|| format!("{to} has no executable"))?;
    Ok(Emitted { folder: out.to_path_buf(), runner })
}

/// The path as text; paths of checkpoints and caches are chosen by the user.
pub fn utf8(path: &Path) -> Result<&str, String> {
    path.to_str().ok_or_else(|| format!("{}: not UTF-8", path.display()))
}

/// The last executable in cargo's messages, a JSON object per line.
fn executable(messages: &str) -> Option<PathBuf> {
    let key = "\"executable\":\"";
    let start = messages.rfind(key)? + key.len();
    let end = messages[start..].find('"')?;
    Some(messages[start..start + end].replace("\\\\", "\\").into())
}

#[cfg(test)]
mod tests {
    use super::executable;

    #[test]
    fn the_executable_is_found_in_cargos_messages() {
        let lines =
            "{\"reason\":\"compiler-artifact\",\"executable\":null}\n{\"executable\":\"/a/b\",\"fresh\":true}\n";
        assert_eq!(executable(lines), Some("/a/b".into()));
        assert_eq!(executable("{}"), None);
    }
}

//! Building an emitted crate and calling its runner.

use std::ffi::OsString;
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Seek};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use runtime_decode::{Options, Picture};
use serde::Deserialize;

use super::cache::Cache;
use super::model::Compiled;
use super::picture;
use super::ui::Ui;
use crate::assemble::TARGET;
use crate::error::Error;
use crate::package::WEIGHTS_NAME;

/// In the build folder of a crate that nobody edits: the path of its finished binary.
const BUILT: &str = "built";

/// Most bytes of a build's messages that are shown when it fails.
const SHOWN: usize = 8 << 10;

/// A built runner.
pub struct Runner {
    binary: PathBuf,
    weights: PathBuf,
}

/// One line of cargo's messages.
#[derive(Deserialize)]
pub struct Message {
    executable: Option<PathBuf>,
    /// What was made.
    #[serde(default)]
    pub filenames: Vec<PathBuf>,
    /// Whether it was built before; lines of other kinds do not say.
    fresh: Option<bool>,
}

impl Runner {
    /// Builds the crate of a compiled folder, unless that was done before.
    ///
    /// # Errors
    /// The folder is for another target; there is no cargo, or it failed.
    pub fn build(cache: &Cache, compiled: &Compiled, ui: &Ui) -> Result<Runner, Error> {
        check_target(compiled)?;
        if !compiled.folder.join("Cargo.toml").is_file() {
            let problem = "holds a library for C, not a crate: name its checkpoint";
            return Err(Error::input(compiled.folder.display().to_string(), "", problem));
        }
        let target = cache.build(compiled);
        let weights = compiled.folder.join(WEIGHTS_NAME);
        let note = target.join(BUILT);
        if cache.holds(compiled).is_some()
            && let Ok(binary) = fs::read_to_string(&note)
            && Path::new(&binary).is_file()
        {
            return Ok(Runner { binary: binary.into(), weights });
        }
        let work = ui.work("building the emitted crate", None);
        let (binary, fresh) = cargo(&compiled.folder, &target, ui)?;
        if !fresh {
            work.done("");
        }
        if let (Some(_), Some(path)) = (cache.holds(compiled), binary.to_str()) {
            // Without it the next run asks cargo again.
            let _ = fs::write(note, path);
        }
        Ok(Runner { binary, weights })
    }

    /// A call of the runner.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.binary);
        command.arg("--weights").arg(&self.weights);
        command
    }
}

/// Refuses a compiled folder for machines that are not run here.
///
/// # Errors
/// The folder and its target.
pub fn check_target(compiled: &Compiled) -> Result<(), Error> {
    let target = &compiled.manifest.target;
    if target == TARGET {
        return Ok(());
    }
    let problem = format!(
        "was compiled for {target}, which this program does not run: it takes what was compiled for {TARGET}, or a checkpoint"
    );
    Err(Error::input(compiled.folder.display().to_string(), "", problem))
}

/// Builds a crate, without a network, and returns its binary, and whether all of it was there already.
pub fn cargo(folder: &Path, target: &Path, ui: &Ui) -> Result<(PathBuf, bool), Error> {
    let messages = cargo_messages(folder, target, &["build", "--locked", "--bins"], &[], &[], ui)?;
    let all_fresh = messages.iter().all(|message| message.fresh.unwrap_or(true));
    match messages.into_iter().filter_map(|message| message.executable).next_back() {
        Some(binary) => Ok((binary, all_fresh)),
        None => Err(Error::Bug(format!("cargo made no program of {}", folder.display()))),
    }
}

/// Runs cargo in a folder, in release mode and without a network; `rustc` is what its command of this name passes on.
///
/// # Errors
/// There is no cargo, or it failed; the user stopped us.
pub fn cargo_messages(
    folder: &Path,
    target: &Path,
    args: &[&str],
    rustc: &[&str],
    variables: &[(String, OsString)],
    ui: &Ui,
) -> Result<Vec<Message>, Error> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    // A file, as one thread can read one pipe only.
    let mut messages = tempfile::tempfile().map_err(Error::io("create a file in", &std::env::temp_dir()))?;
    let said = messages.try_clone().map_err(Error::io("open a file of", &std::env::temp_dir()))?;
    let mut child = Command::new(&cargo)
        .args(args)
        .args(["--release", "--offline", "--message-format=json-render-diagnostics", "--target-dir"])
        .arg(target)
        .args((!rustc.is_empty()).then_some("--"))
        .args(rustc)
        .envs(variables.iter().map(|(name, value)| (name, value)))
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(said)
        .spawn()
        .map_err(|e| {
            let what = Path::new(&cargo).display();
            let reason = if e.kind() == io::ErrorKind::NotFound { "is not there".into() } else { e.to_string() };
            Error::Environment(format!(
                "{what} {reason}: building the emitted crate takes a stable Rust toolchain (1.90 or later) on the PATH"
            ))
        })?;
    let lines = child.stdout.take().map(BufReader::new).into_iter().flat_map(BufRead::lines).map_while(Result::ok);
    let told = lines.filter_map(|line| serde_json::from_str(&line).ok()).collect();
    let status = child.wait().map_err(Error::io("wait for", Path::new(&cargo)))?;
    ui.check()?;
    if status.success() {
        return Ok(told);
    }
    let mut text = Vec::new();
    // What cannot be read cannot be shown.
    let _ = messages.rewind().and_then(|()| messages.read_to_end(&mut text));
    let text = String::from_utf8_lossy(&text);
    let mut from = text.len().saturating_sub(SHOWN);
    while !text.is_char_boundary(from) {
        from += 1;
    }
    let told = match text[from..].trim_end() {
        "" => "without a word; CARGO or the PATH name it".to_string(),
        told => format!("\n{told}"),
    };
    let problem = format!("cargo could not build {} ({status}): {told}", folder.display());
    Err(Error::Environment(problem))
}

/// Pictures as files of raw pixels, which go when this goes.
pub struct RawPictures {
    folder: tempfile::TempDir,
    sizes: Vec<RawPicture>,
}

/// A picture as the runner takes it.
pub struct RawPicture {
    /// Width and height, as in `640x480`.
    pub size: String,
    /// The file.
    pub path: PathBuf,
}

impl RawPictures {
    /// An empty set.
    ///
    /// # Errors
    /// There is no folder for temporary files.
    pub fn new() -> Result<RawPictures, Error> {
        let folder = tempfile::Builder::new()
            .prefix("tvlmc-")
            .tempdir()
            .map_err(Error::io("create a folder in", &std::env::temp_dir()))?;
        Ok(RawPictures { folder, sizes: Vec::new() })
    }

    /// Decodes one more picture. The raw file has the picture's name, so that messages about it have it too.
    ///
    /// # Errors
    /// As of [`picture::read`], and a full disk.
    pub fn add(&mut self, path: &Path, options: Options) -> Result<&RawPicture, Error> {
        let rgb = picture::read(path, options)?;
        self.add_rgb(&rgb, path)
    }

    /// Adds a decoded picture.
    pub fn add_rgb(&mut self, rgb: &Picture, name: &Path) -> Result<&RawPicture, Error> {
        let folder = self.folder.path().join(self.sizes.len().to_string());
        fs::create_dir(&folder).map_err(Error::io("create", &folder))?;
        let path = folder.join(name.file_name().unwrap_or("picture".as_ref()));
        fs::write(&path, &rgb.pixels).map_err(Error::io("write", &path))?;
        self.sizes.push(RawPicture { size: format!("{}x{}", rgb.width, rgb.height), path });
        let last = self.sizes.len() - 1;
        Ok(&self.sizes[last])
    }

    /// A text file beside the pictures.
    pub fn text(&self, name: &str, text: &[u8]) -> Result<PathBuf, Error> {
        let path = self.folder.path().join(name);
        fs::write(&path, text).map_err(Error::io("write", &path))?;
        Ok(path)
    }

    /// The folder of all of it.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Adds the pictures to a call.
    pub fn give(&self, command: &mut Command) {
        for RawPicture { size, path } in &self.sizes {
            let mut value = OsString::from(format!("{size}:"));
            value.push(path);
            command.arg("--rgb").arg(value);
        }
    }
}

/// How often a running child is looked at.
const POLL: Duration = Duration::from_millis(5);

/// Runs a call whose output is the user's. It ends when the user stops us.
///
/// # Errors
/// The binary cannot be started, or the user stopped us.
pub fn run(mut command: Command, ui: &Ui) -> Result<ExitStatus, Error> {
    let program = PathBuf::from(command.get_program());
    let mut child = command.spawn().map_err(Error::io("run", &program))?;
    loop {
        if let Some(status) = child.try_wait().map_err(Error::io("wait for", &program))? {
            ui.check()?;
            return Ok(status);
        }
        if ui.is_interrupted() {
            // It may have ended by itself: Ctrl-C goes to all of us.
            let _ = child.kill();
        }
        std::thread::sleep(POLL);
    }
}

/// The exit code of a runner as ours.
pub fn exit_code(status: ExitStatus) -> Result<u8, Error> {
    match (status.code(), status.signal()) {
        (Some(code), _) => Ok(u8::try_from(code).unwrap_or(101)),
        (None, Some(signal)) => Err(Error::Bug(format!("the emitted program was ended by signal {signal}"))),
        (None, None) => Err(Error::Bug("the emitted program ended without a reason".into())),
    }
}

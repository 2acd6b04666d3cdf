//! Where `run`, `verify` and `demo` keep what they compiled and built.
//!
//! `models/KEY` are outputs as `compile` writes them, `build/KEY` is where cargo builds them, and `seen/KEY`
//! remembers the output of a checkpoint whose files have not changed, so that a second run reads no weights.
//! `tuned/KEY.json` is what `tune` has measured.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::compile;
use super::model::{Chosen, Compiled, Model};
use super::tuned;
use super::ui::Ui;
use crate::assemble::{Assembled, Options, hex};
use crate::error::Error;
use crate::package::WEIGHTS_NAME;

/// The cache's folder.
pub struct Cache(PathBuf);

/// Name of crates in the cache: they have no other.
const NAME: &str = "fastvlm";

impl Cache {
    /// `TVLMC_CACHE`, else `tvlmc` in the user's cache folder.
    ///
    /// # Errors
    /// There is no such folder and none can be made.
    pub fn open() -> Result<Cache, Error> {
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let folder = set("TVLMC_CACHE")
            .or_else(|| set("XDG_CACHE_HOME").filter(|path| path.is_absolute()).map(|path| path.join("tvlmc")))
            .or_else(|| set("HOME").map(|path| path.join(".cache/tvlmc")))
            .ok_or_else(|| {
                Error::Environment("there is no place for a cache: set TVLMC_CACHE to a folder, or HOME".into())
            })?;
        for part in ["models", "build", "seen", "tuned"] {
            let part = folder.join(part);
            fs::create_dir_all(&part)
                .map_err(Error::io("create the cache folder (TVLMC_CACHE chooses another)", &part))?;
        }
        let folder = fs::canonicalize(&folder).map_err(Error::io("open", &folder))?;
        Ok(Cache(folder))
    }

    /// A compiled folder stands for itself; a checkpoint is compiled into the cache unless it is there.
    ///
    /// # Errors
    /// As of `compile`.
    pub fn compiled(&self, model: &Path, chosen: &Chosen, ui: &Ui) -> Result<Compiled, Error> {
        self.compiled_and_read(model, chosen, ui).map(|(compiled, _)| compiled)
    }

    /// As [`compiled`](Self::compiled), with the checkpoint where it had to be read for that.
    pub fn compiled_and_read(
        &self,
        model: &Path,
        chosen: &Chosen,
        ui: &Ui,
    ) -> Result<(Compiled, Option<Assembled>), Error> {
        let checkpoint = match Model::open(model)? {
            Model::Compiled(compiled) => {
                chosen.refuse_for_compiled()?;
                return Ok((*compiled, None));
            }
            Model::Checkpoint(path) => path,
        };
        let tuning = tuned::asked_or_cached(self, chosen.tuned.as_ref(), &checkpoint, &chosen.options, ui)?;
        let options = Options { name: Some(NAME), tuning, ..chosen.options.clone() };
        let seen = fingerprint(&checkpoint, &options).map(|key| self.0.join("seen").join(key));
        if let Some(key) = seen.as_ref().and_then(|seen| fs::read_to_string(seen).ok())
            && let Some(known) = self.known(&key)
        {
            return Ok((known, None));
        }
        let assembled = compile::read(&checkpoint, &options, ui)?;
        let key = hex(&assembled.digest[..16]);
        let known = match self.known(&key) {
            Some(known) => known,
            None => {
                let out = self.model(&key);
                ui.note(&format!("compiling into the cache: {}", out.display()));
                // A folder without its files was tampered with: the cache's own are whole or not there.
                let _ = fs::remove_dir_all(&out);
                // Somebody else may be compiling the same, who then wins; in use, a folder must not be exchanged.
                let written = compile::write(&assembled, &out, false, ui);
                match (written, self.known(&key)) {
                    (_, Some(known)) => known,
                    (Err(error), None) => return Err(error),
                    (Ok(_), None) => return Err(Error::Bug(format!("{} cannot be read back", out.display()))),
                }
            }
        };
        if let Some(seen) = seen {
            // Only speed is lost without it.
            let _ = fs::write(seen, &key);
        }
        Ok((known, Some(assembled)))
    }

    /// Where cargo builds a compiled folder.
    pub fn build(&self, compiled: &Compiled) -> PathBuf {
        let key = match self.holds(compiled) {
            Some(key) => key.to_owned(),
            None => {
                let path = fs::canonicalize(&compiled.folder).unwrap_or_else(|_| compiled.folder.clone());
                hex(&Sha256::digest(path.as_os_str().as_encoded_bytes())[..16])
            }
        };
        self.0.join("build").join(key)
    }

    /// The key of a folder that is the cache's own, which nobody edits.
    pub fn holds<'a>(&self, compiled: &'a Compiled) -> Option<&'a str> {
        compiled.folder.strip_prefix(self.0.join("models")).ok()?.to_str()
    }

    /// Where schedules that were measured are kept.
    pub fn tuned(&self) -> PathBuf {
        self.0.join("tuned")
    }

    /// A folder for programs that are built once, which goes when this goes.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn scratch(&self) -> Result<tempfile::TempDir, Error> {
        let build = self.0.join("build");
        tempfile::Builder::new().prefix("tune-").tempdir_in(&build).map_err(Error::io("create a folder in", &build))
    }

    fn model(&self, key: &str) -> PathBuf {
        self.0.join("models").join(key)
    }

    fn known(&self, key: &str) -> Option<Compiled> {
        let plain = key.len() == 32 && key.bytes().all(|b| b.is_ascii_hexdigit());
        let folder = self.model(key);
        if !plain || !folder.join(WEIGHTS_NAME).is_file() {
            return None;
        }
        match Model::open(&folder) {
            Ok(Model::Compiled(compiled)) => Some(*compiled),
            Ok(Model::Checkpoint(_)) | Err(_) => None,
        }
    }
}

/// Stands for the content of a checkpoint and for us, as far as the file system tells changes.
fn fingerprint(model: &Path, options: &Options<'_>) -> Option<String> {
    let model = fs::canonicalize(model).ok()?;
    let folder = if model.is_dir() { &model } else { model.parent()? };
    let mut all = Sha256::new();
    all.update(format!("{}\n{options:?}\n", env!("CARGO_PKG_VERSION")));
    all.update(model.as_os_str().as_encoded_bytes());
    let mut entries: Vec<PathBuf> = fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path()).collect();
    entries.sort();
    entries.push(std::env::current_exe().ok()?);
    for path in entries {
        let meta = fs::metadata(&path).ok()?;
        if meta.is_file() {
            let name = path.file_name().unwrap_or_default();
            all.update(name.as_encoded_bytes());
            let (changed, nanos) = (meta.ctime(), meta.ctime_nsec());
            all.update(format!(
                "\n{} {} {changed}.{nanos} {} {}\n",
                meta.len(),
                meta.ino(),
                meta.mtime(),
                meta.mtime_nsec()
            ));
        }
    }
    Some(hex(&all.finalize()[..16]))
}

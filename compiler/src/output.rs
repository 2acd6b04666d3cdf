//! Writing a folder so that it is there whole or not at all.
//!
//! Everything goes into a folder beside the final one, is flushed to the disk, and gets its name by one
//! rename. Whatever happens before (a full disk, `kill -9`, a power cut) leaves the old folder as it was,
//! and at most a leftover with a telling name, which the next run removes. The leftover of a live process
//! is told apart by a lock on the folder, which the system drops when the process ends.

use std::cell::Cell;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Component, Path, PathBuf};

use rustix::fs::RenameFlags;
use rustix::process::{Pid, test_kill_process};

use crate::error::{Error, grouped};

/// Between the name of the output and the process id in the name of an unfinished folder.
const UNFINISHED: &str = ".tvlmc-tmp-";

/// After that name while an older output waits to be removed.
const ASIDE: &str = ".old";

/// The file that shows a folder to be an output of this program.
pub const MANIFEST: &str = "manifest.json";

/// Room that is asked for besides the files' own bytes: folders, rounding to blocks.
const SLACK: u64 = 4 << 20;

/// An output folder under construction; dropping it removes what was written.
#[derive(Debug)]
pub struct Staging {
    out: PathBuf,
    folder: PathBuf,
    replace: bool,
    /// Bytes of everything that is to be written, for messages; 0 while unknown.
    needed: Cell<u64>,
    /// Holds the lock that says that this process lives.
    _lock: File,
}

impl Staging {
    /// Begins the folder `out`, whose parent must exist. With `replace` an older output is exchanged at the end.
    ///
    /// # Errors
    /// `out` exists (and is not an output of this program, if `replace`), or its parent cannot be written to.
    pub fn begin(out: &Path, replace: bool) -> Result<Staging, Error> {
        let out = resolve(out)?;
        let (Some(parent), Some(name)) = (out.parent(), out.file_name()) else {
            return Err(Error::Usage(format!("{} cannot be an output folder", out.display())));
        };
        remove_leftovers(parent, name);
        refuse_existing(&out, replace)?;
        let mut unfinished = prefix(name);
        unfinished.push(std::process::id().to_string());
        let folder = parent.join(unfinished);
        fs::create_dir(&folder).map_err(Error::io("create the output folder", &folder))?;
        let lock = File::open(&folder).map_err(Error::io("open", &folder))?;
        // Where there are no locks, the process id alone has to tell.
        let _ = lock.try_lock();
        Ok(Staging { out, folder, replace, needed: Cell::new(0), _lock: lock })
    }

    /// Where the folder will be, absolute.
    pub fn out(&self) -> &Path {
        &self.out
    }

    /// The path of a file of the unfinished folder.
    pub fn path(&self, relative: &str) -> PathBuf {
        self.folder.join(relative)
    }

    /// Refuses if the disk has no room for `bytes`, those of all files. A disk that fills up later is told with them.
    pub fn reserve(&self, bytes: u64) -> Result<(), Error> {
        self.needed.set(bytes + SLACK);
        let Ok(disk) = rustix::fs::statvfs(&self.folder) else { return Ok(()) };
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        let needed = bytes + SLACK;
        if free < needed {
            let parent = self.out.parent().unwrap_or(&self.out).display();
            return Err(Error::Environment(format!(
                "the output takes {} bytes, and the disk of {parent} has {} left: free some, or choose another place with -o",
                grouped(needed),
                grouped(free)
            )));
        }
        Ok(())
    }

    /// Writes a file, with the folders on its way, and flushes it to the disk.
    pub fn write(&self, relative: &str, bytes: &[u8]) -> Result<(), Error> {
        if !Path::new(relative).components().all(|c| matches!(c, Component::Normal(_))) {
            return Err(Error::Bug(format!("{relative:?} leaves the output folder")));
        }
        let path = self.path(relative);
        let write = || -> io::Result<()> {
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent)?;
            }
            let mut file = File::create_new(&path)?;
            file.write_all(bytes)?;
            file.sync_all()
        };
        write().map_err(Error::writing("write", &self.out.join(relative), self.needed.get()))
    }

    /// Gives the folder its name. An older output is removed after the new one has taken its place.
    pub fn commit(self) -> Result<PathBuf, Error> {
        let (out, needed) = (self.out.clone(), self.needed.get());
        sync_folders(&self.folder).map_err(Error::writing("flush", &self.folder, needed))?;
        self.rename().map_err(|source| match source.kind() {
            io::ErrorKind::AlreadyExists | io::ErrorKind::DirectoryNotEmpty => exists(&out),
            _ => Error::writing("name the finished output", &out, needed)(source),
        })?;
        if let Some(parent) = out.parent() {
            // The rename is done; a disk that cannot confirm it changes nothing that we could do.
            let _ = File::open(parent).and_then(|folder| folder.sync_all());
        }
        Ok(out)
    }

    fn rename(&self) -> io::Result<()> {
        if !self.replace || fs::symlink_metadata(&self.out).is_err() {
            return rename_new(&self.folder, &self.out);
        }
        match rename_with(&self.folder, &self.out, RenameFlags::EXCHANGE) {
            // A file system that cannot exchange: the old output steps aside first.
            Err(e) if is_unsupported(&e) => {
                let mut aside = self.folder.clone().into_os_string();
                aside.push(ASIDE);
                fs::rename(&self.out, &aside)?;
                let renamed = fs::rename(&self.folder, &self.out);
                match renamed {
                    Ok(()) => drop(fs::remove_dir_all(&aside)),
                    Err(_) => fs::rename(&aside, &self.out)?,
                }
                renamed
            }
            // Another process took the older output away: there is nothing to exchange with.
            Err(e) if e.kind() == io::ErrorKind::NotFound => fs::rename(&self.folder, &self.out),
            done => done,
        }
    }
}

fn rename_with(from: &Path, to: &Path, flags: RenameFlags) -> io::Result<()> {
    Ok(rustix::fs::renameat_with(rustix::fs::CWD, from, rustix::fs::CWD, to, flags)?)
}

/// Renames to a name that must be free; where the file system cannot promise that, an empty folder may be there.
fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    match rename_with(from, to, RenameFlags::NOREPLACE) {
        Err(e) if is_unsupported(&e) => fs::rename(from, to),
        done => done,
    }
}

fn is_unsupported(e: &io::Error) -> bool {
    e.kind() == io::ErrorKind::InvalidInput || e.kind() == io::ErrorKind::Unsupported
}

/// Removes the unfinished folder, or the older output after an exchange.
impl Drop for Staging {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Refuses early what [`Staging::commit`] would refuse in the end.
///
/// # Errors
/// As [`Staging::begin`].
pub fn check(out: &Path, replace: bool) -> Result<(), Error> {
    refuse_existing(&resolve(out)?, replace)
}

/// The absolute path of an output whose parent exists.
fn resolve(out: &Path) -> Result<PathBuf, Error> {
    let Some(name) = out.file_name() else {
        return Err(Error::Usage(format!("{} cannot be an output folder: it has no name", out.display())));
    };
    let parent = match out.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let parent = fs::canonicalize(parent).map_err(|e| match e.kind() {
        // Making it is left to the user: a mistyped path should not leave folders behind.
        io::ErrorKind::NotFound => Error::Environment(format!(
            "{} does not exist, in which {} would be made: create it first, or choose another place with -o",
            parent.display(),
            name.display()
        )),
        _ => Error::io("open the folder of the output,", parent)(e),
    })?;
    Ok(parent.join(name))
}

fn refuse_existing(out: &Path, replace: bool) -> Result<(), Error> {
    let Ok(kind) = fs::symlink_metadata(out) else { return Ok(()) };
    let refuse = |why: &str| {
        let way = if replace { "--force will not replace it" } else { "-o chooses another place" };
        Err(Error::Usage(format!("{} exists already and {why}: {way}", out.display())))
    };
    if !kind.is_dir() {
        return refuse("is not a folder");
    }
    // Whoever mistypes -o should not lose a folder that has nothing to do with us.
    let beside = ["Cargo.toml", "model.json", "Package.swift", "maven", "include/tvlm.h"];
    let ours = out.join(MANIFEST).is_file() && beside.iter().any(|name| out.join(name).exists());
    let empty = fs::read_dir(out).is_ok_and(|mut entries| entries.next().is_none());
    match (ours || empty, replace) {
        (true, true) => Ok(()),
        (true, false) => Err(exists(out)),
        (false, _) => refuse("is not an output of tvlmc"),
    }
}

fn exists(out: &Path) -> Error {
    Error::Usage(format!(
        "{} exists already: --force replaces it with all in it, -o chooses another place",
        out.display()
    ))
}

fn prefix(name: &OsStr) -> OsString {
    let mut prefix = OsString::from(".");
    prefix.push(name);
    prefix.push(UNFINISHED);
    prefix
}

/// Removes what processes that are dead by now left behind. Failing to is no reason to stop.
///
/// An older output that had stepped aside when its process was killed gets its name back, unless a new one has it.
fn remove_leftovers(parent: &Path, name: &OsStr) {
    let prefix = prefix(name);
    let Ok(entries) = fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        let found = entry.file_name();
        let Some(rest) = found.as_encoded_bytes().strip_prefix(prefix.as_encoded_bytes()) else { continue };
        let Ok(rest) = std::str::from_utf8(rest) else { continue };
        let aside = rest.strip_suffix(ASIDE);
        let Ok(id) = aside.unwrap_or(rest).parse::<i32>() else { continue };
        let path = entry.path();
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        let own = id == std::process::id() as i32;
        let lives = !own && Pid::from_raw(id).is_some_and(|pid| test_kill_process(pid).is_ok());
        if is_folder && !lives && File::open(&path).is_ok_and(|folder| folder.try_lock().is_ok()) {
            let restored = aside.is_some() && rename_new(&path, &parent.join(name)).is_ok();
            if !restored {
                let _ = fs::remove_dir_all(&path);
            }
        }
    }
}

/// Flushes a folder's entries, innermost first.
fn sync_folders(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_folders(&entry.path())?;
        }
    }
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(folder)
            .expect("a folder")
            .map(|e| e.expect("an entry").file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    fn write(out: &Path, replace: bool, text: &str) -> Result<PathBuf, Error> {
        let staging = Staging::begin(out, replace)?;
        staging.write(MANIFEST, text.as_bytes())?;
        staging.write("Cargo.toml", b"")?;
        staging.write("src/deep/lib.rs", b"")?;
        staging.commit()
    }

    #[test]
    fn a_folder_appears_whole_and_is_replaced_only_when_asked() {
        let root = tempfile::tempdir().expect("a folder");
        let out = root.path().join("out");
        write(&out, false, "one").expect("written");
        assert_eq!(names(root.path()), ["out"]);
        assert_eq!(names(&out), ["Cargo.toml", "manifest.json", "src"]);
        assert_eq!(write(&out, false, "two").expect_err("exists").exit_code(), 2);
        write(&out, true, "three").expect("replaced");
        assert_eq!(names(root.path()), ["out"]);
        assert_eq!(fs::read_to_string(out.join(MANIFEST)).expect("a file"), "three");
    }

    #[test]
    fn the_folder_around_the_output_is_not_made() {
        let root = tempfile::tempdir().expect("a folder");
        let error = write(&root.path().join("no/such/out"), false, "").expect_err("no folder");
        assert!(error.to_string().contains("no/such does not exist, in which out would be made: create it first"));
        assert_eq!((error.exit_code(), names(root.path())), (4, vec![]));
    }

    #[test]
    fn nothing_stays_of_what_was_given_up() {
        let root = tempfile::tempdir().expect("a folder");
        let staging = Staging::begin(&root.path().join("out"), false).expect("begun");
        staging.write("a/b", b"c").expect("written");
        assert!(staging.write("../b", b"c").is_err());
        drop(staging);
        assert_eq!(names(root.path()), [""; 0]);
    }

    #[test]
    fn foreign_folders_are_safe_from_force() {
        let root = tempfile::tempdir().expect("a folder");
        let home = root.path().join("home");
        fs::create_dir(&home).expect("created");
        fs::write(home.join("letter"), "dear").expect("written");
        assert_eq!(write(&home, true, "").expect_err("foreign").exit_code(), 2);
        std::os::unix::fs::symlink(&home, root.path().join("link")).expect("linked");
        assert_eq!(write(&root.path().join("link"), true, "").expect_err("a link").exit_code(), 2);
        assert_eq!(names(&home), ["letter"]);
    }

    #[test]
    fn leftovers_of_the_dead_go_and_those_of_the_living_stay() {
        let root = tempfile::tempdir().expect("a folder");
        let leftover = |id: &str| {
            let path = root.path().join(format!(".out.tvlmc-tmp-{id}"));
            fs::create_dir(&path).expect("created");
            path
        };
        // Above the largest process id of Linux.
        let dead = leftover("99999999");
        let living = leftover(&std::os::unix::process::parent_id().to_string());
        let foreign = leftover("x");
        write(&root.path().join("out"), false, "").expect("written");
        assert!(!dead.exists() && living.exists() && foreign.exists());
    }
}

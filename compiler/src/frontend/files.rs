//! Opening and reading the files of a checkpoint folder, which may be hostile.
//!
//! Three rules keep us inside the folder. A name is one plain path component, so nothing in an
//! index can walk out with `..` or an absolute path. A name that comes from *file content* (a
//! shard in the index) may be a symlink only if the link stays in the folder or in the `blobs`
//! folder of a hub cache, where `snapshots/<revision>/<file>` are links to `../../blobs/<hash>`;
//! a name that *we* chose (`config.json`, `model.safetensors`) may be a link to anywhere, since only
//! the owner of the folder can have put it there, and people do link big files from other disks.
//! And only regular files are opened: a FIFO would wait forever, a device may act when opened.
//!
//! Everything is read with `pread` into bounded buffers, never mapped: a mapped checkpoint counts
//! into our resident memory, and a file that shrinks under a mapping kills the process.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};

use crate::error::{Error, Quoted, grouped};

/// A checkpoint folder.
pub(super) struct Folder {
    /// As the user named it, for messages.
    pub path: PathBuf,
    /// Without links.
    real: PathBuf,
    /// Where a hub cache keeps the files that its snapshots link to.
    blobs: Option<PathBuf>,
}

/// Who named a file, which decides where its symlink may lead.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Named {
    /// This program or the user.
    ByUs,
    /// The content of another file.
    ByIndex,
}

impl Folder {
    /// Opens `path`, which is a folder.
    pub fn open(path: &Path) -> Result<Folder, Error> {
        let real = path.canonicalize().map_err(Error::io("open", path))?;
        let hub = real.parent().filter(|parent| parent.ends_with("snapshots")).and_then(Path::parent);
        let blobs = hub.and_then(|hub| hub.join("blobs").canonicalize().ok());
        Ok(Folder { path: path.to_owned(), real, blobs })
    }

    /// The folder's own name, for messages about the folder.
    pub fn shown(&self) -> String {
        self.path.display().to_string()
    }

    /// The error with the folder before the names of its files, so that a user of several knows which one is meant.
    pub fn locate(&self, error: Error) -> Error {
        let Error::Input(mut findings) = error else { return error };
        let folder = self.shown();
        for finding in &mut findings {
            let located =
                finding.file.strip_prefix(&folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
            if !located {
                finding.file = self.path.join(&finding.file).display().to_string();
            }
        }
        Error::Input(findings)
    }

    /// Opens a file of the folder for reading, or `None` if there is none of that name.
    pub fn file(&self, name: &str, named: Named) -> Result<Option<InputFile>, Error> {
        let refuse = |problem: String| Err(Error::input(shown_name(name), "", problem));
        if !is_plain_name(name) {
            return refuse("leaves the model folder: a file name without separators is expected".into());
        }
        let listed = self.real.join(name);
        let link = match std::fs::symlink_metadata(&listed) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            found => found.map_err(Error::io("open", &listed))?.is_symlink(),
        };
        let path = if link {
            let target = match listed.canonicalize() {
                Err(e) if e.kind() == io::ErrorKind::NotFound => {
                    return refuse("is a link to a file that does not exist: is the download complete?".into());
                }
                target => target.map_err(Error::io("follow the link", &listed))?,
            };
            let inside = target.starts_with(&self.real) || self.blobs.as_ref().is_some_and(|b| target.starts_with(b));
            if named == Named::ByIndex && !inside {
                return refuse("is a link that leaves the model folder: copy the file into the folder".into());
            }
            target
        } else {
            listed
        };
        // Asked before opening, as opening a device or a FIFO already does something.
        let before = std::fs::symlink_metadata(&path).map_err(Error::io("open", &path))?;
        if !before.is_file() {
            return refuse(format!("is {}, not a regular file", kind_of(&before)));
        }
        // The flags close the gap between asking and opening: no link, and no waiting for a writer.
        let file = std::fs::OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC)
            .open(&path)
            .map_err(Error::io("open", &path))?;
        let metadata = file.metadata().map_err(Error::io("open", &path))?;
        if !metadata.is_file() {
            return refuse(format!("is {}, not a regular file", kind_of(&metadata)));
        }
        Ok(Some(InputFile { name: shown_name(name), path, file, opened: Identity::of(&metadata) }))
    }

    /// The whole content of a small file, or `None` if there is none of that name.
    pub fn text(&self, name: &str, max_bytes: u64) -> Result<Option<Vec<u8>>, Error> {
        let Some(file) = self.file(name, Named::ByUs)? else { return Ok(None) };
        if file.len() > max_bytes {
            let problem = format!("has {} bytes, the limit is {}", grouped(file.len()), grouped(max_bytes));
            return Err(Error::input(name, "", problem));
        }
        let mut bytes = vec![0; file.len() as usize];
        file.read_at(&mut bytes, 0)?;
        file.check_unchanged()?;
        Ok(Some(bytes))
    }

    /// Whether the folder has one of that name, links not followed.
    pub fn has_folder(&self, name: &str) -> bool {
        std::fs::symlink_metadata(self.real.join(name)).is_ok_and(|found| found.is_dir())
    }

    /// Names in the folder that end in `suffix`, sorted; for messages and for finding a lone file.
    pub fn names_ending(&self, suffix: &str) -> Result<Vec<String>, Error> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.real).map_err(Error::io("list", &self.path))? {
            let name = entry.map_err(Error::io("list", &self.path))?.file_name();
            if let Some(name) = name.to_str().filter(|name| name.ends_with(suffix)) {
                names.push(name.to_owned());
            }
        }
        names.sort();
        Ok(names)
    }
}

/// A regular file that stays open while the checkpoint is in use. Reads are thread-safe.
pub(super) struct InputFile {
    /// For messages.
    pub name: String,
    path: PathBuf,
    file: File,
    opened: Identity,
}

impl InputFile {
    /// Bytes, when it was opened.
    pub fn len(&self) -> u64 {
        self.opened.len
    }

    /// Whether both are the same file on disk, be it by name or by hard link.
    pub fn is_same_file(&self, other: &InputFile) -> bool {
        (self.opened.device, self.opened.inode) == (other.opened.device, other.opened.inode)
    }

    /// Fills `bytes` from `offset` on.
    pub fn read_at(&self, bytes: &mut [u8], offset: u64) -> Result<(), Error> {
        self.file.read_exact_at(bytes, offset).map_err(|e| match e.kind() {
            io::ErrorKind::UnexpectedEof => self.changed(),
            _ => Error::Io { action: "read", path: self.path.clone(), source: e },
        })
    }

    /// Refuses if the file was written to since it was opened.
    pub fn check_unchanged(&self) -> Result<(), Error> {
        let now = self.file.metadata().map_err(Error::io("read", &self.path))?;
        if Identity::of(&now) == self.opened { Ok(()) } else { Err(self.changed()) }
    }

    fn changed(&self) -> Error {
        Error::input(&*self.name, "", "changed while it was being read: wait for the download or copy, then run again")
    }
}

/// What changes when a file is written to. The change time is in it because a writer can set the
/// modification time back, but not this one.
#[derive(PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
    len: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Identity {
    fn of(m: &Metadata) -> Identity {
        Identity {
            device: m.dev(),
            inode: m.ino(),
            len: m.len(),
            modified: (m.mtime(), m.mtime_nsec()),
            changed: (m.ctime(), m.ctime_nsec()),
        }
    }
}

/// Whether `name` is one component and nothing else, on this system and on others.
fn is_plain_name(name: &str) -> bool {
    let mut components = Path::new(name).components();
    let plain = matches!((components.next(), components.next()), (Some(Component::Normal(_)), None));
    plain && !name.contains(['/', '\\', ':', '\0']) && name.len() <= 255
}

/// A file name for the head of a message: as it is if harmless, else quoted.
fn shown_name(name: &str) -> String {
    let harmless = |b: u8| b.is_ascii_alphanumeric() || b"._-+=@".contains(&b);
    if name.len() <= 120 && name.bytes().all(harmless) { name.to_owned() } else { Quoted(name).to_string() }
}

fn kind_of(metadata: &Metadata) -> &'static str {
    use std::os::unix::fs::FileTypeExt;
    let kind = metadata.file_type();
    if kind.is_dir() {
        "a folder"
    } else if kind.is_fifo() {
        "a FIFO"
    } else if kind.is_char_device() || kind.is_block_device() {
        "a device"
    } else if kind.is_socket() {
        "a socket"
    } else {
        "a link"
    }
}

//! Reading a FastVLM checkpoint folder, in either published layout.
//!
//! [`Checkpoint`] gives tensors and texts, [`describe`] says which model they are, and
//! [`tokenizer_section`] bakes the tokenizer's tables. The folder is only ever read, and everything in
//! it may be hostile: each claim is checked against the bytes before it is used as a size or a bound.

mod config;
mod expected;
mod files;
mod index;
mod json;
mod keys;
mod license;
mod llava;
mod preprocessor;
mod read;
pub mod safetensors;
mod text;
mod tokenizer;
mod tokens;
mod transformers;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rayon::prelude::*;
use sha2::{Digest, Sha256};

pub use config::{Described, describe};
pub use license::{LicenseText, Licenses};
pub use safetensors::{Dtype, TensorInfo};
pub use tokenizer::tokenizer_section;

use crate::error::{Error, Finding, Quoted, did_you_mean};
use files::{Folder, InputFile, Named};
use index::{INDEX, Index, OpenShard};
use safetensors::read_header;

/// The text files that take part in what is emitted, with the largest size of each in bytes: three
/// times Qwen2's own, and small enough that parsed JSON, some ten times larger, cannot fill the memory.
const TEXTS: [(&str, u64); 10] = [
    (CONFIG, 4 << 20),
    (GENERATION_CONFIG, 4 << 20),
    (PREPROCESSOR_CONFIG, 4 << 20),
    (PROCESSOR_CONFIG, 4 << 20),
    (TOKENIZER, 32 << 20),
    (TOKENIZER_CONFIG, 4 << 20),
    (ADDED_TOKENS, 4 << 20),
    (VOCAB, 32 << 20),
    (MERGES, 32 << 20),
    (CHAT_TEMPLATE, 4 << 20),
];
const CONFIG: &str = "config.json";
const GENERATION_CONFIG: &str = "generation_config.json";
const PREPROCESSOR_CONFIG: &str = "preprocessor_config.json";
const PROCESSOR_CONFIG: &str = "processor_config.json";
const TOKENIZER: &str = "tokenizer.json";
const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
const ADDED_TOKENS: &str = "added_tokens.json";
const VOCAB: &str = "vocab.json";
const MERGES: &str = "merges.txt";
const CHAT_TEMPLATE: &str = "chat_template.jinja";

/// The file of a checkpoint that has only one.
const SINGLE: &str = "model.safetensors";

/// The index may be as large as the headers it repeats.
const MAX_INDEX: u64 = 100_000_000;

/// Bytes of a file that one worker digests at a time. Part of the digest's definition.
const DIGEST_CHUNK: u64 = 4 << 20;

/// What the user allows.
#[derive(Clone, Copy, Debug, Default)]
pub struct OpenOptions {
    /// Read NaN and infinity in weights instead of refusing them.
    pub allow_non_finite: bool,
}

/// An open checkpoint. Shared reads from several threads are fine.
pub struct Checkpoint {
    folder: Folder,
    shards: Vec<InputFile>,
    tensors: BTreeMap<String, Stored>,
    texts: BTreeMap<&'static str, Vec<u8>>,
    options: OpenOptions,
    /// The tokenizer, from being described until it is baked: reading it takes longer than all else.
    vocabulary: Mutex<Option<tokenizer::Vocabulary>>,
    /// What went wrong behind an interface that only carries text.
    failed: Mutex<Option<Error>>,
}

/// Where a tensor lies.
struct Stored {
    info: TensorInfo,
    shard: usize,
}

/// Refuses what cannot be a checkpoint by its name and kind, without looking into it.
///
/// # Errors
/// No such file, or neither a folder nor a `.safetensors` file.
pub fn check_path(path: &Path) -> Result<(), Error> {
    place(path).map(|_| ())
}

/// The folder, and the file in it that was named.
fn place(path: &Path) -> Result<(&Path, Option<&str>), Error> {
    let kind = match std::fs::metadata(path) {
        Err(e) if matches!(e.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
            let problem = "no such file or folder: a checkpoint folder or a .safetensors file in one is expected";
            return Err(Error::input(path.display().to_string(), "", problem));
        }
        kind => kind.map_err(Error::io("open", path))?,
    };
    if kind.is_dir() { Ok((path, None)) } else { split_file(path) }
}

impl Checkpoint {
    /// Opens `path`, a checkpoint folder or a `.safetensors` file in one, and reads all headers and texts.
    ///
    /// A file that the folder's index lists stands for the whole sharded checkpoint.
    ///
    /// # Errors
    ///
    /// Whatever is wrong with the files as files; what they say is for [`describe`].
    pub fn open(path: &Path, options: &OpenOptions) -> Result<Checkpoint, Error> {
        let (folder, file) = place(path)?;
        let folder = Folder::open(folder)?;
        let files = open_weights(&folder, file).map_err(|e| folder.locate(e))?;
        let mut texts = BTreeMap::new();
        for (name, max_bytes) in TEXTS {
            if let Some(bytes) = folder.text(name, max_bytes).map_err(|e| folder.locate(e))? {
                texts.insert(name, bytes);
            }
        }
        let mut shards = Vec::with_capacity(files.len());
        let mut tensors = BTreeMap::new();
        for (shard, (file, header)) in files.into_iter().enumerate() {
            // The index has made sure that no two shards hold the same name.
            tensors.extend(header.into_iter().map(|(name, info)| (name, Stored { info, shard })));
            shards.push(file);
        }
        Ok(Checkpoint {
            folder,
            shards,
            tensors,
            texts,
            options: *options,
            vocabulary: Mutex::default(),
            failed: Mutex::default(),
        })
    }

    /// The folder, as the user named it.
    pub fn folder(&self) -> &Path {
        &self.folder.path
    }

    /// The weight files with their bytes, in the order of their names.
    pub fn files(&self) -> impl Iterator<Item = (&str, u64)> {
        self.shards.iter().map(|file| (file.name.as_str(), file.len()))
    }

    /// All tensors in the order of their names, as the checkpoint calls them.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, &TensorInfo)> {
        self.tensors.iter().map(|(name, stored)| (name.as_str(), &stored.info))
    }

    /// One tensor.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.get(name).map(|stored| &stored.info)
    }

    /// The shape of one tensor.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.tensor(name).map(|info| &info.shape[..])
    }

    /// The content of one of the folder's text files, as it was when the checkpoint was opened.
    pub(crate) fn text(&self, name: &str) -> Option<&[u8]> {
        self.texts.get(name).map(|bytes| &bytes[..])
    }

    /// What the folder says about the license of its weights.
    ///
    /// # Errors
    ///
    /// A text that cannot be copied.
    pub fn licenses(&self) -> Result<Licenses, Error> {
        Licenses::read(&self.folder).map_err(|e| self.folder.locate(e))
    }

    /// SHA-256 over all weight files and the texts that shape the output.
    ///
    /// It depends on their content only, neither on the folder's name nor on the number of threads. The
    /// files are digested in chunks of 4 MiB, side by side, and the chunks' digests once more in order.
    pub fn digest(&self) -> Result<[u8; 32], Error> {
        let mut all = Sha256::new();
        all.update(b"tvlmc checkpoint 1\n");
        for (name, bytes) in &self.texts {
            all.update(format!("{name} {}\n", bytes.len()));
            all.update(bytes);
        }
        for file in &self.shards {
            all.update(format!("weights {}\n", file.len()));
            let chunks: Result<Vec<[u8; 32]>, Error> = (0..file.len().div_ceil(DIGEST_CHUNK))
                .into_par_iter()
                .map_init(Vec::new, |buffer, chunk| {
                    let begin = chunk * DIGEST_CHUNK;
                    buffer.resize(DIGEST_CHUNK.min(file.len() - begin) as usize, 0);
                    file.read_at(buffer, begin).map_err(|e| self.folder.locate(e))?;
                    Ok(Sha256::digest(&*buffer).into())
                })
                .collect();
            for chunk in chunks? {
                all.update(chunk);
            }
        }
        Ok(all.finalize().into())
    }

    /// Refuses if a weight file was written to since the checkpoint was opened. To be called when
    /// everything has been read, and before the output gets its final name.
    pub fn check_unchanged(&self) -> Result<(), Error> {
        self.shards.iter().try_for_each(InputFile::check_unchanged).map_err(|e| self.folder.locate(e))
    }

    /// The error with this folder before the names of its files.
    fn locate(&self, error: Error) -> Error {
        self.folder.locate(error)
    }

    fn keep_vocabulary(&self, vocabulary: tokenizer::Vocabulary) {
        *self.vocabulary.lock().unwrap_or_else(PoisonError::into_inner) = Some(vocabulary);
    }

    fn take_vocabulary(&self) -> Option<tokenizer::Vocabulary> {
        self.vocabulary.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// The stored tensor `name`, or an error that says where it was looked for.
    fn stored(&self, name: &str) -> Result<(&TensorInfo, &InputFile), Error> {
        match self.tensors.get(name) {
            Some(stored) => Ok((&stored.info, &self.shards[stored.shard])),
            None => {
                let near = did_you_mean(name, self.tensors.keys().map(String::as_str));
                Err(Error::input(self.folder.shown(), format!("tensor {}", Quoted(name)), format!("is missing{near}")))
            }
        }
    }

    /// A finding about tensor `name`, which is at home in one of the files.
    fn finding(&self, name: &str, problem: String) -> Finding {
        let stored = self.tensors.get(name);
        let file = stored.map_or_else(|| self.folder.shown(), |stored| self.shards[stored.shard].name.clone());
        Finding { file, item: format!("tensor {}", Quoted(name)), problem }
    }
}

/// The folder and the name of a file that the user named.
fn split_file(path: &Path) -> Result<(&Path, Option<&str>), Error> {
    let shown = || path.display().to_string();
    let name = path.file_name().and_then(|name| name.to_str()).filter(|name| name.ends_with(".safetensors"));
    let Some(name) = name else {
        return Err(Error::input(shown(), "", "is neither a folder nor a .safetensors file"));
    };
    match path.parent() {
        Some(parent) if parent == Path::new("") => Ok((Path::new("."), Some(name))),
        Some(parent) => Ok((parent, Some(name))),
        None => Err(Error::input(shown(), "", "is not in a folder")),
    }
}

/// Finds the weight files: the one the user named, the single file, the indexed shards, or the only one there is.
fn open_weights(folder: &Folder, file: Option<&str>) -> Result<Vec<OpenShard>, Error> {
    let single = |name: &str| -> Result<Option<Vec<OpenShard>>, Error> {
        let Some(file) = folder.file(name, Named::ByUs)? else { return Ok(None) };
        let header = read_header(&file)?;
        Ok(Some(vec![(file, header)]))
    };
    let index = || folder.text(INDEX, MAX_INDEX)?.map(|bytes| Index::parse(&bytes)).transpose();
    let missing = |what: &str| Error::input(folder.shown(), "", what.to_owned());
    if let Some(name) = file {
        if let Some(index) = index()?.filter(|index| index.lists(name)) {
            return index.open(folder);
        }
        return single(name)?.ok_or_else(|| missing("the file has gone"));
    }
    if let Some(weights) = single(SINGLE)? {
        return Ok(weights);
    }
    if let Some(index) = index()? {
        return index.open(folder);
    }
    let lone = folder.names_ending(".safetensors")?;
    // What lies beside no configuration is no model, whatever it is.
    let is_model = folder.names_ending(CONFIG)?.iter().any(|name| name == CONFIG);
    match &lone[..] {
        [name] => single(name)?.ok_or_else(|| missing("the file has gone")),
        [] if !is_model || folder.names_ending(".bin")?.is_empty() => {
            Err(missing("holds no model.safetensors and no model.safetensors.index.json: is it a checkpoint folder?"))
        }
        [] => Err(missing("holds .bin weights only, which can run code when read: convert them to safetensors")),
        _ => Err(missing(
            "holds several .safetensors files and no model.safetensors.index.json: download the index, or name one file",
        )),
    }
}

/// Where a checkpoint was opened from, for logs.
impl std::fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let folder: &PathBuf = &self.folder.path;
        f.debug_struct("Checkpoint").field("folder", folder).field("tensors", &self.tensors.len()).finish()
    }
}

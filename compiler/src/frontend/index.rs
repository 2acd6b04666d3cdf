//! `model.safetensors.index.json`: which shard holds which tensor.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::files::{Folder, InputFile, Named};
use super::json;
use super::safetensors::{MAX_TENSORS, TensorInfo, read_header};
use crate::error::{Error, Finding, Quoted, did_you_mean, grouped};

/// Its only name.
pub(super) const INDEX: &str = "model.safetensors.index.json";

/// Most files one checkpoint may have; each stays open while we compile.
const MAX_SHARDS: usize = 512;

/// A weight file and its header.
pub(super) type OpenShard = (InputFile, Vec<(String, TensorInfo)>);

/// The shard of every tensor, by tensor name.
pub(super) struct Index(BTreeMap<String, String>);

impl Index {
    /// Reads the index from the bytes of its file.
    pub fn parse(bytes: &[u8]) -> Result<Index, Error> {
        let mut object = json::parse_object(INDEX, bytes)?;
        let map = match object.remove("weight_map") {
            Some(Value::Object(map)) => map,
            Some(other) => {
                let problem = format!("an object of tensor: file is expected, not {}", json::kind(&other));
                return Err(Error::input(INDEX, "weight_map", problem));
            }
            None => {
                let near = did_you_mean("weight_map", object.keys().map(String::as_str));
                return Err(Error::input(INDEX, "weight_map", format!("is missing{near}")));
            }
        };
        if map.is_empty() || map.len() > MAX_TENSORS {
            let found = grouped(map.len() as u64);
            let problem = format!("has {found} tensors; 1 to {} are expected", grouped(MAX_TENSORS as u64));
            return Err(Error::input(INDEX, "weight_map", problem));
        }
        let mut shard_of = BTreeMap::new();
        let mut findings = Vec::new();
        for (tensor, shard) in map {
            match shard {
                Value::String(shard) => drop(shard_of.insert(tensor, shard)),
                other => findings.push(Finding {
                    file: INDEX.into(),
                    item: format!("weight_map: {}", Quoted(&tensor)),
                    problem: format!("a file name is expected, not {}", json::kind(&other)),
                }),
            }
        }
        if findings.is_empty() { Ok(Index(shard_of)) } else { Err(Error::Input(findings)) }
    }

    /// Whether the index names this file.
    pub fn lists(&self, file: &str) -> bool {
        self.0.values().any(|shard| shard == file)
    }

    /// Opens all shards, in the order of their names, and checks that index and headers agree.
    pub fn open(&self, folder: &Folder) -> Result<Vec<OpenShard>, Error> {
        let names: BTreeSet<&str> = self.0.values().map(String::as_str).collect();
        if names.len() > MAX_SHARDS {
            let found = grouped(names.len() as u64);
            return Err(Error::input(INDEX, "weight_map", format!("names {found} files, the limit is {MAX_SHARDS}")));
        }
        let mut findings = Vec::new();
        let mut files: Vec<(&str, InputFile)> = Vec::new();
        for name in names {
            let mut refuse = |problem: String| {
                findings.push(Finding { file: INDEX.into(), item: format!("shard {}", Quoted(name)), problem });
            };
            match open_shard(folder, name) {
                Ok(file) => match files.iter().find(|(_, other)| other.is_same_file(&file)) {
                    Some((other, _)) => refuse(format!("is the same file as {}", Quoted(other))),
                    None => files.push((name, file)),
                },
                Err(Error::Input(inner)) => inner.into_iter().for_each(|f| refuse(f.problem)),
                Err(other) => return Err(other),
            }
        }
        if !findings.is_empty() {
            return Err(Error::Input(findings));
        }
        let mut shards = Vec::new();
        for (name, file) in files {
            match read_header(&file) {
                Ok(tensors) => {
                    self.compare(name, &tensors, &mut findings);
                    shards.push((file, tensors));
                }
                Err(Error::Input(inner)) => findings.extend(inner),
                Err(other) => return Err(other),
            }
        }
        if findings.is_empty() { Ok(shards) } else { Err(Error::Input(findings)) }
    }

    /// Adds what index and header of one shard do not agree on.
    fn compare(&self, shard: &str, tensors: &[(String, TensorInfo)], findings: &mut Vec<Finding>) {
        let mut refuse = |tensor: &str, problem: String| {
            findings.push(Finding { file: shard.into(), item: format!("tensor {}", Quoted(tensor)), problem });
        };
        for (tensor, _) in tensors {
            match self.0.get(tensor) {
                Some(listed) if listed == shard => {}
                Some(listed) => refuse(tensor, format!("the index lists it in {}", Quoted(listed))),
                None => refuse(tensor, format!("is not in {INDEX}")),
            }
        }
        let stored: BTreeSet<&str> = tensors.iter().map(|(name, _)| name.as_str()).collect();
        for (tensor, _) in self.0.iter().filter(|(_, listed)| *listed == shard) {
            if !stored.contains(tensor.as_str()) {
                refuse(tensor, "the index lists it here, but the file does not hold it".into());
            }
        }
    }
}

fn open_shard(folder: &Folder, name: &str) -> Result<InputFile, Error> {
    if !name.ends_with(".safetensors") && !name.contains(['/', '\\']) {
        return Err(Error::input(name, "", "is not a .safetensors file"));
    }
    let missing = || Error::input(name, "", format!("is missing in {}: is the download complete?", folder.shown()));
    folder.file(name, Named::ByIndex)?.ok_or_else(missing)
}

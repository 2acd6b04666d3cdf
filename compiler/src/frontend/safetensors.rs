//! The header of a safetensors file, read strictly.
//!
//! A file is a u64 length, that many bytes of JSON, then the data. Everything the header claims is
//! checked against the file before it is used as a size: the ranges must tile the data exactly, in
//! any order, with no hole, overlap or rest. Duplicate keys are refused, which needs a visitor of
//! our own: a map would silently keep the last one, and another reader the first.

use std::collections::HashSet;
use std::fmt::{self, Formatter};

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use super::files::InputFile;
use crate::error::{Error, Finding, Quoted, grouped};

/// Longest header, in bytes: the limit of the format's own implementation.
pub const MAX_HEADER: u64 = 100_000_000;
/// Most tensors in one file.
pub const MAX_TENSORS: usize = 100_000;
/// Longest tensor name, in bytes.
pub const MAX_NAME: usize = 512;
/// Most dimensions of a tensor.
pub const MAX_DIMS: usize = 8;

/// Types of stored values that we read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Dtype {
    /// IEEE single.
    F32,
    /// IEEE half.
    F16,
    /// The upper half of a single.
    Bf16,
    /// Only in counters that inference ignores.
    I64,
}

impl Dtype {
    /// Bytes of one value.
    pub fn bytes(self) -> u64 {
        match self {
            Dtype::F32 => 4,
            Dtype::F16 | Dtype::Bf16 => 2,
            Dtype::I64 => 8,
        }
    }

    /// The format's name of the type.
    pub fn name(self) -> &'static str {
        match self {
            Dtype::F32 => "F32",
            Dtype::F16 => "F16",
            Dtype::Bf16 => "BF16",
            Dtype::I64 => "I64",
        }
    }

    fn parse(name: &str) -> Option<Dtype> {
        [Dtype::F32, Dtype::F16, Dtype::Bf16, Dtype::I64].into_iter().find(|dtype| dtype.name() == name)
    }
}

/// One stored tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Type of its values.
    pub dtype: Dtype,
    /// Sizes, outermost first; no zeros, empty for a single value.
    pub shape: Vec<usize>,
    /// Bytes from the start of the file to the first value.
    pub offset: u64,
    /// Bytes of all values.
    pub bytes: u64,
}

impl TensorInfo {
    /// How many values it has.
    pub fn values(&self) -> u64 {
        self.bytes / self.dtype.bytes()
    }
}

/// Reads the header of `file`: names and places of its tensors, in the order of the data.
pub(super) fn read_header(file: &InputFile) -> Result<Vec<(String, TensorInfo)>, Error> {
    let refuse = |problem: String| Error::input(&*file.name, "", problem);
    if file.len() < 8 {
        let found = grouped(file.len());
        return Err(refuse(format!("has {found} bytes, a header length takes 8: truncated or not safetensors")));
    }
    let mut length = [0; 8];
    file.read_at(&mut length, 0)?;
    let length = u64::from_le_bytes(length);
    if length > file.len() - 8 {
        let file_len = grouped(file.len());
        let problem =
            format!("header length {length} exceeds the file ({file_len} bytes): truncated or not safetensors");
        return Err(refuse(problem));
    }
    if length > MAX_HEADER {
        return Err(refuse(format!("header length {length} exceeds the limit of {} bytes", grouped(MAX_HEADER))));
    }
    let mut json = vec![0; length as usize];
    file.read_at(&mut json, 8)?;
    parse_header(&file.name, &json, file.len() - 8 - length)
}

/// Checks the JSON part of a header whose file has `data_bytes` bytes behind it.
///
/// # Errors
///
/// Everything that is wrong with the tensors at once; only the first error of the JSON itself.
pub fn parse_header(file: &str, json: &[u8], data_bytes: u64) -> Result<Vec<(String, TensorInfo)>, Error> {
    let refuse = |problem: String| Error::input(file, "header", problem);
    if json.first() != Some(&b'{') {
        return Err(refuse("does not start with \"{\": not safetensors".into()));
    }
    let text = std::str::from_utf8(json).map_err(|e| {
        refuse(format!("is not UTF-8 from byte {} on: not safetensors", grouped(e.valid_up_to() as u64)))
    })?;
    let mut json = serde_json::Deserializer::from_str(text);
    let entries = json.deserialize_map(HeaderVisitor).and_then(|entries| json.end().map(|()| entries));
    let entries = entries.map_err(|e| refuse(e.to_string()))?;

    // No file is longer, and the sums below stay in range.
    let data_bytes = data_bytes.min(i64::MAX as u64);
    let data_start = 8 + text.len() as u64;
    let promised = entries.iter().map(|(_, entry)| entry.range[1]).max().unwrap_or(0);
    // A sound header in front of too little is one problem, not one for each tensor that is missing.
    if promised > data_bytes
        && let Some(promised) = data_start.checked_add(promised)
        && check_entries(file, &entries, data_start, promised - data_start).is_ok()
    {
        let (found, promised) = (grouped(data_start + data_bytes), grouped(promised));
        let problem = format!("truncated: {found} bytes, the header promises {promised}: is the download complete?");
        return Err(Error::input(file, "", problem));
    }
    check_entries(file, &entries, data_start, data_bytes)
}

/// The tensors of a header in the order of the data, of which there are `data_bytes`.
fn check_entries(
    file: &str,
    entries: &[(String, Entry)],
    data_start: u64,
    data_bytes: u64,
) -> Result<Vec<(String, TensorInfo)>, Error> {
    let mut findings = Vec::new();
    let mut tensors = Vec::with_capacity(entries.len());
    for (name, entry) in entries {
        match entry.check(name, data_start, data_bytes) {
            Ok(tensor) => tensors.push((name.clone(), tensor)),
            Err(problem) => findings.push(finding(file, name, problem)),
        }
    }
    tensors.sort_by_key(|(_, tensor)| tensor.offset);
    if findings.is_empty() {
        check_tiling(file, &tensors, data_start, data_bytes, &mut findings);
    }
    if findings.is_empty() { Ok(tensors) } else { Err(Error::Input(findings)) }
}

fn finding(file: &str, name: &str, problem: String) -> Finding {
    Finding { file: file.into(), item: format!("tensor {}", Quoted(name)), problem }
}

/// `tensors` are in the order of their offsets.
fn check_tiling(file: &str, tensors: &[(String, TensorInfo)], start: u64, bytes: u64, findings: &mut Vec<Finding>) {
    let mut end = start;
    let mut before: Option<(&str, &TensorInfo)> = None;
    let range = |t: &TensorInfo| format!("[{}, {}]", t.offset - start, t.offset - start + t.bytes);
    for (name, tensor) in tensors {
        if tensor.offset < end {
            let (other, other_tensor) = before.expect("only another tensor moves the end");
            let problem =
                format!("its bytes {} overlap {} of tensor {}", range(tensor), range(other_tensor), Quoted(other));
            findings.push(finding(file, name, problem));
        } else if tensor.offset > end {
            let problem = format!(
                "its bytes {} leave a hole of {} bytes before them",
                range(tensor),
                grouped(tensor.offset - end)
            );
            findings.push(finding(file, name, problem));
        }
        if tensor.offset + tensor.bytes >= end {
            end = tensor.offset + tensor.bytes;
            before = Some((name, tensor));
        }
    }
    let rest = start + bytes - end;
    if rest > 0 {
        let problem = format!("{} bytes follow the last tensor and belong to none", grouped(rest));
        findings.push(Finding { file: file.into(), item: String::new(), problem });
    }
}

/// One entry as written, before any check.
struct Entry {
    dtype: String,
    shape: Vec<u64>,
    range: [u64; 2],
}

impl Entry {
    fn check(&self, name: &str, data_start: u64, data_bytes: u64) -> Result<TensorInfo, String> {
        let Entry { dtype: dtype_name, shape, range: [begin, end] } = self;
        let (begin, end) = (*begin, *end);
        let Some(dtype) = Dtype::parse(dtype_name) else {
            return Err(format!(
                "dtype {} is not supported (F32, F16, BF16 are): is this a quantized copy? use the original checkpoint",
                Quoted(dtype_name)
            ));
        };
        if dtype == Dtype::I64 && !is_counter(name) {
            return Err("dtype I64 is only known for \"num_batches_tracked\" (F32, F16, BF16 are supported)".into());
        }
        if shape.contains(&0) {
            return Err(format!("shape {shape:?} has a zero"));
        }
        let bytes = byte_size(shape, dtype).ok_or_else(|| format!("shape {shape:?} has more bytes than 2^64"))?;
        if begin > end || end > data_bytes {
            return Err(format!("its bytes [{begin}, {end}] are outside the data ({} bytes)", grouped(data_bytes)));
        }
        if end - begin != bytes {
            let (found, dtype) = (grouped(end - begin), dtype.name());
            return Err(format!(
                "its bytes [{begin}, {end}] are {found}, but {dtype} of shape {shape:?} takes {}",
                grouped(bytes)
            ));
        }
        // The sizes are at most `bytes`, which is inside the file.
        let shape = shape.iter().map(|&n| n as usize).collect();
        Ok(TensorInfo { dtype, shape, offset: data_start + begin, bytes })
    }
}

/// Whether a tensor is a BatchNorm's step counter, which inference ignores.
pub(super) fn is_counter(name: &str) -> bool {
    name.ends_with(".num_batches_tracked")
}

/// Bytes of a tensor, if they fit into 64 bits.
fn byte_size(shape: &[u64], dtype: Dtype) -> Option<u64> {
    shape.iter().try_fold(dtype.bytes(), |bytes, &n| bytes.checked_mul(n))
}

struct HeaderVisitor;

impl<'de> Visitor<'de> for HeaderVisitor {
    type Value = Vec<(String, Entry)>;

    fn expecting(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut entries = Vec::new();
        let mut names = HashSet::new();
        while let Some(name) = map.next_key::<String>()? {
            if name.len() > MAX_NAME {
                let problem = format!("tensor name {} is longer than {MAX_NAME} bytes", Quoted(&name));
                return Err(de::Error::custom(problem));
            }
            if !names.insert(name.clone()) {
                return Err(de::Error::custom(format!("tensor {} is defined twice", Quoted(&name))));
            }
            if name == "__metadata__" {
                map.next_value_seed(Metadata)?;
                continue;
            }
            if entries.len() == MAX_TENSORS {
                return Err(de::Error::custom(format!("more than {} tensors", grouped(MAX_TENSORS as u64))));
            }
            let entry = map.next_value_seed(EntrySeed(&name))?;
            entries.push((name, entry));
        }
        Ok(entries)
    }
}

/// The free-form part: strings only, and of no use to us.
struct Metadata;

impl<'de> DeserializeSeed<'de> for Metadata {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<(), D::Error> {
        d.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Metadata {
    type Value = ();

    fn expecting(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("\"__metadata__\" as an object of strings")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut keys = HashSet::new();
        while let Some((key, _)) = map.next_entry::<String, String>()? {
            if keys.contains(&key) {
                return Err(de::Error::custom(format!("\"__metadata__\" has {} twice", Quoted(&key))));
            }
            keys.insert(key);
        }
        Ok(())
    }
}

/// Reads one entry; the name is for messages.
struct EntrySeed<'a>(&'a str);

impl<'de> DeserializeSeed<'de> for EntrySeed<'_> {
    type Value = Entry;

    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<Entry, D::Error> {
        d.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for EntrySeed<'_> {
    type Value = Entry;

    fn expecting(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "tensor {} as an object of dtype, shape and data_offsets", Quoted(self.0))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entry, A::Error> {
        let name = Quoted(self.0);
        let (mut dtype, mut shape, mut range) = (None, None, None);
        while let Some(key) = map.next_key::<String>()? {
            let twice = match key.as_str() {
                "dtype" => dtype.replace(map.next_value::<String>()?).is_some(),
                "shape" => {
                    shape.replace(map.next_value_seed(Numbers { of: self.0, what: "shape", most: MAX_DIMS })?).is_some()
                }
                "data_offsets" => {
                    let seed = Numbers { of: self.0, what: "data_offsets", most: 2 };
                    range.replace(map.next_value_seed(seed)?).is_some()
                }
                other => {
                    return Err(de::Error::custom(format!("tensor {name} has an unknown field {}", Quoted(other))));
                }
            };
            if twice {
                return Err(de::Error::custom(format!("tensor {name} has {} twice", Quoted(&key))));
            }
        }
        let missing = |field: &str| de::Error::custom(format!("tensor {name} has no {field}"));
        let range = range.ok_or_else(|| missing("data_offsets"))?;
        let range = <[u64; 2]>::try_from(range)
            .map_err(|_| de::Error::custom(format!("tensor {name}: data_offsets needs two numbers")))?;
        let dtype = dtype.ok_or_else(|| missing("dtype"))?;
        Ok(Entry { dtype, shape: shape.ok_or_else(|| missing("shape"))?, range })
    }
}

/// Reads a short list of unsigned numbers and stops at the first that is too many.
struct Numbers<'a> {
    of: &'a str,
    what: &'static str,
    most: usize,
}

impl<'de> DeserializeSeed<'de> for Numbers<'_> {
    type Value = Vec<u64>;

    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<Vec<u64>, D::Error> {
        d.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Numbers<'_> {
    type Value = Vec<u64>;

    fn expecting(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} of tensor {} as a list of at most {} unsigned numbers", self.what, Quoted(self.of), self.most)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<u64>, A::Error> {
        let mut numbers = Vec::new();
        loop {
            let next = seq
                .next_element::<u64>()
                .map_err(|e| de::Error::custom(format!("{} of tensor {}: {e}", self.what, Quoted(self.of))))?;
            match next {
                None => return Ok(numbers),
                Some(_) if numbers.len() == self.most => {
                    let problem =
                        format!("{} of tensor {} has more than {} numbers", self.what, Quoted(self.of), self.most);
                    return Err(de::Error::custom(problem));
                }
                Some(n) => numbers.push(n),
            }
        }
    }
}

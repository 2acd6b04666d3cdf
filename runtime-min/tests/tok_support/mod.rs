//! Tokenizer sections made from `tokenizer.json`, and golden files of encoded strings.

// Each test file uses a part of it.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

pub const NONE: u32 = u32::MAX;

/// Fields of a section before they are written; tests spoil single ones.
#[derive(Clone, Default)]
pub struct Tables {
    pub tokens: Vec<Vec<u8>>,
    /// (left, right, rank, result).
    pub merges: Vec<[u32; 4]>,
    pub special: Vec<u32>,
    pub byte_ids: Vec<u32>,
    /// end of text, im_start, im_end, image.
    pub roles: [u32; 4],
    pub eos: Vec<u32>,
    /// Id, start and end in the texts of added tokens, rising by their texts.
    pub added: Vec<[u32; 3]>,
    pub hash_slots: u32,
}

impl Tables {
    pub fn from_json(text: &str) -> Self {
        let json: Value = serde_json::from_str(text).expect("tokenizer.json");
        let vocab = json["model"]["vocab"].as_object().expect("vocab");
        let ids: BTreeMap<&str, u32> =
            vocab.iter().map(|(k, v)| (k.as_str(), v.as_u64().expect("id") as u32)).collect();
        let mut tables = Self { byte_ids: vec![NONE; 256], roles: [NONE; 4], ..Self::default() };
        for (token, id) in &ids {
            let bytes: Vec<u8> = token.chars().map(byte_of).collect();
            if let [byte] = bytes[..] {
                tables.byte_ids[usize::from(byte)] = *id;
            }
            tables.put(*id, bytes);
        }
        for (rank, merge) in json["model"]["merges"].as_array().expect("merges").iter().enumerate() {
            let (left, right) = match merge {
                Value::String(pair) => pair.split_once(' ').expect("pair"),
                pair => (pair[0].as_str().expect("left"), pair[1].as_str().expect("right")),
            };
            let result = ids[format!("{left}{right}").as_str()];
            tables.merges.push([ids[left], ids[right], rank as u32, result]);
        }
        let names = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<image>"];
        let mut added = Vec::new();
        for token in json["added_tokens"].as_array().expect("added_tokens") {
            let (id, name) = (token["id"].as_u64().expect("id") as u32, token["content"].as_str().expect("content"));
            tables.put(id, name.as_bytes().to_vec());
            if token["special"] != false {
                tables.special.push(id);
            }
            added.push((name, id));
            if let Some(role) = names.iter().position(|n| *n == name) {
                tables.roles[role] = id;
            }
        }
        added.sort_unstable();
        let mut starts = vec![0];
        starts.extend(tables.tokens.iter().scan(0, |end, token| {
            *end += token.len() as u32;
            Some(*end)
        }));
        tables.added = added.iter().map(|(_, id)| [*id, starts[*id as usize], starts[*id as usize + 1]]).collect();
        tables.eos = vec![tables.roles[2]];
        tables.hash_slots = (tables.merges.len() as u32 * 2).next_power_of_two();
        tables
    }

    fn put(&mut self, id: u32, bytes: Vec<u8>) {
        if self.tokens.len() <= id as usize {
            self.tokens.resize(id as usize + 1, Vec::new());
        }
        self.tokens[id as usize] = bytes;
    }

    /// Adds tokens of 2, 4, 8, ... times `byte` and their merges, the longest first.
    pub fn add_powers(&mut self, byte: u8, n: u32) {
        let mut id = self.byte_ids[usize::from(byte)];
        let known = |merge: &[u32; 4], id| merge[0] == id && merge[1] == id;
        for power in 0..n {
            if let Some(merge) = self.merges.iter().find(|merge| known(merge, id)) {
                id = merge[3];
                continue;
            }
            let result = self.tokens.len() as u32;
            self.tokens.push(vec![byte; 2 << power]);
            self.merges.push([id, id, 1_000_000 - power, result]);
            id = result;
        }
        self.hash_slots = (self.merges.len() as u32 * 2).next_power_of_two();
    }

    pub fn slots(&self) -> Vec<[u32; 4]> {
        let mut slots = vec![[NONE; 4]; self.hash_slots as usize];
        for merge in &self.merges {
            let mut at = (merge[0].wrapping_mul(0x9E37_79B1) ^ merge[1].wrapping_mul(0x85EB_CA6B)) as usize;
            while slots[at % slots.len()][0] != NONE {
                at += 1;
            }
            let at = at % slots.len();
            slots[at] = *merge;
        }
        slots
    }

    pub fn section(&self) -> Vec<u8> {
        let bytes = self.tokens.concat();
        let mut words = vec![
            self.tokens.len() as u32,
            self.merges.len() as u32,
            self.special.len() as u32,
            bytes.len() as u32,
            self.hash_slots,
        ];
        let mut offset = 0;
        words.push(0);
        for token in &self.tokens {
            offset += token.len() as u32;
            words.push(offset);
        }
        words.extend(self.slots().concat());
        words.extend(&self.byte_ids);
        words.extend(&self.special);
        words.extend(self.roles);
        words.push(self.eos.len() as u32);
        words.extend(&self.eos);
        words.push(self.added.len() as u32);
        words.extend(self.added.concat());
        let mut section = b"TOK1".to_vec();
        section.extend(words.iter().flat_map(|word| word.to_le_bytes()));
        section.extend(bytes);
        section
    }
}

/// The byte that a character of the GPT-2 alphabet stands for.
fn byte_of(c: char) -> u8 {
    let printable = |b: &u8| matches!(b, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    let code = c as u32;
    if code < 256 {
        return code as u8;
    }
    (0..=255u8).filter(|b| !printable(b)).nth(code as usize - 256).expect("a character of the alphabet")
}

pub fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

pub fn nano() -> Tables {
    Tables::from_json(&std::fs::read_to_string(data("nano-tokenizer.json")).expect("tests/data/nano-tokenizer.json"))
}

/// Folder of large reference files, which are made on demand and not part of the repository.
pub fn oracle() -> Option<PathBuf> {
    if let Some(folder) = std::env::var_os("TVLMC_ORACLE") {
        return Some(PathBuf::from(folder));
    }
    Some(Path::new(&std::env::var_os("HOME")?).join(".cache/tvlmc/oracle"))
}

/// Strings with their ids: repeated (u32 length, UTF-8, u32 count, u32 ids).
pub fn golden(path: &Path) -> Option<Vec<(String, Vec<u32>)>> {
    let bytes = std::fs::read(path).ok()?;
    let mut rest = &bytes[..];
    let word = |rest: &mut &[u8]| {
        let (word, after) = rest.split_first_chunk::<4>().expect("a whole record");
        *rest = after;
        u32::from_le_bytes(*word)
    };
    let mut records = Vec::new();
    while !rest.is_empty() {
        let len = word(&mut rest) as usize;
        let (text, after) = rest.split_at(len);
        rest = after;
        let n = word(&mut rest);
        let ids = (0..n).map(|_| word(&mut rest)).collect();
        records.push((String::from_utf8(text.to_vec()).expect("UTF-8"), ids));
    }
    Some(records)
}

//! Typed access to the keys of a configuration object, collecting everything that is wrong.
//!
//! A reader that meets a bad value writes a finding and goes on with `None`, so that the user sees one
//! line per wrong key in one run, not one per run.

use std::cell::RefCell;
use std::fmt::Display;

use serde_json::{Map, Value};

use super::json;
use crate::error::{Error, Finding, Quoted, did_you_mean};

/// The findings of a whole checkpoint, shared by all readers.
#[derive(Default)]
pub(super) struct Findings(RefCell<Vec<Finding>>);

impl Findings {
    pub fn add(&self, file: &str, item: impl Into<String>, problem: impl Into<String>) {
        self.0.borrow_mut().push(Finding { file: file.into(), item: item.into(), problem: problem.into() });
    }

    /// Keeps the findings of a bad-input error; other errors go on.
    pub fn take<T>(&self, result: Result<T, Error>) -> Result<Option<T>, Error> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(Error::Input(findings)) => {
                self.0.borrow_mut().extend(findings);
                Ok(None)
            }
            Err(other) => Err(other),
        }
    }

    pub fn len(&self) -> usize {
        self.0.borrow().len()
    }

    /// All findings as one error, if there are any.
    pub fn into_result(self) -> Result<(), Error> {
        let findings = self.0.into_inner();
        if findings.is_empty() { Ok(()) } else { Err(Error::Input(findings)) }
    }
}

/// One object of a configuration file. A key that is null counts as absent, as in transformers.
#[derive(Clone)]
pub(super) struct Keys<'a> {
    pub file: &'static str,
    /// Names of the objects around, each followed by a dot.
    path: String,
    map: &'a Map<String, Value>,
    findings: &'a Findings,
}

impl<'a> Keys<'a> {
    pub fn new(file: &'static str, map: &'a Map<String, Value>, findings: &'a Findings) -> Keys<'a> {
        Keys { file, path: String::new(), map, findings }
    }

    /// Adds a finding about `key`.
    pub fn refuse(&self, key: &str, problem: impl Into<String>) {
        self.findings.add(self.file, format!("{}{key}", self.path), problem);
    }

    fn refuse_kind(&self, key: &str, expected: impl Display, found: &Value) {
        self.refuse(key, format!("{expected} is expected, not {}", json::kind(found)));
    }

    /// Says that `key` is missing, with the nearest key that is there.
    pub fn refuse_missing(&self, key: &str) {
        // Keys of the object that stand for something else are no suggestion, but these are rare.
        self.refuse(key, format!("is missing{}", did_you_mean(key, self.map.keys().map(String::as_str))));
    }

    pub fn findings(&self) -> &'a Findings {
        self.findings
    }

    pub fn get(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    pub fn names(&self) -> impl Iterator<Item = &'a str> {
        self.map.keys().map(String::as_str)
    }

    /// The object at `key`.
    pub fn object(&self, key: &str) -> Option<Keys<'a>> {
        match self.get(key)? {
            Value::Object(map) => Some(Keys { path: format!("{}{key}.", self.path), map, ..self.clone() }),
            other => {
                self.refuse_kind(key, "an object", other);
                None
            }
        }
    }

    /// The objects in the list at `key`.
    pub fn objects(&self, key: &str) -> Vec<Keys<'a>> {
        let Some(value) = self.get(key) else { return Vec::new() };
        let Some(list) = value.as_array() else {
            self.refuse_kind(key, "a list of objects", value);
            return Vec::new();
        };
        let mut objects = Vec::with_capacity(list.len());
        for (i, item) in list.iter().enumerate() {
            match item {
                Value::Object(map) => {
                    objects.push(Keys { path: format!("{}{key}.{i}.", self.path), map, ..self.clone() })
                }
                other => self.refuse_kind(&format!("{key}.{i}"), "an object", other),
            }
        }
        objects
    }

    /// An integer in `1..=most` that may be absent.
    pub fn count(&self, key: &str, most: usize) -> Option<usize> {
        let value = self.get(key)?;
        let count = value.as_u64().filter(|n| (1..=most as u64).contains(n));
        if count.is_none() {
            self.refuse_kind(key, format_args!("an integer from 1 to {most}"), value);
        }
        count.map(|n| n as usize)
    }

    /// An integer in `1..=most` that has to be there.
    pub fn required_count(&self, key: &str, most: usize) -> Option<usize> {
        if self.get(key).is_none() {
            self.refuse_missing(key);
        }
        self.count(key, most)
    }

    /// Exactly five integers in `1..=most`: one per stage of the tower.
    pub fn stages(&self, key: &str, most: usize) -> Option<[usize; 5]> {
        let value = self.get(key)?;
        let count = |v: &Value| v.as_u64().filter(|n| (1..=most as u64).contains(n)).map(|n| n as usize);
        let list = value.as_array().and_then(|list| list.iter().map(count).collect::<Option<Vec<_>>>());
        let stages = list.and_then(|list| <[usize; 5]>::try_from(list).ok());
        if stages.is_none() {
            self.refuse(key, format!("a list of five integers from 1 to {most} is expected, found {}", short(value)));
        }
        stages
    }

    /// A number above zero and at most `most`.
    pub fn positive(&self, key: &str, most: f64) -> Option<f64> {
        let value = self.get(key)?;
        let number = value.as_f64().filter(|n| *n > 0.0 && *n <= most);
        if number.is_none() {
            self.refuse_kind(key, format_args!("a number above 0 and up to {most}"), value);
        }
        number
    }

    /// Three numbers for which `valid` holds.
    pub fn triple(&self, key: &str, wanted: &str, valid: fn(f64) -> bool) -> Option<[f64; 3]> {
        let value = self.get(key)?;
        let number = |v: &Value| v.as_f64().filter(|n| valid(*n));
        let list = value.as_array().and_then(|list| list.iter().map(number).collect::<Option<Vec<_>>>());
        let triple = list.and_then(|list| <[f64; 3]>::try_from(list).ok());
        if triple.is_none() {
            self.refuse(key, format!("three numbers {wanted} are expected, found {}", short(value)));
        }
        triple
    }

    pub fn flag(&self, key: &str) -> Option<bool> {
        let value = self.get(key)?;
        if !value.is_boolean() {
            self.refuse_kind(key, "true or false", value);
        }
        value.as_bool()
    }

    /// Refuses if the flag is there and is not `supported`.
    pub fn only_flag(&self, key: &str, supported: bool) {
        if self.flag(key) == Some(!supported) {
            self.refuse(key, format!("{} is not supported, only {supported}", !supported));
        }
    }

    pub fn text(&self, key: &str) -> Option<&'a str> {
        let value = self.get(key)?;
        if !value.is_string() {
            self.refuse_kind(key, "a string", value);
        }
        value.as_str()
    }

    /// Refuses if the string is there and is none of `supported`.
    pub fn only_text(&self, key: &str, supported: &[&str]) {
        if let Some(text) = self.text(key)
            && !supported.contains(&text)
        {
            self.refuse(key, unsupported(text, supported));
        }
    }

    /// Refuses if the string is absent or none of `supported`.
    pub fn required_text(&self, key: &str, supported: &[&str]) {
        match self.get(key) {
            None => self.refuse(key, format!("is missing, {} is expected", quoted_list(supported))),
            Some(_) => self.only_text(key, supported),
        }
    }

    /// Refuses if the string is there and not empty.
    pub fn no_text(&self, key: &str) {
        if let Some(value) = self.get(key).filter(|value| value.as_str() != Some("")) {
            self.refuse(key, format!("{} is not supported, only null", json::kind(value)));
        }
    }

    /// One token id, or a list of them.
    pub fn ids(&self, key: &str) -> Vec<u32> {
        let id = |v: &Value| v.as_u64().and_then(|n| u32::try_from(n).ok());
        let ids = match self.get(key) {
            None => return Vec::new(),
            Some(Value::Array(list)) => list.iter().map(id).collect(),
            Some(one) => id(one).map(|id| vec![id]),
        };
        ids.unwrap_or_else(|| {
            self.refuse(key, format!("a token id or a list of them is expected, found {}", short(&self.map[key])));
            Vec::new()
        })
    }
}

/// `"x" is not supported, only "a", "b"`, with the nearest.
pub(super) fn unsupported(found: &str, supported: &[&str]) -> String {
    let near = did_you_mean(found, supported.iter().copied());
    format!("{} is not supported, only {}{near}", Quoted(found), quoted_list(supported))
}

fn quoted_list(names: &[&str]) -> String {
    names.iter().map(|name| Quoted(name).to_string()).collect::<Vec<_>>().join(", ")
}

/// A value as JSON if that is short and harmless, else its kind.
pub(super) fn short(value: &Value) -> String {
    let plain = |v: &Value| v.is_number() || v.is_null() || v.is_boolean();
    let small = match value {
        Value::Array(list) => list.len() <= 8 && list.iter().all(plain),
        Value::Object(map) => map.len() <= 3 && map.values().all(plain),
        _ => false,
    };
    let text = if small { value.to_string() } else { String::new() };
    let harmless = small && text.len() <= 80 && text.bytes().all(|b| b.is_ascii_graphic());
    if harmless { text } else { json::kind(value) }
}

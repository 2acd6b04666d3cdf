//! JSON files of a checkpoint, read strictly: UTF-8, no duplicate keys, bounded depth.

use std::fmt::{self, Formatter};

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use crate::error::{Error, Quoted, grouped};

/// Parses `bytes` of `file`.
///
/// # Errors
///
/// Not UTF-8, not JSON, deeper than 128, a number outside f64, or a key that stands twice in one object.
pub(super) fn parse(file: &str, bytes: &[u8]) -> Result<Value, Error> {
    let text = utf8(file, bytes)?;
    // serde_json stops at depth 128 by itself.
    let mut json = serde_json::Deserializer::from_str(text);
    let value = Strict.deserialize(&mut json).and_then(|value| json.end().map(|()| value));
    value.map_err(|e| Error::input(file, "", format!("is not the JSON it should be: {e}")))
}

/// Parses `bytes` of `file`, which must be an object.
pub(super) fn parse_object(file: &str, bytes: &[u8]) -> Result<Map<String, Value>, Error> {
    match parse(file, bytes)? {
        Value::Object(map) => Ok(map),
        other => Err(Error::input(file, "", format!("an object is expected, not {}", kind(&other)))),
    }
}

/// `bytes` as text.
pub(super) fn utf8<'a>(file: &str, bytes: &'a [u8]) -> Result<&'a str, Error> {
    std::str::from_utf8(bytes).map_err(|e| {
        let (at, line) = (e.valid_up_to(), bytes[..e.valid_up_to()].iter().filter(|&&b| b == b'\n').count() + 1);
        Error::input(file, "", format!("is not UTF-8: byte {} (line {})", grouped(at as u64), grouped(line as u64)))
    })
}

/// What a value is, for messages, with the value if it is short.
pub(super) fn kind(value: &Value) -> String {
    match value {
        Value::Null => "null".into(),
        Value::Bool(b) => b.to_string(),
        Value::Number(n) => n.to_string(),
        Value::String(s) => format!("the string {}", Quoted(s)),
        Value::Array(list) => format!("a list of {}", grouped(list.len() as u64)),
        Value::Object(_) => "an object".into(),
    }
}

struct Strict;

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<Value, D::Error> {
        d.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, b: bool) -> Result<Value, E> {
        Ok(b.into())
    }

    fn visit_u64<E>(self, n: u64) -> Result<Value, E> {
        Ok(n.into())
    }

    fn visit_i64<E>(self, n: i64) -> Result<Value, E> {
        Ok(n.into())
    }

    fn visit_f64<E>(self, n: f64) -> Result<Value, E> {
        Ok(n.into())
    }

    fn visit_str<E>(self, s: &str) -> Result<Value, E> {
        Ok(s.into())
    }

    fn visit_string<E>(self, s: String) -> Result<Value, E> {
        Ok(s.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(value) = seq.next_element_seed(Strict)? {
            list.push(value);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            if object.contains_key(&key) {
                return Err(de::Error::custom(format!("key {} stands twice in one object", Quoted(&key))));
            }
            let value = map.next_value_seed(Strict)?;
            object.insert(key, value);
        }
        Ok(Value::Object(object))
    }
}

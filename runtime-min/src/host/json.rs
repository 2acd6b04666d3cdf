//! Writing JSON, by hand because it is forty lines.

use std::fmt::{Display, Write};
use std::time::Duration;

/// An object in the making; keys must not need escaping.
pub struct Object(String);

impl Object {
    pub fn new() -> Self {
        Self(String::from("{"))
    }

    /// A member whose value is JSON already.
    pub fn raw(&mut self, key: &str, value: &str) {
        if self.0.len() > 1 {
            self.0.push(',');
        }
        let _ = write!(self.0, "\"{key}\":{value}");
    }

    pub fn text(&mut self, key: &str, value: &str) {
        self.raw(key, &string(value));
    }

    pub fn milliseconds(&mut self, key: &str, value: Duration) {
        self.raw(key, &format!("{:.3}", value.as_secs_f64() * 1e3));
    }

    pub fn end(mut self) -> String {
        self.0.push('}');
        self.0
    }
}

pub fn array(items: &[impl Display]) -> String {
    let mut out = String::from("[");
    for (i, item) in items.iter().enumerate() {
        let comma = if i > 0 { "," } else { "" };
        let _ = write!(out, "{comma}{item}");
    }
    out.push(']');
    out
}

pub fn string(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            // DEL and the C1 controls may stand in JSON, but not on a terminal.
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// A number, or `null` for what JSON has no number for.
pub fn number(value: f64) -> String {
    if value.is_finite() { format!("{value}") } else { String::from("null") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_escaped() {
        assert_eq!(string("a\"\\\n\r\t\u{0}\u{1b}\u{7f}\u{85}é猫"), r#""a\"\\\n\r\t\u0000\u001b\u007f\u0085é猫""#);
    }

    #[test]
    fn objects_and_arrays() {
        let mut object = Object::new();
        object.text("a", "b");
        object.raw("c", &array(&[1, -2]));
        object.raw("d", &array(&[0u32; 0]));
        object.raw("e", &number(f64::NAN));
        object.milliseconds("f", Duration::from_micros(1500));
        assert_eq!(object.end(), r#"{"a":"b","c":[1,-2],"d":[],"e":null,"f":1.500}"#);
        assert_eq!(Object::new().end(), "{}");
    }
}

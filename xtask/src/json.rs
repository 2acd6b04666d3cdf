//! Numbers and texts out of reports: ours and the peers', whose members have names of their own.

/// What follows the first member `key`.
fn after<'a>(json: &'a str, key: &str) -> Option<&'a str> {
    let key = format!("\"{key}\":");
    Some(json[json.find(&key)? + key.len()..].trim_start())
}

/// The number of the first member `key`.
///
/// # Errors
/// There is no such member, or it is no number.
pub fn number(json: &str, key: &str) -> Result<f64, String> {
    let rest = after(json, key).unwrap_or_default();
    let end = rest.find(|c: char| !matches!(c, '0'..='9' | '.' | '-' | '+' | 'e' | 'E')).unwrap_or(rest.len());
    rest[..end].parse().map_err(|_| format!("no number \"{key}\" in {json}"))
}

/// The numbers of the first member `key`, a list.
///
/// # Errors
/// There is no such member, or it is no list of numbers.
pub fn numbers(json: &str, key: &str) -> Result<Vec<f64>, String> {
    let list = || -> Option<Vec<f64>> {
        let rest = after(json, key)?.strip_prefix('[')?;
        let items = rest[..rest.find(']')?].split(',').map(str::trim).filter(|item| !item.is_empty());
        items.map(|item| item.parse().ok()).collect()
    };
    list().ok_or_else(|| format!("no list of numbers \"{key}\" in {json}"))
}

/// The text of the first member `key`, which has no escapes.
pub fn text<'a>(json: &'a str, key: &str) -> Option<&'a str> {
    let rest = after(json, key)?.strip_prefix('"')?;
    rest.split('"').next()
}

#[cfg(test)]
mod tests {
    use super::{number, numbers, text};

    #[test]
    fn members_are_found() {
        let report = r#"{"peer": "x 1.2","runs":2,"ms": [3.5, 4],"none":[],"decode_ms":{"min":1e-3,"median":2}}"#;
        assert_eq!((number(report, "runs"), number(report, "min")), (Ok(2.0), Ok(1e-3)));
        assert_eq!((numbers(report, "ms"), numbers(report, "none")), (Ok(vec![3.5, 4.0]), Ok(vec![])));
        assert_eq!(text(report, "peer"), Some("x 1.2"));
        assert!(number(report, "peer").is_err() && numbers(report, "runs").is_err() && text(report, "runs").is_none());
    }
}

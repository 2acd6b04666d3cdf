//! Options of a command, each with a value.

/// Gives each option and its value to `take`, which says whether it knows the option.
pub fn each<'a>(
    rest: &[&'a str],
    mut take: impl FnMut(&'a str, &'a str) -> Result<bool, String>,
) -> Result<(), String> {
    let mut rest = rest.iter();
    while let Some(&flag) = rest.next() {
        let value = *rest.next().ok_or_else(|| format!("{flag} needs a value"))?;
        if !take(flag, value)? {
            return Err(format!("{flag}: unknown option"));
        }
    }
    Ok(())
}

/// A number above zero.
pub fn number(flag: &str, text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|n| *n > 0).ok_or_else(|| format!("{flag} {text}: expected numbers above 0"))
}

/// Numbers above zero, separated by commas.
pub fn numbers(flag: &str, text: &str) -> Result<Vec<usize>, String> {
    text.split(',').map(|text| number(flag, text)).collect()
}

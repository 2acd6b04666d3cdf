//! The recipe of a command line: a name, or a file.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use models::{Recipe, RecipeError};

use super::args::Storage;
use crate::error::Error;
use crate::lower::Formats;

/// Bytes of a recipe file that are read. The built-in ones have a tenth of this.
const MOST_BYTES: u64 = 1 << 16;

/// The recipe that was asked for, or the default one.
///
/// # Errors
/// There is none of that name, the file is no recipe, or this version cannot compile it.
pub fn chosen(storage: &Storage) -> Result<Recipe, Error> {
    let given = storage.recipe.as_deref().or(storage.quant.as_ref().map(Path::new));
    let given = given.unwrap_or(Path::new(Recipe::DEFAULT));
    let unknown = match given.to_str().map(Recipe::named) {
        Some(Ok(recipe)) => return Ok(recipe),
        Some(Err(error)) => error.to_string(),
        None => "the name is not UTF-8".to_string(),
    };
    if storage.recipe.is_none() {
        return Err(Error::Usage(format!("--quant: {unknown}; --recipe takes a file")));
    }
    // A bare word that names no file is a mistyped name rather than a missing file.
    let path = given.components().count() > 1 || given.extension().is_some_and(|end| end == "ron");
    if !path && !given.exists() {
        return Err(Error::Usage(format!("--recipe: {unknown}, and there is no file of this name")));
    }
    read(given)
}

/// Reads a recipe file.
fn read(path: &Path) -> Result<Recipe, Error> {
    let file = path.display().to_string();
    let open = File::open(path).map_err(Error::io("read the recipe", path))?;
    let mut bytes = Vec::new();
    open.take(MOST_BYTES + 1).read_to_end(&mut bytes).map_err(Error::io("read the recipe", path))?;
    if bytes.len() as u64 > MOST_BYTES {
        return Err(Error::input(file, "", format!("more than {MOST_BYTES} bytes: is it a recipe?")));
    }
    let text = String::from_utf8(bytes).map_err(|_| Error::input(&file, "", "is not UTF-8: is it a recipe?"))?;
    let recipe = Recipe::parse(&text, &file).map_err(|e| finding(&file, &e))?;
    check(&recipe, &file)?;
    Ok(recipe)
}

/// Refuses a recipe that this version cannot compile; `file` is where it stands.
pub fn check(recipe: &Recipe, file: &str) -> Result<(), Error> {
    recipe.check(file).map_err(|e| finding(file, &e))?;
    Formats::of(recipe, file).map(|_| ()).map_err(|e| finding(file, &e))
}

/// The message begins with the file, and with the line where one is known.
fn finding(file: &str, error: &RecipeError) -> Error {
    let message = error.to_string();
    let rest = message.strip_prefix(file).unwrap_or(&message);
    match rest.split_once(": ") {
        Some((line, problem)) => Error::input(format!("{file}{line}"), "", problem),
        None => Error::input(file, "", rest),
    }
}

//! Recipes: in which type each region of a model is stored and computed.
//!
//! A recipe is a short RON file. The built-in ones are such files too, so that each of them is an
//! example to start from.

use std::fmt::{self, Display, Formatter};

use ron::error::SpannedError;
use serde::{Deserialize, Serialize};

use crate::near::edit_distance;

/// The types of one model's regions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Up to 64 letters, digits, `-`, `_` and `.`.
    pub name: String,
    /// One line for people who choose.
    pub description: String,
    /// The image tower.
    pub vision: Linears,
    /// From image rows to the decoder's width.
    pub projector: Linears,
    /// The decoder's layers.
    pub decoder: Linears,
    /// The head and the embedding, which are one tensor in most models.
    pub head: Linears,
    /// Keys and values of earlier positions.
    pub cache: Cache,
    /// Values of the image tower between its regions.
    pub maps: Maps,
}

/// The keys of [`Recipe`].
const KEYS: &[&str] = &["name", "description", "vision", "projector", "decoder", "head", "cache", "maps"];

/// The linears of one region, 1x1 convolutions among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Linears {
    /// How weights are stored.
    pub weights: Weights,
    /// Activations that share a scale; `Row` where they stay floats.
    pub activation_block: Block,
}

/// Storage of weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Weights {
    /// Floats, with float activations.
    F32,
    /// 7 bits in a byte, one scale per output channel.
    Int8,
    /// 4 bits, a small multiplier per 16 inputs and one scale per output channel.
    Int4,
    /// These 4 bits and, in a second half, 4 more for what they leave out, with a scale of their own. Of a head, whose
    /// largest logit needs the second half of few rows.
    Int8Split,
}

/// Activations of one row that share a scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Block {
    /// All of them.
    Row,
    /// So many consecutive ones; a multiple of 16.
    Channels(usize),
}

/// Storage of keys and values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Cache {
    /// Floats.
    F32,
    /// Half floats.
    F16,
    /// Bytes, one scale per head and position.
    Int8,
}

/// Storage of the values between the regions of the image tower.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Maps {
    /// Floats.
    F32,
    /// Half floats; where the tower's weights are bytes.
    F16,
}

/// The built-in recipes, the smallest model first.
const BUILT_IN: [(&str, &str); 3] = [
    ("int4", include_str!("../recipes/int4.ron")),
    ("int8", include_str!("../recipes/int8.ron")),
    ("f32", include_str!("../recipes/f32.ron")),
];

/// The activation block of 4-bit weights: the inputs whose multipliers share a line.
const INT4_BLOCK: usize = 128;

/// The largest block: its dot product of 127 by 127 stays inside i32.
pub const LARGEST_BLOCK: usize = 1 << 16;

const NAME_BYTES: usize = 64;

impl Recipe {
    /// The name of the recipe that is taken when none is asked for.
    pub const DEFAULT: &'static str = "int4";

    /// Names of the built-in recipes, that of the smallest model first.
    pub fn list() -> impl Iterator<Item = &'static str> {
        BUILT_IN.iter().map(|(name, _)| *name)
    }

    /// A built-in recipe.
    ///
    /// # Errors
    /// [`RecipeError::UnknownRecipe`].
    pub fn named(name: &str) -> Result<Recipe, RecipeError> {
        match BUILT_IN.iter().find(|(known, _)| *known == name) {
            Some((name, text)) => Recipe::parse(text, &format!("recipes/{name}.ron")),
            None => Err(RecipeError::UnknownRecipe { found: name.to_string() }),
        }
    }

    /// Reads the text of the recipe file `file`, whose name is for messages.
    ///
    /// # Errors
    /// Text that is no recipe, an unknown, missing or repeated key, a value out of range.
    pub fn parse(text: &str, file: &str) -> Result<Recipe, RecipeError> {
        let recipe: Recipe = ron::from_str(text).map_err(|error| RecipeError::from_ron(error, file))?;
        recipe.check(file)?;
        Ok(recipe)
    }

    /// Checks the values of a recipe that was not read by [`Recipe::parse`]; `file` is for messages.
    ///
    /// # Errors
    /// [`RecipeError::BadValue`].
    pub fn check(&self, file: &str) -> Result<(), RecipeError> {
        let wrong = |key: String, expected: &'static str, found: String| {
            Err(RecipeError::BadValue { file: file.to_string(), key, expected, found })
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if self.name.is_empty() || self.name.len() > NAME_BYTES || !self.name.chars().all(plain) {
            let expected = "1 to 64 letters, digits, '-', '_' or '.'";
            return wrong("name".to_string(), expected, quoted(&self.name));
        }
        for (region, linears) in self.regions() {
            let key = || format!("{region}.activation_block");
            let block = linears.activation_block;
            let fits = match linears.weights {
                Weights::F32 => (block == Block::Row, "Row, as float weights take float activations,"),
                Weights::Int4 | Weights::Int8Split => {
                    (block == Block::Channels(INT4_BLOCK), "Channels(128), the only block of 4-bit weights,")
                }
                Weights::Int8 => match block {
                    Block::Row => (true, ""),
                    Block::Channels(n) => {
                        let fits = n > 0 && n <= LARGEST_BLOCK && n.is_multiple_of(16);
                        (fits, "Row, or Channels(n) with a multiple of 16 up to 65536,")
                    }
                },
            };
            if let (false, expected) = fits {
                return wrong(key(), expected, block.to_string());
            }
        }
        Ok(())
    }

    /// The text form; reads back with [`Recipe::parse`].
    pub fn to_ron(&self) -> String {
        // RON fails for types that it cannot name; none of ours is one.
        ron::ser::to_string_pretty(self, ron::ser::PrettyConfig::new()).unwrap_or_else(|e| format!("/* {e} */"))
    }

    /// Whether nothing is rounded to fewer bits than a float has.
    pub fn is_exact(&self) -> bool {
        self.is_float() && self.cache == Cache::F32
    }

    /// Whether no weight is quantized.
    pub fn is_float(&self) -> bool {
        self.regions().iter().all(|(_, linears)| linears.weights == Weights::F32)
    }

    /// The regions by their keys.
    pub fn regions(&self) -> [(&'static str, Linears); 4] {
        [("vision", self.vision), ("projector", self.projector), ("decoder", self.decoder), ("head", self.head)]
    }
}

/// As recipes spell it.
impl Display for Weights {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Weights::F32 => "F32",
            Weights::Int8 => "Int8",
            Weights::Int4 => "Int4",
            Weights::Int8Split => "Int8Split",
        })
    }
}

/// As recipes spell it.
impl Display for Cache {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Cache::F32 => "F32",
            Cache::F16 => "F16",
            Cache::Int8 => "Int8",
        })
    }
}

impl Display for Block {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Block::Row => f.write_str("Row"),
            Block::Channels(n) => write!(f, "Channels({n})"),
        }
    }
}

/// What can be wrong with a recipe. Files are named as the caller did; lines and columns count from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecipeError {
    /// No built-in recipe has this name.
    UnknownRecipe {
        /// The name.
        found: String,
    },
    /// A key that recipes do not have.
    UnknownKey {
        /// The file.
        file: String,
        /// Its line and column.
        at: (usize, usize),
        /// The key.
        found: String,
        /// The keys that may be here.
        expected: &'static [&'static str],
    },
    /// A word that is none of the choices.
    UnknownChoice {
        /// The file.
        file: String,
        /// Its line and column.
        at: (usize, usize),
        /// What is chosen, as in `Weights`.
        kind: String,
        /// The word.
        found: String,
        /// The choices.
        expected: &'static [&'static str],
    },
    /// A key that has to be there is not.
    MissingKey {
        /// The file.
        file: String,
        /// Line and column of the end of the value that lacks it.
        at: (usize, usize),
        /// The key.
        key: String,
        /// The value that lacks it, as in `Linears`.
        inside: String,
    },
    /// A value that its key cannot have.
    BadValue {
        /// The file.
        file: String,
        /// The key, with the keys around it.
        key: String,
        /// What it can be.
        expected: &'static str,
        /// What it is.
        found: String,
    },
    /// A sound value that this version cannot compile.
    Unsupported {
        /// The file.
        file: String,
        /// The key, with the keys around it.
        key: String,
        /// What it is.
        found: String,
        /// What it can be in this version.
        supported: &'static str,
    },
    /// No RON, or not that of a recipe.
    Syntax {
        /// The file.
        file: String,
        /// Its line and column.
        at: (usize, usize),
        /// What the reader says.
        reason: String,
    },
}

impl RecipeError {
    fn from_ron(error: SpannedError, file: &str) -> RecipeError {
        let file = file.to_string();
        let at = (error.span.end.line, error.span.end.col);
        match error.code {
            ron::Error::NoSuchStructField { expected, found, .. } => {
                RecipeError::UnknownKey { file, at, found, expected }
            }
            ron::Error::NoSuchEnumVariant { expected, found, outer } => {
                RecipeError::UnknownChoice { file, at, kind: outer.unwrap_or_default(), found, expected }
            }
            ron::Error::MissingStructField { field, outer } => {
                RecipeError::MissingKey { file, at, key: field.into(), inside: outer.unwrap_or_default() }
            }
            other => RecipeError::Syntax { file, at, reason: other.to_string() },
        }
    }
}

impl Display for RecipeError {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let place = |file: &str, at: &(usize, usize)| format!("{file}:{}:{}", at.0, at.1);
        match self {
            RecipeError::UnknownRecipe { found } => {
                let known: Vec<&str> = Recipe::list().collect();
                let list = known.join(", ");
                write!(
                    f,
                    "unknown recipe {}: {}the built-in ones are {list}",
                    quoted(found),
                    did_you_mean(found, &known)
                )
            }
            RecipeError::UnknownKey { file, at, found, expected } => {
                let (found_text, list) = (cut(found), expected.join(", "));
                let near = did_you_mean(found, expected);
                write!(f, "{}: unknown key `{found_text}`: {near}the keys here are {list}", place(file, at))?;
                // A parenthesis that was not closed.
                if *expected != KEYS && KEYS.contains(&found.as_str()) {
                    write!(f, "; is a `)` missing before `{found_text}`, which is a key of the recipe?")?;
                }
                Ok(())
            }
            RecipeError::UnknownChoice { file, at, kind, found, expected } => {
                let (found_text, list) = (cut(found), expected.join(", "));
                let near = did_you_mean(found, expected);
                write!(f, "{}: unknown {kind} `{found_text}`: {near}one of {list} is expected", place(file, at))
            }
            RecipeError::MissingKey { file, at, key, inside } => {
                write!(f, "{}: {inside}: key `{key}` is missing", place(file, at))
            }
            RecipeError::BadValue { file, key, expected, found } => {
                write!(f, "{file}: {key}: {expected} is expected, found {found}")
            }
            RecipeError::Unsupported { file, key, found, supported } => {
                write!(f, "{file}: {key}: {found} is not supported here; this version has {supported}")
            }
            RecipeError::Syntax { file, at, reason } => {
                write!(f, "{}: {}; `tvlmc` reads recipes as RON, like those built in", place(file, at), cut(reason))
            }
        }
    }
}

impl std::error::Error for RecipeError {}

/// Characters of a foreign text that are printed before it is cut.
const SHOWN_CHARS: usize = 120;

/// A foreign text, escaped and cut, so that it can neither move the cursor of a terminal nor fill it.
fn cut(text: &str) -> String {
    let mut chars = text.chars();
    let mut shown: String = chars.by_ref().take(SHOWN_CHARS).flat_map(escape).collect();
    if chars.next().is_some() {
        shown.push_str("...");
    }
    shown
}

/// Quotes are harmless, and RON's own messages are full of them.
fn escape(c: char) -> impl Iterator<Item = char> {
    let harmless = c == '\'' || c == '"' || c == '`';
    harmless.then_some(c).into_iter().chain((!harmless).then(|| c.escape_debug()).into_iter().flatten())
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", cut(text))
}

/// "did you mean `x`? " with the nearest of `known`, or nothing if none is near.
fn did_you_mean(found: &str, known: &[&str]) -> String {
    let found: String = found.chars().take(SHOWN_CHARS).collect::<String>().to_lowercase();
    // A third of the letters may differ.
    let limit = (found.chars().count() / 3).max(1);
    let distance = |name: &&str| edit_distance(&found, &name.to_lowercase(), limit);
    let near = known.iter().filter_map(|name| Some((distance(name)?, name))).min_by_key(|(distance, _)| *distance);
    near.map_or(String::new(), |(_, name)| format!("did you mean `{name}`? "))
}

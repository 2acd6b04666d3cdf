//! How far the quantized weights are from the weights: the file `quantization.json`.

use std::iter::Sum;
use std::ops::{Add, AddAssign};

use models::Recipe;
use models::recipe::{Cache, Linears, Weights};
use serde::{Deserialize, Serialize};

/// Name of the file beside the manifest of a model with quantized weights.
pub const QUANTIZATION_NAME: &str = "quantization.json";

/// Sums of squares. To get the same bits from any number of threads, add those of a tensor's
/// lines in line order.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sums {
    /// Of the weights.
    pub weight: f64,
    /// Of the weights less their quantized values.
    pub error: f64,
}

impl Sums {
    /// Signal to quantization noise in dB, rounded to hundredths so that it prints the same
    /// whatever the logarithm at hand; nothing if there is no error.
    pub fn snr_db(&self) -> Option<f64> {
        if self.error == 0.0 {
            return None;
        }
        // Weights below the least scale can lose all signal; the largest error is the signal.
        Some((1000.0 * (self.weight / self.error).log10()).round() / 100.0)
    }
}

impl Add for Sums {
    type Output = Sums;
    fn add(self, other: Sums) -> Sums {
        Sums { weight: self.weight + other.weight, error: self.error + other.error }
    }
}

impl AddAssign for Sums {
    fn add_assign(&mut self, other: Sums) {
        *self = *self + other;
    }
}

impl Sum for Sums {
    fn sum<I: Iterator<Item = Sums>>(sums: I) -> Sums {
        sums.fold(Sums::default(), Add::add)
    }
}

/// How a tensor's weights are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Floats.
    F32,
    /// 7 bits in a byte, one scale per channel.
    Int8,
    /// 4 bits, a multiplier per 16 and one scale per channel.
    Int4,
    /// These, and 4 bits for what they leave out.
    Int8Split,
}

impl Format {
    /// As in recipes and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Format::F32 => "f32",
            Format::Int8 => "int8",
            Format::Int4 => "int4",
            Format::Int8Split => "int8split",
        }
    }
}

/// How one tensor is stored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// The weight's node and role.
    pub name: String,
    /// How it is stored.
    pub format: Format,
    /// Weights of the model.
    pub weights: u64,
    /// Bytes in the weight file, with scales and padding.
    pub bytes: u64,
    /// Bits in the file per weight, rounded to thousandths.
    pub bits_per_weight: f64,
    /// Signal to quantization noise in dB; null if the stored weights are exact.
    pub snr_db: Option<f64>,
    #[serde(skip)]
    sums: Sums,
}

impl Entry {
    /// The entry of a tensor of `weights` weights in `bytes` bytes.
    pub fn new(name: impl Into<String>, format: Format, weights: usize, bytes: usize, sums: Sums) -> Entry {
        let (weights, bytes) = (weights as u64, bytes as u64);
        let (bits_per_weight, snr_db) = (bits(weights, bytes), sums.snr_db());
        Entry { name: name.into(), format, weights, bytes, bits_per_weight, snr_db, sums }
    }

    /// The part of the model: the first word of the name.
    fn part(&self) -> &str {
        self.name.split('.').next().unwrap_or_default()
    }
}

/// All tensors of one part of a model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Part {
    /// First word of the tensors' names; `all` for the whole model.
    pub name: String,
    /// Weights of the model.
    pub weights: u64,
    /// Bytes in the weight file.
    pub bytes: u64,
    /// Bits in the file per weight, rounded to thousandths.
    pub bits_per_weight: f64,
    /// Signal to quantization noise of all quantized weights together, in dB; null if there are none.
    pub snr_db: Option<f64>,
}

/// The content of the file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Parts in the order of first use, then `all`.
    pub parts: Vec<Part>,
    /// Tensors in file order.
    pub tensors: Vec<Entry>,
}

impl Report {
    /// Adds up the tensors of each part.
    pub fn new(tensors: Vec<Entry>) -> Report {
        let mut names: Vec<&str> = Vec::new();
        for entry in &tensors {
            if !names.contains(&entry.part()) {
                names.push(entry.part());
            }
        }
        let total = |name: &str, of: &dyn Fn(&&Entry) -> bool| {
            let (mut weights, mut bytes, mut sums) = (0, 0, Sums::default());
            for entry in tensors.iter().filter(of) {
                weights += entry.weights;
                bytes += entry.bytes;
                sums += entry.sums;
            }
            Part {
                name: name.to_string(),
                weights,
                bytes,
                bits_per_weight: bits(weights, bytes),
                snr_db: sums.snr_db(),
            }
        };
        let mut parts: Vec<Part> = names.iter().map(|name| total(name, &|entry| entry.part() == *name)).collect();
        parts.push(total("all", &|_| true));
        Report { parts, tensors }
    }

    /// The text of the file: an object with a line for each part and tensor.
    pub fn to_json(&self) -> String {
        fn lines<T: Serialize>(items: &[T]) -> String {
            let line = |item| serde_json::to_string(item).expect("plain data has a JSON form");
            items.iter().map(line).collect::<Vec<String>>().join(",\n")
        }
        format!("{{\n\"parts\": [\n{}\n],\n\"tensors\": [\n{}\n]\n}}\n", lines(&self.parts), lines(&self.tensors))
    }
}

fn bits(weights: u64, bytes: u64) -> f64 {
    let bits = 8.0 * bytes as f64 / weights.max(1) as f64;
    (1000.0 * bits).round() / 1000.0
}

/// The least signal to noise, in dB, that a value has to keep against the evaluator in floats;
/// `name` is its node's.
///
/// The errors of all linears before a value add up in it, so a region's limit is that of the coarsest
/// weights on the way.
pub fn limit_db(recipe: &Recipe, name: &str) -> f64 {
    let limit = |linears: Linears| match linears.weights {
        Weights::F32 => FLOAT_DB,
        Weights::Int8 | Weights::Int8Split => INT8_DB,
        Weights::Int4 => INT4_DB,
    };
    match name.split('.').next() {
        Some("vision") => limit(recipe.vision),
        Some("projector") => limit(recipe.vision).min(limit(recipe.projector)),
        // Rows of tokens are quantized with the head.
        _ => limit(recipe.decoder).min(limit(recipe.head)).min(match recipe.cache {
            Cache::F32 => FLOAT_DB,
            Cache::F16 => F16_DB,
            Cache::Int8 => INT8_DB,
        }),
    }
}

/// Rounding alone stays above 95 dB; a wrong constant or a missing term falls below 60 dB.
const FLOAT_DB: f64 = 80.0;

/// Keys and values that keep 11 bits: 65 dB each.
const F16_DB: f64 = 45.0;

/// The worst values seen: 15.7 dB in the tower of the 0.5B model with drawn weights, which carry errors
/// on from layer to layer as no trained ones do; 23.6 dB in the demo model. An error as large as the
/// signal is at 0 dB.
const INT8_DB: f64 = 10.0;

/// The worst values seen: 5.6 dB in the last of 24 drawn layers; 16.8 dB in the demo model.
const INT4_DB: f64 = 3.0;

//! Descriptions of devices: what their cores and their memory can do at most.
//!
//! A description is a RON file like those built in, which are examples to start from. Peaks are the machine's, not
//! ours: which share of them kernels reach is the model's business.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::error::{Error, Quoted, did_you_mean};
use crate::machine::Machine;

/// A device.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Device {
    /// What it is asked for by.
    pub name: String,
    /// One line for people who choose.
    pub description: String,
    /// Triple of the machine that it is.
    pub target: String,
    /// Its cores.
    pub clusters: Vec<Cluster>,
    /// GB/s (of 10^9 bytes) that all cores together read from memory.
    pub read_gbs: f64,
    /// MB (of 10^6 bytes) of the last cache that the fastest cores have to themselves, in which what fits stays.
    pub cache_mb: f64,
    /// Where each number is from.
    pub sources: String,
}

/// Cores of one kind.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cluster {
    /// What they are called.
    pub name: String,
    /// How many there are.
    pub cores: usize,
    /// Clock under load, GHz.
    pub ghz: f64,
    /// Products of integers by the name of each level that the cores have, as `inspect` lists them.
    pub products: BTreeMap<String, Products>,
    /// Multiply-adds of floats that are rounded once, per cycle of one core.
    pub f32_fused: f64,
    /// Multiply-adds of floats as a product and a sum, per cycle of one core.
    pub f32_apart: f64,
    /// GB/s (of 10^9 bytes) that one core alone reads from memory.
    pub read_gbs: f64,
}

/// Multiply-adds of bytes per cycle of one core.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Products {
    /// Added up in 32 bits.
    pub whole: f64,
    /// Added up in 16 bits, as nibbles are where a dot product is several instructions; `whole` where it is one.
    pub halves: f64,
}

/// The built-in devices, phones first.
const BUILT_IN: [(&str, &str); 8] = [
    ("iphone-17", include_str!("../../../models/devices/iphone-17.ron")),
    ("iphone-15-pro", include_str!("../../../models/devices/iphone-15-pro.ron")),
    ("pixel-8", include_str!("../../../models/devices/pixel-8.ron")),
    ("galaxy-a15", include_str!("../../../models/devices/galaxy-a15.ron")),
    ("raspberry-pi-5", include_str!("../../../models/devices/raspberry-pi-5.ron")),
    ("macbook-m1", include_str!("../../../models/devices/macbook-m1.ron")),
    ("epyc-zen3", include_str!("../../../models/devices/epyc-zen3.ron")),
    ("epyc-zen5", include_str!("../../../models/devices/epyc-zen5.ron")),
];

/// Most cores of a device: predictions try every number of threads.
const MOST_CORES: usize = 256;

/// Letters and digits that two names have to begin with alike to be of one family.
const ALIKE: usize = 4;

/// The built-in device whose name begins most like `name`: `iPhone 16` and `pixel9` are no misspellings, but of a family.
fn akin(name: &str) -> Option<&'static str> {
    let plain = |name: &str| -> Vec<char> {
        name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
    };
    let name = plain(name);
    let alike = |known: &str| plain(known).iter().zip(&name).take_while(|(a, b)| a == b).count();
    // The first of several, as the newest stands first.
    let best = Device::list().rev().max_by_key(|known| alike(known))?;
    (alike(best) >= ALIKE).then_some(best)
}

impl Device {
    /// Names of the built-in devices.
    pub fn list() -> impl DoubleEndedIterator<Item = &'static str> {
        BUILT_IN.iter().map(|(name, _)| *name)
    }

    /// A built-in device.
    ///
    /// # Errors
    /// There is none of this name: the nearest and all are told.
    pub fn named(name: &str) -> Result<Device, Error> {
        match BUILT_IN.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)) {
            Some((name, text)) => Device::parse(text, &format!("devices/{name}.ron")),
            None => {
                let near = match did_you_mean(name, Device::list()) {
                    none if none.is_empty() => {
                        akin(name).map_or(none, |known| format!(" (the nearest is {})", Quoted(known)))
                    }
                    near => near,
                };
                let list = Device::list().collect::<Vec<_>>().join(", ");
                Err(Error::Usage(format!("unknown device {}{near}; the built-in ones are {list}", Quoted(name))))
            }
        }
    }

    /// Reads the text of the device file `file`, whose name is for messages.
    ///
    /// # Errors
    /// Text that is no description, an unknown or missing key, a number that no device has.
    pub fn parse(text: &str, file: &str) -> Result<Device, Error> {
        let mut device: Device = ron::from_str(text).map_err(|e| {
            let (at, problem) = (e.span.end, e.code.to_string().escape_debug().to_string());
            let way_out = "tvlmc reads devices as RON, like those in models/devices";
            Error::input(format!("{file}:{}:{}", at.line, at.col), "", format!("{problem}; {way_out}"))
        })?;
        // Lines of a text that is broken for the file's sake.
        device.sources = device.sources.split_whitespace().collect::<Vec<_>>().join(" ");
        device.check(file)?;
        Ok(device)
    }

    /// All cores by their clusters.
    pub fn cores(&self) -> usize {
        self.clusters.iter().map(|c| c.cores).sum()
    }

    fn check(&self, file: &str) -> Result<(), Error> {
        let wrong = |item: String, problem: String| Err(Error::input(file, item, problem));
        for (key, text) in [("name", &self.name), ("description", &self.description), ("sources", &self.sources)] {
            if text.trim().is_empty() {
                return wrong(key.to_string(), "is empty, a text is expected".to_string());
            }
        }
        if Machine::of_triple(&self.target).is_none() {
            let triples = Machine::ALL.map(Machine::triple);
            let (near, list) = (did_you_mean(&self.target, triples), triples.join(", "));
            let found = Quoted(&self.target);
            return wrong("target".to_string(), format!("{found} is unknown{near}; one of {list} is expected"));
        }
        if self.clusters.is_empty() || self.clusters.iter().any(|c| c.cores == 0) || self.cores() > MOST_CORES {
            let problem =
                format!("{} cores, 1 to {MOST_CORES} and in each cluster at least 1 are expected", self.cores());
            return wrong("clusters".to_string(), problem);
        }
        let known: Vec<String> = Machine::ALL.into_iter().flat_map(level_names).collect();
        let mut numbers = vec![("read_gbs".to_string(), self.read_gbs), ("cache_mb".to_string(), self.cache_mb)];
        for c in &self.clusters {
            let key = |key: &str| format!("clusters.{}.{key}", c.name.escape_debug());
            if c.products.is_empty() {
                return wrong(key("products"), "no level, at least one is expected, as in models/devices".to_string());
            }
            numbers.extend([(key("ghz"), c.ghz), (key("read_gbs"), c.read_gbs)]);
            numbers.extend([(key("f32_fused"), c.f32_fused), (key("f32_apart"), c.f32_apart)]);
            for (level, p) in &c.products {
                if !known.contains(level) {
                    let near = did_you_mean(level, known.iter().map(String::as_str));
                    let problem = format!("there is no such level{near}; `tvlmc inspect` lists those of a model");
                    return wrong(key(&format!("products.{}", level.escape_debug())), problem);
                }
                let level = key(&format!("products.{}", level.escape_debug()));
                numbers.extend([(format!("{level}.whole"), p.whole), (format!("{level}.halves"), p.halves)]);
            }
        }
        match numbers.into_iter().find(|(_, n)| !(n.is_finite() && (1e-3..=1e6).contains(n))) {
            Some((key, n)) => wrong(key, format!("{n}, a number from 0.001 to 1000000 is expected")),
            None => Ok(()),
        }
    }
}

/// All levels that a machine has, as users say them.
fn level_names(machine: Machine) -> impl Iterator<Item = String> {
    let levels = [true, false].into_iter().flat_map(move |float| machine.levels(float));
    levels.map(move |target| machine.level_name(target.level()))
}

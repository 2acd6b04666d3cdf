//! Tuned schedules as text: in the cache, in files that are given, in manifests.

use std::path::Path;

use kernels::Target;
use kernels::library::Schedule;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Quoted};
use crate::package::TOOL_VERSION;

/// Bytes of a file that are read; ours have a hundredth of this.
const MOST_BYTES: usize = 1 << 20;

/// What a file of this kind calls itself.
const FORMAT: &str = "tvlmc-tuning";

/// Schedules that were measured, and where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tuning {
    /// The processor they were measured on.
    pub processor: String,
    /// The levels that were measured; the model of the machine decides at the others.
    pub levels: Vec<Levels>,
}

/// The schedule of a level.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Levels {
    /// As a target calls it: `v4_vnni`.
    pub level: String,
    /// Its schedule.
    #[serde(with = "Numbers")]
    pub schedule: Schedule,
}

/// The fields of a [`Schedule`] as text.
#[derive(Serialize, Deserialize)]
#[serde(remote = "Schedule", deny_unknown_fields)]
struct Numbers {
    integer_tiles: [(usize, usize); 2],
    nibble_lines: usize,
    /// Of the target, and not measured.
    #[serde(skip)]
    nibbles_in_halves: bool,
    /// As above.
    #[serde(skip)]
    dots: kernels::Dots,
    byte_lines: usize,
    ahead: usize,
    tile: (usize, usize),
    vector_lines: usize,
    depth_block: usize,
    depthwise: usize,
    depthwise_weights_in_registers: bool,
    strip_bytes: usize,
}

impl Tuning {
    /// The schedule of a target: the tuned one, or the one its model of the machine gives.
    pub fn schedule(&self, target: &dyn Target) -> Schedule {
        let tuned = self.levels.iter().find(|l| l.level == target.level());
        let own = Schedule::new(target);
        let Schedule { nibbles_in_halves, dots, .. } = own;
        tuned.map_or(own, |l| Schedule { nibbles_in_halves, dots, ..l.schedule })
    }

    /// Whatever makes this no tuning that kernels can be built with.
    pub fn fault(&self) -> Option<String> {
        self.levels.iter().find_map(|l| {
            let fault = l.schedule.fault()?;
            Some(format!("level {}: {fault}", Quoted(&l.level)))
        })
    }
}

/// A tuning with what it is for and how it came about.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TuningFile {
    format: String,
    version: u32,
    tool: String,
    /// Digest of the model's shapes, its recipe and its context.
    model: String,
    /// The result.
    pub tuning: Tuning,
    /// Lines for people: what was measured.
    pub measured: Vec<String>,
}

impl TuningFile {
    /// A file for the model of this digest.
    pub fn new(model: String, tuning: Tuning, measured: Vec<String>) -> TuningFile {
        let tool = format!("tvlmc {TOOL_VERSION}");
        TuningFile { format: FORMAT.to_string(), version: 1, tool, model, tuning, measured }
    }

    /// The text of the file.
    pub fn text(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).expect("plain data has a JSON form");
        text.push('\n');
        text
    }

    /// Reads a file and checks that it is one, of this version of tvlmc and for the model of this digest.
    ///
    /// # Errors
    /// What it is instead.
    pub fn read(path: &Path, model: &str) -> Result<TuningFile, Error> {
        use std::io::Read as _;
        let shown = path.display().to_string();
        let refuse = |problem: String| Err(Error::input(&shown, "", format!("{problem}; tvlmc tune makes a new one")));
        let open = std::fs::File::open(path).map_err(Error::io("read the tuning", path))?;
        let mut bytes = Vec::new();
        open.take(MOST_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(Error::io("read the tuning", path))?;
        if bytes.len() > MOST_BYTES {
            return refuse(format!("has more than {MOST_BYTES} bytes, which is no tuning"));
        }
        let file: TuningFile = match serde_json::from_slice(&bytes) {
            Ok(file) => file,
            Err(e) => return refuse(format!("is no tuning: {e}")),
        };
        if file.format != FORMAT || file.version != 1 {
            return refuse(format!(
                "is {} version {}, expected {FORMAT} version 1",
                Quoted(&file.format),
                file.version
            ));
        }
        let tool = format!("tvlmc {TOOL_VERSION}");
        if file.tool != tool {
            return refuse(format!("was made by {}, this is {tool}", Quoted(&file.tool)));
        }
        if file.model != model {
            return refuse("was made for another model, recipe or context".to_string());
        }
        match file.tuning.fault() {
            Some(fault) => refuse(fault),
            None => Ok(file),
        }
    }
}

//! `--dump`: what every step makes, as raw little-endian files and an index, to compare with the graph evaluator.

use super::json;
use crate::error::Error;
use crate::picture::Pixels;
use crate::program::{Phase, Program, StepView};
use crate::session::Session;
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Tokens that are made: the first comes from the prefill, the second from one decoding step.
const TOKENS: usize = 2;

/// Writes while the session lives.
pub struct Dump {
    folder: PathBuf,
    index: Arc<Mutex<Index>>,
}

#[derive(Default)]
struct Index {
    files: Vec<String>,
    n_images: usize,
    prompt: Vec<i64>,
    /// Of the observer, which cannot return one.
    error: Option<Error>,
}

impl Dump {
    pub fn watch<P: Program>(chat: &mut Session<'_, P>, folder: &Path) -> Result<Self, Error> {
        std::fs::create_dir_all(folder).map_err(|error| Error::File {
            path: folder.display().to_string(),
            action: "create the folder",
            reason: error.to_string(),
        })?;
        // All of it is shown, the system message too.
        chat.forget();
        chat.set_max_new_tokens(TOKENS);
        chat.set_ignore_eos(true);
        let this = Self { folder: folder.to_path_buf(), index: Arc::default() };
        let theirs = Self { folder: this.folder.clone(), index: Arc::clone(&this.index) };
        chat.observe(move |view| {
            if let Err(error) = theirs.step(&view) {
                theirs.lock().error.get_or_insert(error);
            }
        });
        Ok(this)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, file: &str, bytes: &[u8]) -> Result<(), Error> {
        let path = self.folder.join(file);
        std::fs::write(&path, bytes).map_err(|error| Error::File {
            path: path.display().to_string(),
            action: "write",
            reason: error.to_string(),
        })
    }

    fn step(&self, view: &StepView<'_>) -> Result<(), Error> {
        let mut bytes = Vec::with_capacity(view.rows * view.step.channels * 4);
        for value in view.iter().flatten() {
            bytes.extend_from_slice(&value.to_le_bytes());
        }
        let file = format!("{:04}-{}.f32", self.lock().files.len(), view.phase.name());
        self.write(&file, &bytes)?;
        let shape = [view.rows, view.step.channels];
        self.entry(view.step.name, view.phase.name(), view.start, shape, &file, maximum(view.iter().flatten()));
        Ok(())
    }

    fn entry(&self, name: &str, phase: &str, start: usize, [rows, channels]: [usize; 2], file: &str, max: f64) {
        let mut entry = json::Object::new();
        entry.text("name", name);
        entry.text("phase", phase);
        entry.raw("start", &start.to_string());
        entry.raw("rows", &rows.to_string());
        entry.raw("channels", &channels.to_string());
        entry.text("file", file);
        entry.raw("max", &json::number(max));
        self.lock().files.push(entry.end());
    }

    /// The pixels of the next image.
    pub fn pixels(&self, pixels: &Pixels) -> Result<(), Error> {
        let n = self.lock().n_images;
        self.lock().n_images += 1;
        let file = if n == 0 { String::from("pixels.u8") } else { format!("pixels-{n}.u8") };
        self.write(&file, pixels.bytes())?;
        let max = pixels.bytes().iter().copied().max().unwrap_or(0);
        self.entry("pixels", "input", 0, [pixels.side(), pixels.side() * 3], &file, max.into());
        Ok(())
    }

    /// What the prompt was, and the logits after it.
    pub fn prompt(&self, ids: &[i64], logits: &[f32]) -> Result<(), Error> {
        self.lock().prompt = ids.to_vec();
        self.write("input_ids.i64", &little_endian(ids, |id| id.to_le_bytes()))?;
        self.logits(Phase::Prefill, logits)
    }

    /// The logits after the decoding step, and the index, which is written last.
    pub fn finish(&self, token_ids: &[u32], logits: &[f32]) -> Result<(), Error> {
        if token_ids.len() == TOKENS {
            self.logits(Phase::Decode, logits)?;
        }
        let index = std::mem::take(&mut *self.lock());
        if let Some(error) = index.error {
            return Err(error);
        }
        let mut object = json::Object::new();
        object.raw("prompt_token_ids", &json::array(&index.prompt));
        object.raw("token_ids", &json::array(token_ids));
        object.raw("files", &lines(&index.files));
        self.write("index.json", object.end().as_bytes())
    }

    fn logits(&self, phase: Phase, logits: &[f32]) -> Result<(), Error> {
        let file = format!("logits-{}.f32", phase.name());
        self.write(&file, &little_endian(logits, |value| value.to_le_bytes()))?;
        self.entry("logits", phase.name(), 0, [1, logits.len()], &file, maximum(logits.iter().copied()));
        Ok(())
    }
}

/// Largest magnitude; not a number where one of the values is none.
fn maximum(values: impl Iterator<Item = f32>) -> f64 {
    values.fold(0.0, |max: f64, value| if value.is_nan() { f64::NAN } else { max.max(value.abs().into()) })
}

fn little_endian<T: Copy, const N: usize>(values: &[T], bytes: impl Fn(T) -> [u8; N]) -> Vec<u8> {
    values.iter().flat_map(|&value| bytes(value)).collect()
}

/// An array with one item a line.
fn lines(items: &[impl Display]) -> String {
    let items: Vec<String> = items.iter().map(|item| format!("\n{item}")).collect();
    format!("[{}\n]", items.join(","))
}

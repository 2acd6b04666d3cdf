//! The sides, and how each is run and asked for its figures.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use super::measure::{self, Figures, What};
use super::models::Models;
use crate::emitted::{self, Emitted};
use crate::{json, shell};

/// Tokens of the prompt: an image of 256 and a question, or as many of text.
const PROMPT: usize = 290;

/// Tokens decoded behind the prompt: 300 of context on average.
const NEW: usize = 20;

/// Width and height of the photo.
const PIXELS: usize = 1024;

/// Who takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The emitted crate's runner.
    Ours,
    OpenvinoInt8,
    OpenvinoBf16,
    OnnxInt8,
    OnnxF32,
    /// llama.cpp, Q4_0 throughout, on huge pages.
    Llama,
    /// OpenVINO GenAI, 4-bit weights.
    Genai,
}

/// Which half of a model a side is timed on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Vision,
    Decoder,
}

impl Side {
    /// In the order in which they take turns.
    pub const ALL: [Side; 7] =
        [Side::Ours, Side::OpenvinoInt8, Side::OpenvinoBf16, Side::OnnxInt8, Side::OnnxF32, Side::Llama, Side::Genai];

    /// Name in reports and on the command line.
    pub fn name(&self) -> &'static str {
        match self {
            Side::Ours => "tvlmc",
            Side::OpenvinoInt8 => "openvino-int8",
            Side::OpenvinoBf16 => "openvino-bf16",
            Side::OnnxInt8 => "onnxruntime-int8",
            Side::OnnxF32 => "onnxruntime-f32",
            Side::Llama => "llama.cpp",
            Side::Genai => "openvino-genai",
        }
    }

    /// Whether it can do that half.
    pub fn takes(self, phase: Phase) -> bool {
        match self {
            Side::Ours => true,
            Side::OpenvinoInt8 | Side::OpenvinoBf16 | Side::OnnxInt8 | Side::OnnxF32 => phase == Phase::Vision,
            Side::Llama | Side::Genai => phase == Phase::Decoder,
        }
    }
}

/// Everything the sides run on.
pub struct Work {
    models: Models,
    python: String,
    runs: usize,
    ours: Option<Ours>,
}

/// Our runner and what it is asked.
struct Ours {
    runner: PathBuf,
    weights: String,
    /// Questions about a picture, and questions without.
    with_picture: String,
    text_only: String,
}

impl Work {
    /// Writes our questions, of exactly as many tokens as the peers get.
    pub fn prepare(
        ours: Option<&Emitted>,
        models: Models,
        python: String,
        folder: &Path,
        runs: usize,
    ) -> Result<Work, String> {
        let ours = ours.map(|ours| Ours::prepare(ours, folder, runs)).transpose()?;
        Ok(Work { models, python, runs, ours })
    }

    /// Runs a side once and adds its figures.
    pub fn measure(&self, side: Side, phase: Phase, threads: usize, figures: &mut Figures) -> Result<(), String> {
        match (side, &self.ours) {
            (Side::Ours, Some(ours)) => match phase {
                Phase::Vision => ours.vision(threads, figures),
                Phase::Decoder => ours.decoder(threads, figures),
            },
            // Not asked for.
            (Side::Ours, None) => Ok(()),
            (Side::OpenvinoInt8, _) => self.vision(side, "openvino", &self.models.openvino_int8, threads, figures),
            (Side::OpenvinoBf16, _) => self.vision(side, "openvino-bf16", &self.models.onnx, threads, figures),
            (Side::OnnxInt8, _) => self.vision(side, "onnxruntime", &self.models.onnx_int8, threads, figures),
            (Side::OnnxF32, _) => self.vision(side, "onnxruntime", &self.models.onnx, threads, figures),
            (Side::Llama, _) => self.llama(threads, figures),
            (Side::Genai, _) => self.genai(threads, figures),
        }
    }

    fn vision(&self, side: Side, peer: &str, model: &str, threads: usize, figures: &mut Figures) -> Result<(), String> {
        let report = self.python(&["benches/peers/bench_vision.py", peer, model], threads, side, figures)?;
        figures.add(What::Vision, threads, side.name(), &json::numbers(&report, "ms")?);
        Ok(())
    }

    fn genai(&self, threads: usize, figures: &mut Figures) -> Result<(), String> {
        let (prompt, new) = (PROMPT.to_string(), NEW.to_string());
        let args = ["benches/peers/bench_decoder.py", &self.models.genai, "--prompt", &prompt, "--new", &new];
        let report = self.python(&args, threads, Side::Genai, figures)?;
        figures.add(What::Prefill, threads, Side::Genai.name(), &json::numbers(&report, "prefill_ms")?);
        figures.add(What::Decode, threads, Side::Genai.name(), &json::numbers(&report, "decode_ms")?);
        Ok(())
    }

    /// Runs a script of a peer; adds what all of them report, returns the rest.
    fn python(&self, args: &[&str], threads: usize, side: Side, figures: &mut Figures) -> Result<String, String> {
        let began = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        let (count, runs, began) = (threads.to_string(), self.runs.to_string(), format!("{began:.6}"));
        let common = ["--threads", &count, "--runs", &runs, "--began", &began];
        let ran = measure::run(&mut shell::command(&self.python, &[args, &common].concat()))?;
        figures.add(What::Ready, threads, side.name(), &[json::number(&ran.out, "ready_ms")?]);
        figures.add(What::Memory, threads, side.name(), &[ran.private / MIB]);
        figures.version(json::text(&ran.out, "peer").unwrap_or(side.name()));
        Ok(ran.out)
    }

    fn llama(&self, threads: usize, figures: &mut Figures) -> Result<(), String> {
        let name = Side::Llama.name();
        let (count, runs) = (threads.to_string(), self.runs.to_string());
        let (prompt, new) = (PROMPT.to_string(), NEW.to_string());
        let bench = |args: &[&str]| {
            let common = ["-m", &self.models.gguf, "-t", &count, "-fa", "1", "-r", &runs, "-o", "json"];
            let ran = measure::run(&mut self.llama_program("llama-bench", &[&common, args].concat())?)?;
            let times: Vec<f64> = json::numbers(&ran.out, "samples_ns")?.iter().map(|ns| ns / 1e6).collect();
            figures.version(&format!("llama.cpp {}", json::text(&ran.out, "build_commit").unwrap_or_default()));
            Ok::<_, String>((times, ran.private))
        };
        let mut bench = bench;
        let (prefill, _) = bench(&["-p", &prompt, "-n", "0"])?;
        let (decode, private) = bench(&["-p", "0", "-n", &new, "-d", &prompt])?;
        let decode: Vec<f64> = decode.iter().map(|ms| ms / NEW as f64).collect();
        figures.add(What::Prefill, threads, name, &prefill);
        figures.add(What::Decode, threads, name, &decode);
        figures.add(What::Memory, threads, name, &[private / MIB]);

        let common = ["-m", &self.models.gguf, "-t", &count, "-c", "1024", "--no-warmup", "-no-cnv"];
        let one_token = [&common[..], &["-p", "a", "-n", "1"]].concat();
        let ran = measure::run(&mut self.llama_program("llama-completion", &one_token)?)?;
        // Of "prompt eval time = 1.5 ms / ..." and "eval time = ..." lines.
        let evals = ran.err.split("eval time =").skip(1);
        let evals: Vec<f64> = evals.filter_map(|rest| rest.split_whitespace().next()?.parse().ok()).collect();
        if evals.is_empty() {
            return Err(format!("llama-completion tells no \"eval time\":\n{}", ran.err));
        }
        let evals: f64 = evals.iter().sum();
        figures.add(What::Ready, threads, name, &[milliseconds(ran.wall) - evals]);
        Ok(())
    }

    /// A program of llama.cpp with its memory on huge pages, without which it decodes a good tenth slower.
    fn llama_program(&self, name: &str, args: &[&str]) -> Result<Command, String> {
        let mut command = shell::command(emitted::utf8(&self.models.llama.join(name))?, args);
        command.env("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1");
        Ok(command)
    }
}

const MIB: f64 = 1024.0 * 1024.0;

impl Ours {
    fn prepare(ours: &Emitted, folder: &Path, runs: usize) -> Result<Ours, String> {
        let write = |name: &str, bytes: &[u8]| {
            let path = folder.join(name);
            std::fs::write(&path, bytes).map_err(|e| format!("{}: {e}", path.display()))?;
            emitted::utf8(&path).map(str::to_string)
        };
        let mut this = Ours {
            runner: ours.runner.clone(),
            weights: emitted::utf8(&ours.weights())?.to_string(),
            with_picture: String::new(),
            text_only: String::new(),
        };
        // Two pictures take turns: the runner keeps the rows of a picture that comes twice in a row.
        let mut pictures = Vec::new();
        for i in 0..2 {
            let pixels: Vec<u8> = (0..3 * PIXELS * PIXELS).map(|at| ((at / 7 + 31 * i) % 256) as u8).collect();
            pictures.push(write(&format!("picture-{i}.rgb"), &pixels)?);
        }
        for (pictures, name) in [(&pictures[..], "questions-picture.tsv"), (&[], "questions-text.tsv")] {
            let mut words = PROMPT / 4;
            for _ in 0..4 {
                let one = write(name, questions(pictures, words, 1).as_bytes())?;
                let found = json::numbers(&this.ask(&one, 1, 2)?.out, "prompt_token_ids")?.len();
                if found == PROMPT {
                    break;
                }
                words = (words + PROMPT).saturating_sub(found).max(1);
            }
            let all = write(name, questions(pictures, words, 1 + runs).as_bytes())?;
            *if pictures.is_empty() { &mut this.text_only } else { &mut this.with_picture } = all;
        }
        Ok(this)
    }

    /// Asks all questions of a file.
    fn ask(&self, questions: &str, new: usize, threads: usize) -> Result<measure::Ran, String> {
        let (new, threads) = (new.to_string(), threads.to_string());
        let args = ["--weights", &self.weights, "--questions", questions, "--max-new-tokens", &new, "--ignore-eos"];
        // One token at a time, as the others make them.
        let plain = ["--threads", &threads, "--speculate", "0"];
        measure::run(&mut shell::command(&self.runner, &[&args[..], &plain].concat()))
    }

    fn vision(&self, threads: usize, figures: &mut Figures) -> Result<(), String> {
        let name = Side::Ours.name();
        let ran = self.ask(&self.with_picture, 1, threads)?;
        for answer in counted(&ran.out)? {
            let [preprocess, vision, prefill] = [
                json::number(answer, "preprocess")?,
                json::number(answer, "vision")?,
                json::number(answer, "prefill")?,
            ];
            figures.add(What::Vision, threads, name, &[vision]);
            figures.add(What::First, threads, name, &[preprocess + vision + prefill]);
        }
        figures.add(What::Memory, threads, name, &[ran.private / MIB]);

        // All of a short process but the answer itself.
        let count = threads.to_string();
        let args =
            ["--weights", &self.weights, "--prompt", "a", "--max-new-tokens", "1", "--json", "--threads", &count];
        let ran = measure::run(&mut shell::command(&self.runner, &args))?;
        let prefill = json::number(&ran.out, "prefill")?;
        figures.add(What::Ready, threads, name, &[milliseconds(ran.wall) - prefill]);
        Ok(())
    }

    fn decoder(&self, threads: usize, figures: &mut Figures) -> Result<(), String> {
        let name = Side::Ours.name();
        // The first token is prefill's.
        let ran = self.ask(&self.text_only, NEW + 1, threads)?;
        for answer in counted(&ran.out)? {
            figures.add(What::Prefill, threads, name, &[json::number(answer, "prefill")?]);
            figures.add(What::Decode, threads, name, &[json::number(answer, "decode_per_token")?]);
        }
        Ok(())
    }
}

/// The answers after the first, which is not counted.
fn counted(out: &str) -> Result<Vec<&str>, String> {
    let answers: Vec<&str> = out.lines().skip(1).collect();
    for answer in &answers {
        let found = json::numbers(answer, "prompt_token_ids")?.len();
        if found != PROMPT {
            return Err(format!("our question has {found} tokens, the peers' {PROMPT}: the tokenizer joins its words"));
        }
    }
    Ok(answers)
}

/// Questions of `words` letters each, none like the one before.
fn questions(pictures: &[String], words: usize, count: usize) -> String {
    let mut text = String::new();
    for i in 0..count {
        let letters: Vec<String> =
            (0..words).map(|w| char::from(b'a' + ((i + 7 * w) % 26) as u8).to_string()).collect();
        let (path, size) = match pictures {
            [] => ("", String::new()),
            some => (some[i % some.len()].as_str(), format!("{PIXELS}x{PIXELS}")),
        };
        let _ = writeln!(text, "{path}\t{size}\t{}", letters.join(" "));
    }
    text
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

#[cfg(test)]
mod tests {
    use super::questions;

    #[test]
    fn questions_differ_and_pictures_take_turns() {
        let text = questions(&["p".to_string(), "q".to_string()], 3, 3);
        assert_eq!(text, "p\t1024x1024\ta h o\nq\t1024x1024\tb i p\np\t1024x1024\tc j q\n");
        assert_eq!(questions(&[], 1, 1), "\t\ta\n");
    }
}

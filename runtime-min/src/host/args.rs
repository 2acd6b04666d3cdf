//! The runner's command line.

use crate::sampler::SamplerOptions;
use crate::speculate::MOST;
use crate::weights::{Residence, Verify};
use std::ffi::OsString;
use std::path::PathBuf;
use std::str::FromStr;

/// Options that the library checks, under the same names.
pub const SESSION: [&str; 6] = ["threads", "side", "temperature", "top-k", "top-p", "repetition-penalty"];

/// What was asked for.
#[derive(Debug, Default)]
pub struct Args {
    pub weights: Option<PathBuf>,
    pub images: Vec<RawImage>,
    /// One for all pictures, one for each, or none.
    pub sides: Vec<usize>,
    pub prompt: Option<String>,
    pub prompt_file: Option<PathBuf>,
    pub questions: Option<PathBuf>,
    pub max_new_tokens: usize,
    pub threads: Option<usize>,
    pub speculate: Option<usize>,
    pub level: Option<String>,
    pub residence: Residence,
    pub ignore_eos: bool,
    pub sampler: SamplerOptions,
    pub json: bool,
    pub quiet: bool,
    pub verify: bool,
    pub write_system: Option<PathBuf>,
    pub dump: Option<PathBuf>,
    pub bench: Option<usize>,
    pub profile: bool,
}

impl Args {
    /// The side of a picture that was asked for.
    pub fn side(&self, picture: usize) -> Option<usize> {
        self.sides.get(picture).or(self.sides.first()).copied()
    }

    pub fn verify_mode(&self) -> Verify {
        if self.verify { Verify::Full } else { Verify::Auto }
    }
}

/// A file of raw pixels: rows of 8-bit red, green, blue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawImage {
    pub width: usize,
    pub height: usize,
    pub path: PathBuf,
}

/// The text of `--help`; `levels` and `sides` are lists for people, `side` is the largest.
pub fn help(model: &str, weights: &str, levels: &str, (side, sides): (usize, &str)) -> String {
    format!(
        "\
Asks {model} about pictures. Of the options, --prompt is enough.

  --weights PATH            weight file [{weights}]
  --rgb WxH:PATH            picture as raw 8-bit RGB, rows from the top; may be repeated, order counts
  --side N                  side of pictures in pixels; several, as in 256,512, are for one picture each [{side}; has {sides}]
  --prompt TEXT             question
  --prompt-file PATH        question from a file
  --questions PATH          many questions: lines of rgb-path, WxH and prompt, separated by tabs; one JSON line each
  --max-new-tokens N        longest answer [256]
  --ignore-eos              go on after end tokens
  --temperature X           0 is greedy [0]
  --top-k N                 0 is off [0]
  --top-p X                 1 is off [1]
  --repetition-penalty X    1 is off [1]
  --seed N                  of the sampler [0]
  --threads N               [all processors]
  --speculate N             most tokens guessed and verified together; 0 is off, answers are the same [the model's;
                            0 with --bench]
  --level NAME              {levels} [the best this processor has]
  --residence WHERE         weights mapped or copied [copied below 256 MB]
  --json                    one object instead of text
  --quiet                   no note when an answer is cut off
  --verify                  only check every byte of the weight file
  --dump FOLDER             with a prompt: write what every step makes, and stop after two tokens
  --write-system PATH       write what tvlmc compile --system-prompt keeps in a weight file
  --bench N                 time each phase N times, as JSON
  --profile                 time of every step, on stderr

Exit codes: 0 done, 2 usage, 3 bad input, 4 environment.
"
    )
}

/// Reads the arguments; `None` when help was asked for.
pub fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Option<Args>, String> {
    let mut args = Args { max_new_tokens: 256, ..Args::default() };
    let mut rest = arguments;
    while let Some(flag) = rest.next() {
        let Some(flag) = flag.to_str() else {
            return Err(format!("{}: unknown option", flag.display()));
        };
        // `--flag=value` and `--flag value` are the same.
        let (flag, inline) = match flag.split_once('=') {
            Some((flag, value)) if flag.starts_with("--") => (flag, Some(OsString::from(value))),
            _ => (flag, None),
        };
        let switch = match flag {
            "-h" | "--help" => return Ok(None),
            "--ignore-eos" => Some(&mut args.ignore_eos),
            "--json" => Some(&mut args.json),
            "--quiet" => Some(&mut args.quiet),
            "--verify" => Some(&mut args.verify),
            "--profile" => Some(&mut args.profile),
            _ => None,
        };
        if let Some(switch) = switch {
            if inline.is_some() {
                return Err(format!("{flag} takes no value"));
            }
            *switch = true;
            continue;
        }
        let mut value = || inline.clone().or_else(|| rest.next()).ok_or_else(|| format!("{flag} needs a value"));
        match flag {
            "--weights" => args.weights = Some(value()?.into()),
            "--rgb" => args.images.push(raw_image(&text(flag, value()?)?)?),
            "--side" => args.sides = numbers(flag, value()?)?,
            "--prompt" => args.prompt = Some(text(flag, value()?)?),
            "--prompt-file" => args.prompt_file = Some(value()?.into()),
            "--questions" => args.questions = Some(value()?.into()),
            "--max-new-tokens" => args.max_new_tokens = number(flag, value()?)?,
            "--threads" => args.threads = Some(number(flag, value()?)?),
            "--speculate" => args.speculate = Some(number(flag, value()?)?),
            "--level" => args.level = Some(text(flag, value()?)?),
            "--residence" => args.residence = residence(&text(flag, value()?)?)?,
            "--temperature" => args.sampler.temperature = number(flag, value()?)?,
            "--top-k" => args.sampler.top_k = number(flag, value()?)?,
            "--top-p" => args.sampler.top_p = number(flag, value()?)?,
            "--repetition-penalty" => args.sampler.repetition_penalty = number(flag, value()?)?,
            "--seed" => args.sampler.seed = number(flag, value()?)?,
            "--dump" => args.dump = Some(value()?.into()),
            "--write-system" => args.write_system = Some(value()?.into()),
            "--bench" => args.bench = Some(number(flag, value()?)?),
            _ => return Err(format!("{flag}: unknown option")),
        }
    }
    if args.prompt.is_some() && args.prompt_file.is_some() {
        return Err("--prompt and --prompt-file exclude each other".into());
    }
    if args.questions.is_some() && (args.prompt.is_some() || args.prompt_file.is_some() || !args.images.is_empty()) {
        return Err("--questions brings its own prompts and pictures: leave --prompt and --rgb out".into());
    }
    let (n_sides, n_images) = (args.sides.len(), args.images.len());
    if n_sides > 1 && n_sides != n_images {
        return Err(format!("--side: {n_sides} sides for {n_images} pictures: give one for all, or one for each"));
    }
    if let Some(n) = args.speculate.filter(|n| *n > MOST) {
        return Err(format!("--speculate {n}: at most {MOST} tokens are verified together"));
    }
    if args.bench == Some(0) {
        return Err("--bench: give at least 1".into());
    }
    if args.dump.is_some() && args.prompt.is_none() && args.prompt_file.is_none() {
        return Err("--dump needs --prompt or --prompt-file".into());
    }
    if args.dump.is_some() && args.profile {
        return Err("--dump and --profile exclude each other: both watch the steps".into());
    }
    Ok(Some(args))
}

/// Reads "WxH" for the picture at `path`.
pub fn sized(size: &str, path: PathBuf) -> Result<RawImage, String> {
    let sides = size.split_once('x').and_then(|(w, h)| Some((w.parse().ok()?, h.parse().ok()?)));
    let (width, height) = sides.ok_or_else(|| format!("\"{size}\" is no size: expected WxH, as in 640x480"))?;
    Ok(RawImage { width, height, path })
}

fn raw_image(value: &str) -> Result<RawImage, String> {
    let (size, path) = value.split_once(':').ok_or_else(|| format!("--rgb {value}: expected WxH:PATH"))?;
    sized(size, path.into()).map_err(|reason| format!("--rgb {value}: {reason}"))
}

fn residence(value: &str) -> Result<Residence, String> {
    match value {
        "mapped" => Ok(Residence::Mapped),
        "copied" => Ok(Residence::Copied),
        _ => Err(format!("--residence {value}: expected mapped or copied")),
    }
}

fn text(flag: &str, value: OsString) -> Result<String, String> {
    value.into_string().map_err(|value| format!("{flag} {}: not UTF-8", value.display()))
}

fn number<T: FromStr>(flag: &str, value: OsString) -> Result<T, String> {
    let value = text(flag, value)?;
    value.parse().map_err(|_| format!("{flag} {value}: expected a number"))
}

/// Numbers separated by commas.
fn numbers(flag: &str, value: OsString) -> Result<Vec<usize>, String> {
    text(flag, value)?.split(',').map(|one| number(flag, one.into())).collect()
}

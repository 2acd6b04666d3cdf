//! The command line: what can be asked for, and the text of `--help`.

use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use models::Recipe;

use super::tuned::Tuned;
use crate::assemble::TARGET;
use crate::predict::Device;

const EXAMPLES: &str = "\
Examples:
  tvlmc demo
  tvlmc run FastVLM-0.5B --image photo.jpg --prompt \"What is this?\"
  tvlmc compile FastVLM-0.5B --target x86_64-unknown-linux-gnu -o fastvlm
  tvlmc run fastvlm --image photo.jpg --prompt \"What is this?\"
  tvlmc verify fastvlm --checkpoint FastVLM-0.5B
  tvlmc tune FastVLM-0.5B

Environment:
  TVLMC_CACHE  folder for what run, verify, demo, tune and --system-prompt
               compile and build [~/.cache/tvlmc]
  CARGO        builds the emitted crate [cargo on the PATH]
  NO_COLOR     no colors

Results go to stdout, progress and notes to stderr.
Exit codes: 0 done, 1 a check failed, 2 usage, 3 bad input, 4 environment.";

/// Compiles a FastVLM checkpoint into a library made for one machine
#[derive(Parser, Debug)]
#[command(name = "tvlmc", version, about, after_help = EXAMPLES, max_term_width = 80)]
pub struct Cli {
    /// No progress and no notes; errors are still told
    #[arg(short, long, global = true, display_order = 1000)]
    pub quiet: bool,
    /// Colors: auto, always or never
    #[arg(
        long,
        global = true,
        value_name = "WHEN",
        default_value = "auto",
        hide_possible_values = true,
        display_order = 1001
    )]
    pub color: Color,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// On a terminal, unless NO_COLOR is set
    Auto,
    Always,
    Never,
}

#[derive(Subcommand, Debug)]
pub enum Command {
    /// Write the library of a model: a crate with its weight file
    Compile(Compile),
    /// Ask a model about pictures
    Run(Run),
    /// Tell what is in a model, and what would be emitted
    Inspect(Inspect),
    /// Tell how long a model takes on a device that is not at hand
    Predict(Predict),
    /// Measure tiles on this machine; run takes the winners from then on
    Tune(Tune),
    /// Compare emitted code with the graph evaluator, op by op
    Verify(Verify),
    /// Answer questions on pictures with the model that ships with tvlmc
    Demo(Demo),
    /// Print a completion script for a shell
    Completions(Completions),
}

/// How weights are stored
#[derive(Args, Clone, Debug, Default)]
pub struct Storage {
    #[arg(
        long,
        value_name = "NAME|FILE",
        conflicts_with = "quant",
        help = format!("How weights are stored: f32, int8, int4, or a recipe file [{}]", Recipe::DEFAULT)
    )]
    pub recipe: Option<PathBuf>,
    /// Short for --recipe: f32, int8 or int4
    #[arg(long, value_name = "FORMAT")]
    pub quant: Option<String>,
}

/// How a checkpoint is read and for which machine
#[derive(Args, Clone, Debug, Default)]
pub struct Choices {
    #[command(flatten)]
    pub storage: Storage,
    /// Positions of a conversation, pictures included [what the model has, at
    /// most 2048]
    #[arg(long, value_name = "N")]
    pub context: Option<usize>,
    /// Take what tvlmc tune has measured on this machine, or what it wrote into
    /// FILE; off is the model of the machine [off; run: what was measured]
    #[arg(long, value_name = "FILE|off", num_args = 0..=1, require_equals = true, default_missing_value = "cached")]
    pub tuned: Option<Tuned>,
    /// Take NaN and infinity in weights instead of refusing
    #[arg(long)]
    pub allow_non_finite: bool,
}

/// What pictures a model is compiled for
#[derive(Args, Clone, Debug, Default)]
pub struct Sides {
    /// Sides of pictures in pixels, as in 256,512,1024: whoever asks chooses one,
    /// the weights are the same [the model's own; web: smaller ones too]
    #[arg(long, value_name = "N,N,...", value_delimiter = ',', value_parser = pixels)]
    pub sides: Vec<usize>,
}

/// What is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Form {
    /// A crate that cargo builds.
    Crate,
    /// A folder for web pages and Node.
    Web,
    /// A library for C, its header and the weights.
    Staticlib,
    /// A Swift package, or an archive for Android.
    Package,
}

#[derive(Args, Debug)]
pub struct Compile {
    /// Checkpoint folder, or a .safetensors file in one
    pub model: PathBuf,
    /// Machine to compile for: x86_64-unknown-linux-gnu,
    /// aarch64-unknown-linux-gnu, aarch64-linux-android, aarch64-apple-ios,
    /// aarch64-apple-darwin and others, or wasm32-unknown-unknown for web
    /// pages and Node
    #[arg(long, value_name = "TRIPLE")]
    pub target: String,
    /// What to write: crate; staticlib, a library for C that cargo builds;
    /// package, for Xcode or Gradle (Android's takes an NDK and a JDK); for
    /// wasm32 web, a folder for pages and Node [crate; wasm32: web]
    #[arg(long, value_name = "FORM", hide_possible_values = true)]
    pub emit: Option<Form>,
    /// What else an app may run the vision tower on: coreml, for Apple's
    /// systems, writes NAME.mlpackage beside the rest
    #[arg(long, value_name = "NAME")]
    pub delegate: Option<String>,
    #[command(flatten)]
    pub choices: Choices,
    #[command(flatten)]
    pub sides: Sides,
    /// Folder to write [NAME-TRIPLE in this folder]
    #[arg(short, long, value_name = "OUT")]
    pub output: Option<PathBuf>,
    /// Replace an older output of tvlmc, with all that is in its folder
    #[arg(long)]
    pub force: bool,
    /// Write nothing; a diff and exit 1 if OUT is out of date
    #[arg(long, value_name = "OUT", conflicts_with_all = ["output", "force"])]
    pub check: Option<PathBuf>,
    /// Name of the crate [made of the name of MODEL's folder]
    #[arg(long)]
    pub name: Option<String>,
    /// What the system message says; read here, kept in the weight file, and
    /// never again by a conversation. From a file after @. Builds the model
    /// with cargo
    #[arg(long, value_name = "TEXT|@FILE", allow_hyphen_values = true)]
    pub system_prompt: Option<OsString>,
    /// Write the graphs after each pass into DIR
    #[arg(long, value_name = "DIR")]
    pub dump_ir: Option<PathBuf>,
    /// Print which tiles and strips were chosen, and why
    #[arg(long)]
    pub explain: bool,
    /// Refuse a model that takes more memory, weights too; as in 2G
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    pub max_ram: Option<u64>,
}

#[derive(Args, Debug)]
pub struct Run {
    /// Checkpoint folder, .safetensors file, or a folder that was compiled
    pub model: PathBuf,
    /// Picture to ask about, - for stdin; may be repeated, order counts
    #[arg(long, value_name = "PICTURE")]
    pub image: Vec<PathBuf>,
    /// Side of pictures in pixels, as compile --sides names them; several, as
    /// in 256,512, are for one picture each [the largest]
    #[arg(long, value_name = "N", value_delimiter = ',', value_parser = pixels)]
    pub side: Vec<usize>,
    /// Question about the pictures, or without any
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub prompt: OsString,
    /// Longest answer, in tokens
    #[arg(long, value_name = "N", default_value_t = 256)]
    pub max_new_tokens: usize,
    /// Threads [all processors]
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
    /// Instruction set, as inspect lists them [the best this processor has]
    #[arg(long, value_name = "NAME")]
    pub level: Option<String>,
    /// Most tokens guessed from what was said and verified together, 0 is off;
    /// answers are the same [what the model was compiled for]
    #[arg(long, value_name = "N")]
    pub speculate: Option<usize>,
    /// Go on after end tokens
    #[arg(long)]
    pub ignore_eos: bool,
    /// One JSON object instead of text
    #[arg(long)]
    pub json: bool,
    /// Turn pictures as their EXIF data says; the reference does not
    #[arg(long)]
    pub exif: bool,
    #[command(flatten)]
    pub sampler: Sampler,
    #[command(flatten)]
    pub choices: Choices,
}

/// How tokens are chosen
#[derive(Args, Debug)]
pub struct Sampler {
    /// Larger values choose more freely; 0 is greedy
    #[arg(long, value_name = "X", default_value_t = 0.0, allow_negative_numbers = true)]
    pub temperature: f32,
    /// Choose among the N likeliest tokens; 0 is off
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub top_k: usize,
    /// Choose among the likeliest tokens that reach X together; 1 is off
    #[arg(long, value_name = "X", default_value_t = 1.0, allow_negative_numbers = true)]
    pub top_p: f32,
    /// Above 1 makes tokens that were there before less likely; 1 is off
    #[arg(long, value_name = "X", default_value_t = 1.0, allow_negative_numbers = true)]
    pub repetition_penalty: f32,
    /// Where the random numbers start
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
}

#[derive(Args, Debug)]
pub struct Inspect {
    /// Checkpoint folder, .safetensors file, or a folder that was compiled
    pub model: PathBuf,
    #[command(flatten)]
    pub choices: Choices,
    #[command(flatten)]
    pub sides: Sides,
    /// One JSON object instead of text
    #[arg(long)]
    pub json: bool,
}

#[derive(Args, Debug)]
pub struct Predict {
    /// Checkpoint folder, or a .safetensors file in one
    pub model: PathBuf,
    #[arg(
        long,
        value_name = "NAME|FILE",
        help = format!("Device, or a file that describes one; built in are\n{}", devices())
    )]
    pub device: PathBuf,
    /// Machine to compile for [the device's]
    #[arg(long, value_name = "TRIPLE")]
    pub target: Option<String>,
    #[command(flatten)]
    pub choices: Choices,
    /// Threads, on the fastest cores first [so many that the first token comes soonest; a session that is not told takes
    /// one for each fast core of a phone, elsewhere for each core]
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
    /// Side of the picture in pixels [the model's own]
    #[arg(long, value_name = "N")]
    pub side: Option<usize>,
    /// Positions of a prompt, its picture included [the picture's and 34, or
    /// what the context has]
    #[arg(long, value_name = "N")]
    pub prompt_rows: Option<usize>,
    /// List the slowest steps of each phase; with --json all of them
    #[arg(long)]
    pub steps: bool,
    /// One JSON object instead of text
    #[arg(long)]
    pub json: bool,
}

#[derive(Args, Debug)]
pub struct Tune {
    /// Checkpoint folder, or a .safetensors file in one
    pub model: PathBuf,
    /// Machine to measure for, which is this one
    #[arg(long, value_name = "TRIPLE", default_value = TARGET)]
    pub target: String,
    /// Instruction set, as inspect lists them [the best this processor has]
    #[arg(long, value_name = "NAME")]
    pub level: Option<String>,
    #[command(flatten)]
    pub choices: Choices,
    /// Write the winners into FILE too, for compile --tuned=FILE
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub struct Verify {
    /// Checkpoint folder, .safetensors file, or a folder that was compiled
    pub model: PathBuf,
    /// The checkpoint that a compiled folder was made from
    #[arg(long, value_name = "DIR")]
    pub checkpoint: Option<PathBuf>,
    /// Picture to compare on, - for stdin [a drawn one]
    #[arg(long, value_name = "PICTURE")]
    pub image: Option<PathBuf>,
    /// Side of the picture in pixels [the largest]
    #[arg(long, value_name = "N")]
    pub side: Option<usize>,
    /// Question to compare on
    #[arg(long, value_name = "TEXT", default_value = "What is this?", allow_hyphen_values = true)]
    pub prompt: OsString,
    /// Threads [all processors]
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
    /// Instruction set, as inspect lists them [the best this processor has]
    #[arg(long, value_name = "NAME")]
    pub level: Option<String>,
    #[command(flatten)]
    pub choices: Choices,
    /// One JSON object instead of text
    #[arg(long)]
    pub json: bool,
}

#[derive(Args, Debug)]
pub struct Demo {
    /// Folder with a checkpoint and eval/questions.jsonl [the one that ships]
    #[arg(long, value_name = "DIR")]
    pub model: Option<PathBuf>,
    /// Questions to ask, from the first on [all]
    #[arg(long, value_name = "N")]
    pub questions: Option<NonZeroUsize>,
    #[command(flatten)]
    pub storage: Storage,
    /// Threads [all processors]
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
}

#[derive(Args, Debug)]
pub struct Completions {
    pub shell: clap_complete::Shell,
}

/// Names of the built-in devices, in lines of four.
fn devices() -> String {
    let names: Vec<&str> = Device::list().collect();
    names.chunks(4).map(|line| line.join(", ")).collect::<Vec<_>>().join(",\n")
}

/// A side of pictures; lists of them are parted before.
fn pixels(text: &str) -> Result<usize, String> {
    text.parse().map_err(|_| "expected whole numbers of pixels with commas between, as in 256,512".into())
}

/// `2G`, `512M`, `64K` (powers of 1024) or plain bytes.
fn bytes(text: &str) -> Result<u64, String> {
    let (digits, shift) = match text.as_bytes().last() {
        Some(b'K' | b'k') => (&text[..text.len() - 1], 10),
        Some(b'M' | b'm') => (&text[..text.len() - 1], 20),
        Some(b'G' | b'g') => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    let n: Option<u64> = digits.parse().ok();
    n.and_then(|n| n.checked_mul(1 << shift))
        .ok_or_else(|| "expected a whole number of bytes, or one with K, M or G (powers of 1024), as in 512M".into())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound_and_its_help_narrow() {
        let mut command = super::Cli::command();
        command.clone().debug_assert();
        let mut pages = vec![command.render_help().to_string(), command.render_long_help().to_string()];
        for sub in command.get_subcommands_mut() {
            pages.extend([sub.render_help().to_string(), sub.render_long_help().to_string()]);
        }
        let wide: Vec<&str> = pages.iter().flat_map(|page| page.lines()).filter(|l| l.chars().count() > 80).collect();
        assert_eq!(wide, [""; 0]);
    }

    #[test]
    fn bytes_have_units() {
        assert_eq!(super::bytes("512M"), Ok(512 << 20));
        assert_eq!(super::bytes("7"), Ok(7));
        assert!(super::bytes("1T").is_err() && super::bytes("").is_err() && super::bytes("99999999999G").is_err());
    }
}

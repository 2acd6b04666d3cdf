//! The command-line runner of an emitted crate: its `main.rs` is one call of [`main`].
//!
//! It takes raw RGB pixels rather than picture files, so that an emitted crate needs no decoders; `tvlmc run` decodes
//! and calls it. Results go to stdout, everything else to stderr.

mod args;
mod bench;
mod dump;
mod json;
mod profile;

use crate::answer::StopReason;
use crate::error::Error;
use crate::image::Rgb8;
use crate::model::{Model, OpenOptions};
use crate::picture::{Image, Pixels};
use crate::program::Program;
use crate::session::{Options, Session};
use args::{Args, RawImage};
use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Runs the command line of this process; the exit code is 0 for success, 2 for a wrong command line, 3 for bad input
/// and 4 for what the machine lacks.
pub fn main<P: Program>() -> ExitCode {
    let terminal = io::stdout().is_terminal();
    let arguments = std::env::args_os().skip(1);
    ExitCode::from(run::<P>(arguments, terminal, &mut io::stdout().lock(), &mut io::stderr()))
}

/// As [`main`], with everything it touches given: the arguments after the program's name, whether `out` is a terminal
/// (control characters are then shown, not sent), and where results and messages go. Returns the exit code.
pub fn run<P: Program>(
    arguments: impl Iterator<Item = OsString>,
    terminal: bool,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> u8 {
    let result = match args::parse(arguments) {
        Ok(None) => {
            let levels: Vec<&str> = P::LEVELS.iter().map(|level| level.name).collect();
            let info = P::info();
            let sides: Vec<String> = info.sides.iter().map(|known| known.side.to_string()).collect();
            let sides = (info.largest(), &sides.join(", ")[..]);
            let help = args::help(info.name, info.weights_name, &levels.join(" or "), sides);
            out.write_all(help.as_bytes()).map_err(Fault::Output)
        }
        Ok(Some(args)) => execute::<P>(&args, terminal, out, err),
        Err(reason) => Err(Fault::Usage(reason)),
    };
    let Err(fault) = result.and_then(|()| out.flush().map_err(Fault::Output)) else { return 0 };
    let (message, code) = match fault {
        Fault::Usage(reason) => (format!("{reason}; --help lists the options"), 2),
        Fault::Error(error) => (in_options(&error), error.exit_code()),
        // Who reads has heard enough: nothing is wrong.
        Fault::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => return 0,
        Fault::Output(error) => (format!("standard output: {error}"), 4),
    };
    // Nothing can be told when stderr is gone as well.
    let _ = writeln!(err, "error: {}", visible(&message));
    code
}

/// An error of the library in the words of a command line.
fn in_options(error: &Error) -> String {
    match error {
        Error::Argument { name, reason } if args::SESSION.contains(name) => format!("--{name}: {reason}"),
        Error::UnknownLevel { .. } => format!("--{error}"),
        Error::PromptTooLong { need, have } => format!(
            "the conversation needs {need} positions with this prompt, the model has {have}: shorten the prompt, or use \
             fewer pictures"
        ),
        other => other.to_string(),
    }
}

/// Why the runner failed.
enum Fault {
    Usage(String),
    Error(Error),
    Output(io::Error),
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

fn execute<P: Program>(args: &Args, terminal: bool, out: &mut dyn Write, err: &mut dyn Write) -> Result<(), Fault> {
    let begin = Instant::now();
    for side in &args.sides {
        known_side::<P>(*side)?;
    }
    let prompt = match (&args.prompt, &args.prompt_file) {
        (Some(text), _) => Some(text.clone()),
        (None, Some(path)) => Some(text_file(path)?),
        (None, None) => None,
    };
    let open = OpenOptions {
        verify: args.verify_mode(),
        residence: args.residence,
        threads: args.threads,
        level: args.level.as_deref(),
    };
    let weights = args.weights.as_deref().unwrap_or(Path::new(P::info().weights_name));
    let model = Model::<P>::open_with(weights, &open)?;
    if args.verify {
        return Ok(writeln!(out, "{}: intact, {} bytes", visible(model.weights().path()), model.weights().len())?);
    }
    if let Some(path) = &args.write_system {
        return Ok(std::fs::write(path, model.system_cache()?).map_err(|error| Error::File {
            path: path.display().to_string(),
            action: "write",
            reason: error.to_string(),
        })?);
    }
    let options = Options {
        max_new_tokens: args.max_new_tokens,
        ignore_eos: args.ignore_eos,
        sampler: args.sampler.clone(),
        threads: args.threads,
        // What is measured is the cost of a token, not how well it was guessed.
        speculation: args.speculate.unwrap_or(if args.bench.is_some() { 0 } else { usize::MAX }),
        ..Options::default()
    };
    let mut chat = model.session(options)?;
    let load = begin.elapsed();

    if let Some(runs) = args.bench {
        let line = bench::run(&mut chat, args, runs, prompt.as_deref())?;
        return Ok(writeln!(out, "{line}")?);
    }
    let profile = args.profile.then(|| profile::Profile::watch(&mut chat));
    if let Some(path) = &args.questions {
        questions(&mut chat, path, args.side(0), load, out)?;
    } else if let Some(prompt) = prompt {
        let dump = args.dump.as_deref().map(|folder| dump::Dump::watch(&mut chat, folder)).transpose()?;
        let mut images = Vec::new();
        for (i, raw) in args.images.iter().enumerate() {
            let seen = |pixels: &Pixels| dump.as_ref().map_or(Ok(()), |dump| dump.pixels(pixels));
            images.push(Encoded::new(&mut chat, raw, args.side(i), seen)?);
        }
        if args.json || dump.is_some() {
            let mut silent = |_: &str| Ok(());
            let (report, _) = answer(&mut chat, &images, &prompt, load, &mut silent, dump.as_ref())?;
            if args.json {
                writeln!(out, "{report}")?;
            }
        } else {
            let mut show = |piece: &str| {
                let text = if terminal { visible(piece) } else { piece.into() };
                out.write_all(text.as_bytes()).and_then(|()| out.flush())
            };
            let (_, stop) = answer(&mut chat, &images, &prompt, load, &mut show, None)?;
            writeln!(out)?;
            if let Some(note) = cut_off(stop, args).filter(|_| !args.quiet) {
                // When stderr is gone, nobody is left to tell.
                let _ = writeln!(err, "{note}");
            }
        }
    } else {
        return Err(Fault::Usage(
            "nothing to do: give --prompt, --prompt-file, --questions, --bench or --verify".into(),
        ));
    }
    if let Some(profile) = profile {
        profile.print(err);
    }
    Ok(())
}

/// Refuses a side that the model does not have.
fn known_side<P: Program>(side: usize) -> Result<(), Error> {
    let info = P::info();
    if info.sides.iter().any(|known| known.side == side) {
        return Ok(());
    }
    let known: Vec<String> = info.sides.iter().map(|known| known.side.to_string()).collect();
    Err(Error::Argument {
        name: "side",
        reason: format!("{side} is not of {}, which has {}", info.name, known.join(", ")),
    })
}

/// An encoded image and what it took.
struct Encoded {
    image: Image,
    /// Memory in use while it was made, besides the session: file, pixels, rows.
    bytes: usize,
}

impl Encoded {
    fn new<P: Program>(
        chat: &mut Session<'_, P>,
        raw: &RawImage,
        side: Option<usize>,
        seen: impl FnOnce(&Pixels) -> Result<(), Error>,
    ) -> Result<Self, Error> {
        let bytes = rgb_file(raw)?;
        let named = |error| match error {
            Error::Image { reason } => Error::Image { reason: format!("{}: {reason}", raw.path.display()) },
            other => other,
        };
        let rgb = Rgb8::new(raw.width, raw.height, &bytes).map_err(named)?;
        let pixels = chat.preprocess_at(&rgb, side.unwrap_or(P::info().largest())).map_err(named)?;
        seen(&pixels)?;
        let image = chat.encode(&pixels)?;
        let bytes = bytes.len() + pixels.bytes().len() + size_of_val(image.rows());
        Ok(Self { image, bytes })
    }
}

/// Says that an answer was not ended by the model, unless that was asked for.
fn cut_off(stop: Option<StopReason>, args: &Args) -> Option<String> {
    match stop {
        // Who asks for no answer knows that there is none.
        Some(StopReason::MaxTokens) if !args.ignore_eos && args.max_new_tokens > 0 => {
            Some(format!("note: the answer was cut off by --max-new-tokens {}", args.max_new_tokens))
        }
        Some(StopReason::ContextFull) => {
            Some("note: the answer was cut off: the conversation fills the model's context".into())
        }
        Some(StopReason::MaxTokens | StopReason::EndOfText | StopReason::Cancelled) | None => None,
    }
}

/// Answers one question, showing the text as it comes, and returns the report of `--json` and why the answer ended.
fn answer<P: Program>(
    chat: &mut Session<'_, P>,
    images: &[Encoded],
    prompt: &str,
    load: Duration,
    show: &mut dyn FnMut(&str) -> io::Result<()>,
    dump: Option<&dump::Dump>,
) -> Result<(String, Option<StopReason>), Fault> {
    let peak = chat.private_bytes() + images.iter().map(|image| image.bytes).sum::<usize>();
    let refs: Vec<&Image> = images.iter().map(|image| &image.image).collect();
    let mut answer = chat.ask(&refs, prompt)?;
    if let Some(dump) = dump {
        let ids = answer.prompt_token_ids().to_vec();
        dump.prompt(&ids, answer.logits()?)?;
    }
    let mut text = String::new();
    for piece in &mut answer {
        let piece = piece?;
        show(&piece)?;
        text.push_str(&piece);
    }
    if let Some(dump) = dump {
        let ids = answer.token_ids().to_vec();
        dump.finish(&ids, answer.logits()?)?;
    }
    let timings = answer.timings();
    let mut report = json::Object::new();
    report.text("text", &text);
    report.raw("token_ids", &json::array(answer.token_ids()));
    report.raw("prompt_token_ids", &json::array(answer.prompt_token_ids()));
    let mut times = json::Object::new();
    times.milliseconds("load", load);
    times.milliseconds("preprocess", refs.iter().map(|image| image.preprocess_time()).sum());
    times.milliseconds("vision", refs.iter().map(|image| image.vision_time()).sum());
    times.milliseconds("prefill", timings.prefill);
    times.milliseconds("decode_per_token", timings.decode_per_token());
    report.raw("timings_ms", &times.end());
    report.raw("drafted_tokens", &timings.drafted.to_string());
    report.raw("accepted_tokens", &timings.accepted.to_string());
    report.raw("peak_bytes", &peak.to_string());
    let stop = answer.stop_reason();
    Ok((report.end(), stop))
}

/// Answers every line of a file, each as a conversation of its own.
fn questions<P: Program>(
    chat: &mut Session<'_, P>,
    path: &Path,
    side: Option<usize>,
    load: Duration,
    out: &mut dyn Write,
) -> Result<(), Fault> {
    let text = text_file(path)?;
    let mut encoded: Option<(RawImage, Vec<Encoded>)> = None;
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.is_empty()) {
        let wrong = |reason: String| Error::File {
            path: format!("{}:{}", path.display(), number + 1),
            action: "read the question",
            reason,
        };
        let mut fields = line.splitn(3, '\t');
        let (Some(image), Some(size), Some(prompt)) = (fields.next(), fields.next(), fields.next()) else {
            let reason = "expected rgb-path, WxH and prompt, separated by tabs (an empty path for no image)";
            return Err(wrong(reason.into()).into());
        };
        // What the question before left is not used: the timings are of whole questions.
        chat.forget();
        let images = if image.is_empty() {
            &[][..]
        } else {
            let raw = args::sized(size, image.into()).map_err(wrong)?;
            if encoded.as_ref().is_none_or(|(known, _)| *known != raw) {
                let image = Encoded::new(chat, &raw, side, |_| Ok(()))?;
                encoded = Some((raw, vec![image]));
            }
            encoded.as_ref().map_or(&[][..], |(_, images)| images)
        };
        let (report, _) = answer(chat, images, prompt, load, &mut |_| Ok(()), None)?;
        writeln!(out, "{report}")?;
        out.flush()?;
    }
    Ok(())
}

fn text_file(path: &Path) -> Result<String, Error> {
    let failed = |reason: String| Error::File { path: path.display().to_string(), action: "read", reason };
    let bytes = std::fs::read(path).map_err(|error| failed(error.to_string()))?;
    String::from_utf8(bytes).map_err(|error| failed(format!("not UTF-8 at byte {}", error.utf8_error().valid_up_to())))
}

/// Reads raw pixels, whose length is checked before they are.
fn rgb_file(raw: &RawImage) -> Result<Vec<u8>, Error> {
    let failed = |error: io::Error| Error::File {
        path: raw.path.display().to_string(),
        action: "read",
        reason: error.to_string(),
    };
    let found = std::fs::metadata(&raw.path).map_err(failed)?.len();
    let (width, height) = (raw.width, raw.height);
    let expected = (width as u64).checked_mul(height as u64).and_then(|n| n.checked_mul(3));
    if expected != Some(found) {
        let expected = expected.map_or("more than can exist".into(), |n| n.to_string());
        let path = raw.path.display();
        let reason = format!("{path}: {found} bytes, expected {expected} for {width}x{height} pixels of 8-bit RGB");
        return Err(Error::Image { reason });
    }
    std::fs::read(&raw.path).map_err(failed)
}

/// `text` with control characters (except line feed and tab) made visible, so that no text can command a terminal.
fn visible(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        // Bidirectional overrides reorder what is around them.
        if (c.is_control() && c != '\n' && c != '\t') || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        {
            // Writing to a string cannot fail.
            let _ = write!(out, "{}", c.escape_unicode());
        } else {
            out.push(c);
        }
    }
    out
}

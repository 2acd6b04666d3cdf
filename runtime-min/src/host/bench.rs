//! `--bench`: each phase, several times.

use super::args::Args;
use super::{Encoded, json};
use crate::error::Error;
use crate::image::Rgb8;
use crate::picture::Image;
use crate::program::{Program, Step};
use crate::session::Session;
use std::time::{Duration, Instant};

/// Times vision, prefill and decoding `runs` times each; returns one JSON object.
pub fn run<P: Program>(
    chat: &mut Session<'_, P>,
    args: &Args,
    runs: usize,
    prompt: Option<&str>,
) -> Result<String, Error> {
    let prompt = prompt.unwrap_or("Describe the image.");
    let mut images = Vec::new();
    for (i, raw) in args.images.iter().enumerate() {
        images.push(Encoded::new(chat, raw, args.side(i), |_| Ok(()))?.image);
    }
    let side = args.side(0).unwrap_or(P::info().largest());
    // Without a picture any will do: no kernel's time depends on the values.
    let gradient: Vec<u8> = (0..side * side * 3).map(|i| (i / 7 % 256) as u8).collect();
    let pixels = chat.preprocess_at(&Rgb8::new(side, side, &gradient)?, side)?;
    if images.is_empty() {
        images.push(chat.encode(&pixels)?);
    }
    let refs: Vec<&Image> = images.iter().collect();

    let mut vision = Vec::with_capacity(runs);
    for _ in 0..runs {
        vision.push(chat.encode(&pixels)?.vision_time());
    }
    let (mut prefill, mut rows) = (Vec::with_capacity(runs), 0);
    chat.set_max_new_tokens(0);
    for _ in 0..runs {
        chat.forget();
        prefill.push(chat.ask(&refs, prompt)?.timings().prefill);
        rows = chat.position();
    }
    let mut verify = Vec::with_capacity(runs);
    for _ in 0..runs {
        verify.extend(chat.time_verify()?);
    }
    // From right after the prompt on, as far as the context goes.
    chat.set_ignore_eos(true);
    chat.set_max_new_tokens(runs + 1);
    chat.reset();
    let mut answer = chat.ask(&refs, prompt)?;
    let mut decode = Vec::with_capacity(runs);
    let mut done = answer.timings();
    let begin = Instant::now();
    while let Some(piece) = answer.next() {
        piece?;
        let now = answer.timings();
        // A piece may take several tokens to become whole.
        if now.decode_steps > done.decode_steps {
            let steps = u32::try_from(now.decode_steps - done.decode_steps).unwrap_or(u32::MAX);
            decode.push((now.decode - done.decode) / steps);
        }
        done = now;
    }
    let now = answer.timings();
    if decode.is_empty() && now.decode_steps > 0 {
        decode.push(now.decode_per_token());
    }
    let generation = begin.elapsed();

    let mut report = json::Object::new();
    report.text("model", P::info().name);
    report.text("level", chat.level());
    report.raw("threads", &chat.threads().to_string());
    report.raw("runs", &runs.to_string());
    report.raw("side", &side.to_string());
    report.raw("vision_ms", &summary(vision));
    report.raw("prefill_ms", &summary(prefill));
    report.raw("prefill_rows", &rows.to_string());
    report.raw("decode_ms", &summary(decode));
    report.raw("decode_steps", &now.decode_steps.to_string());
    if !verify.is_empty() {
        report.raw("verify_ms", &summary(verify));
        report.raw("verify_rows", &P::info().verify_rows.to_string());
    }
    report.milliseconds("generation_ms", generation);
    let [prefill, decode, _] = P::info().steps;
    let vision = P::info().sides.iter().find(|known| known.side == side).map_or(&[][..], |known| known.steps);
    let sum = |steps: &mut dyn Iterator<Item = &Step>| steps.map(|step| step.macs).sum::<u64>();
    let (vision, decode) = (sum(&mut vision.iter()), sum(&mut decode.iter()));
    // The head runs once, for the last row.
    let prefill = sum(&mut prefill.iter().filter(|step| step.rows == 0));
    report.raw("macs", &format!("{{\"vision\":{vision},\"prefill_row\":{prefill},\"decode\":{decode}}}"));
    report.raw("private_bytes", &chat.private_bytes().to_string());
    Ok(report.end())
}

fn summary(mut times: Vec<Duration>) -> String {
    times.sort();
    let mut object = json::Object::new();
    object.milliseconds("min", times.first().copied().unwrap_or_default());
    object.milliseconds("median", times.get(times.len() / 2).copied().unwrap_or_default());
    object.milliseconds("max", times.last().copied().unwrap_or_default());
    object.end()
}

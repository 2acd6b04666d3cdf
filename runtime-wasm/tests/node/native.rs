//! The same script with a native session, and the binary form of its `Info`.

use runtime_min::{
    Answer, CacheSlot, CancelToken, Cx, Error, Image, ImagePolicy, Info, Level, Model, Options, Program, Rgb8,
    SamplerOptions, Side, StopReason, Turn,
};
use serde_json::{Value, json};

use crate::common::{self, Fake, phases_of_fake};

/// The section `tvlmc.info`, as `runtime-wasm/src/info.rs` describes it.
pub fn info(info: &Info) -> Vec<u8> {
    let mut bytes = b"TVLMINF1".to_vec();
    let n = |bytes: &mut Vec<u8>, n: usize| bytes.extend((n as u32).to_le_bytes());
    for text in [info.name, info.system, info.weights_name] {
        n(&mut bytes, text.len());
        bytes.extend(text.as_bytes());
    }
    bytes.extend(info.digest);
    let Info { hidden, vocab, max_context, chunk, verify_rows, arena_bytes, scratch_bytes, weights_bytes, .. } = *info;
    let Info { image_rows_pitch, rows, rows_pitch, logits, logits_pitch, token, .. } = *info;
    for value in [hidden, vocab, max_context, chunk, verify_rows, arena_bytes, scratch_bytes, weights_bytes] {
        n(&mut bytes, value);
    }
    for value in [image_rows_pitch, rows, rows_pitch, logits, logits_pitch, token] {
        n(&mut bytes, value);
    }
    n(&mut bytes, info.baked.into());
    n(&mut bytes, info.late_logits.into());
    match info.policy {
        ImagePolicy::Pad { color: [r, g, b] } => bytes.extend([0, 0, 0, 0, r, g, b, 0]),
        ImagePolicy::Crop => bytes.extend([1, 0, 0, 0, 0, 0, 0, 0]),
    }
    n(&mut bytes, info.cache.len());
    for CacheSlot { slot, pieces, pitch, block, block_bytes } in info.cache {
        [slot, pieces, pitch, block, block_bytes].into_iter().for_each(|value| n(&mut bytes, *value));
    }
    n(&mut bytes, info.sides.len());
    for Side { side, tokens, input, rows, .. } in info.sides {
        [side, tokens, input, rows].into_iter().for_each(|value| n(&mut bytes, *value));
    }
    bytes
}

/// An `Info` that takes pictures of any side up to 64; the inputs lie behind everything else.
pub fn info_for_pictures(policy: ImagePolicy) -> Vec<u8> {
    let input = common::FAKE.arena_bytes;
    let sides: Vec<Side> = (1..=64).map(|side| Side { side, tokens: 1, input, rows: 0, steps: &[] }).collect();
    let arena_bytes = input + 66 * 66 * 3 * 4;
    info(&Info { sides: sides.leak(), arena_bytes, policy, ..common::FAKE })
}

/// A picture of the script.
fn pixels(action: &Value) -> (usize, usize, Vec<u8>) {
    let number = |key: &str| action[key].as_u64().expect("a number") as usize;
    let (width, height, value) = (number("width"), number("height"), number("value"));
    // As the script of Node makes it: three numbers for each pixel; RGBA has a fourth, which counts for nothing.
    (width, height, (0..width * height * 3).map(|i| (value + 7 * (i / 3) + 50 * (i % 3)) as u8).collect())
}

fn refusal(error: &Error) -> Value {
    json!({ "code": error.code(), "message": error.to_string() })
}

/// The test program, whose weight file holds the cache after the system message.
pub struct Baked;

impl Program for Baked {
    const LEVELS: &'static [Level] = &[Level { name: "plain", available: || true }];

    fn info() -> &'static Info {
        &Info { baked: true, ..common::FAKE }
    }

    fn with_level(_: usize) -> Self {
        Self
    }

    phases_of_fake!();

    fn embed(&self, cx: &Cx<'_>, id: u32, row: usize) {
        Fake.embed(cx, id, row);
    }
}

/// What the script shows, action by action.
pub fn talk<P: Program>(model: &Model<P>, script: &[Value]) -> Vec<Value> {
    let mut chat = model.session(Options::default()).expect("a session");
    let mut images: Vec<Image> = Vec::new();
    let mut shown = Vec::new();
    for action in script {
        let (kind, text) = (action["do"].as_str().expect("a kind"), action["text"].as_str().unwrap_or_default());
        let refs = |handles: &Value| -> Vec<&Image> {
            let handles = handles.as_array().map(Vec::as_slice).unwrap_or_default();
            handles.iter().map(|handle| &images[handle.as_u64().expect("a handle") as usize]).collect()
        };
        let asked = refs(&action["images"]);
        shown.push(match kind {
            "image" => {
                let (width, height, bytes) = pixels(action);
                let picture = Rgb8::new(width, height, &bytes).expect("a picture");
                let side = action["side"].as_u64().expect("a side") as usize;
                let sides: Vec<usize> = common::FAKE.sides.iter().map(|known| known.side).collect();
                let input = match side {
                    0 => chat.preprocess(&picture),
                    side if sides.contains(&side) => chat.preprocess_at(&picture, side),
                    side => {
                        let reason = format!("{side} is not of the model, which has 2 4");
                        Err(Error::Argument { name: "side", reason })
                    }
                };
                match input.and_then(|input| chat.encode(&input)) {
                    Ok(image) => {
                        let tokens = image.tokens();
                        images.push(image);
                        json!({ "tokens": tokens })
                    }
                    Err(error) => refusal(&error),
                }
            }
            "reset" => {
                chat.reset();
                json!({ "position": chat.position() })
            }
            "tokenize" => {
                let mut ids = Vec::new();
                model.tokenizer().encode(text, &mut ids).expect("room");
                json!({ "ids": ids })
            }
            "cancel" => {
                chat.set_max_new_tokens(50);
                chat.set_ignore_eos(true);
                chat.set_sampler(SamplerOptions::default()).expect("greedy");
                // Tokens that are there already would come together.
                chat.set_speculation(0);
                let (token, after) = (chat.cancel_token(), action["after"].as_u64().expect("a count") as usize);
                let answer = chat.ask(&[], text).map(|answer| finish(answer, Some((after, token))));
                let position = chat.position();
                with_position(answer, position)
            }
            _ => {
                let number = |key: &str| action["options"][key].as_f64();
                let d = SamplerOptions::default();
                let sampler = SamplerOptions {
                    temperature: number("temperature").map_or(d.temperature, |n| n as f32),
                    top_k: number("topK").map_or(d.top_k, |n| n as usize),
                    top_p: number("topP").map_or(d.top_p, |n| n as f32),
                    repetition_penalty: number("repetitionPenalty").map_or(d.repetition_penalty, |n| n as f32),
                    seed: number("seed").map_or(d.seed, |n| n as u64),
                };
                chat.set_max_new_tokens(number("maxNewTokens").map_or(256, |n| n as usize));
                chat.set_ignore_eos(action["options"]["ignoreEos"] == true);
                chat.set_speculation(number("speculation").map_or(255, |n| n as usize));
                let answer = match chat.set_sampler(sampler) {
                    Err(error) => Err(error),
                    Ok(()) if kind == "after" => {
                        let turns = action["turns"].as_array().expect("turns");
                        let of: Vec<Vec<&Image>> = turns.iter().map(|turn| refs(&turn["images"])).collect();
                        let text_of = |turn: &'_ Value, key: &str| turn[key].as_str().expect("a text").to_string();
                        let texts: Vec<[String; 2]> =
                            turns.iter().map(|turn| [text_of(turn, "question"), text_of(turn, "answer")]).collect();
                        let told: Vec<Turn<'_>> = of
                            .iter()
                            .zip(&texts)
                            .map(|(images, [question, answer])| Turn { images, question, answer })
                            .collect();
                        chat.ask_after(&told, &asked, text).map(|answer| finish(answer, None))
                    }
                    Ok(()) => chat.ask(&asked, text).map(|answer| finish(answer, None)),
                };
                let position = chat.position();
                with_position(answer, position)
            }
        });
    }
    shown
}

fn with_position(answer: Result<Value, Error>, position: usize) -> Value {
    match answer {
        Ok(mut answer) => {
            answer["position"] = json!(position);
            answer
        }
        Err(error) => refusal(&error),
    }
}

/// Reads an answer to its end, or until it is cancelled after that many pieces.
fn finish<P: Program>(mut answer: Answer<'_, '_, P>, cancel: Option<(usize, CancelToken)>) -> Value {
    let mut text = String::new();
    let mut pieces = 0;
    loop {
        if let Some((after, token)) = &cancel
            && pieces >= *after
        {
            token.cancel();
        }
        let Some(piece) = answer.next_piece() else { break };
        text += piece.expect("a piece");
        pieces += 1;
    }
    let stop = match answer.stop_reason().expect("an end") {
        StopReason::EndOfText => "end",
        StopReason::MaxTokens => "max-tokens",
        StopReason::ContextFull => "context-full",
        StopReason::Cancelled => "cancelled",
    };
    let times = answer.timings();
    let counts = [times.prefill_rows, times.decode_steps, times.drafted, times.accepted];
    json!({ "text": text, "tokens": answer.token_ids(), "prompt": answer.prompt_token_ids(), "stop": stop, "counts": counts })
}

//! The readme of an emitted crate.

use runtime_decode::Alpha;

use super::{Identity, TOOL_VERSION, WEIGHTS_NAME};
use crate::frontend::Licenses;
use crate::lower::{Phase, SlotId};
use crate::machine::{Machine, System};
use crate::pipeline::Prepared;

pub(super) fn readme(prepared: &Prepared, id: &Identity<'_>) -> String {
    let (program, memory) = (&prepared.program, &prepared.memory);
    let (name, library) = (id.name, id.name.replace('-', "_"));
    let alpha = super::manifest::alpha(prepared);
    let has_std = prepared.machine.has_std();
    let (example, build) = if has_std {
        (native_example(name, &library, alpha), native_build(prepared.machine))
    } else {
        (wasm_example(&library), wasm_build(id.target))
    };
    let options = if has_std { "  `Model::open_with` takes `OpenOptions`, such as the level.\n" } else { "" };
    let sides = if program.smaller.is_empty() { String::new() } else { several(prepared) };
    let chosen = if has_std { CHOSEN_WHEN_OPENED } else { CHOSEN_WHEN_BUILT };
    format!(
        "# {name}\n\n\
         A FastVLM model compiled by tvlmc {TOOL_VERSION} for `{target}`. It answers questions about pictures. The folder builds\n\
         offline with stable Rust, 1.90 or later, and needs nothing but itself (`decode`, for picture files, is beside it).\n\n\
         ## In a program\n\n\
         In `Cargo.toml`, with the path of this folder:\n\n\
         ```toml\n[dependencies]\n\
         {name} = {{ path = \"{name}\" }}\n\
         {name}-decode = {{ path = \"{name}/decode\" }}  # for picture files; takes the crate `image`\n```\n\n\
         {example}\
         - Pixels may come from anywhere and have any size. `decode` is a package of its own that only programs with picture files\n\
         \x20 need: with it cargo takes the crate `image` from its registry, without it everything is in this folder.\n\
         \x20 `Alpha::{alpha:?}` is what the reference makes of transparent pictures for this model.\n\
         - `ask` takes no picture, one, or several in order. A picture is encoded once and can be asked about again, also after\n\
         \x20 `chat.reset()`, which starts a new conversation.\n\
         - `chat.ask_after` takes the turns of a conversation that the program keeps itself, and asks on. What the session still\n\
         \x20 holds of one that began alike, pictures included, is not read again; `timings().prefill_rows` counts what was.\n\
         - `Options` has the longest answer, the threads and the sampler (greedy unless told otherwise), and how many tokens are\n\
         \x20 guessed and verified together, which makes answers that repeat something come sooner and changes no token.\n\
         {options}\
         {sides}\
         - To keep a conversation in a struct of yours, name it `{library}::Session<'m>`, where `'m` is how long the model lives\n\
         \x20 (in a `static` or behind `Box::leak` it is `'static`). A model is shared by threads, a session moves between them.\n\
         - To stop an answer, drop the iterator, or take `chat.cancel_token()` before asking and call `cancel()` on it in another\n\
         \x20 thread: the answer then ends, its `stop_reason()` is `Cancelled`, and a picture that is being encoded is given up\n\
         \x20 with `Error::Cancelled`.\n\
         - Everything that can fail returns `Error`, which names what was found, what was expected and what to do. It never\n\
         \x20 panics for bad input; `code()` is a short name for programs.\n\n\
         {build}\
         ## Sizes\n\n\
         | what | size |\n|---|---|\n\
         | weights; `{WEIGHTS_NAME}` holds the tokenizer too | {weights} |\n\
         | memory of a session, shared by its threads | {arena} |\n\
         | memory of each thread | {scratch} |\n\
         {pictures}\
         | context | {context} positions |\n\
         | levels | {levels}; {chosen} |\n\n\
         The numbers are constants of the library, `ARENA_BYTES` and the like.\n\n\
         ## What is here\n\n\
         `src/plan` holds the model as a flat list of kernel calls for each phase, `src/kernels` the kernels of each level, `runtime`\n\
         a copy of the runtime, `decode` the decoder of picture files{c}. `manifest.json` says what this was made from. Code and\n\
         weights carry one digest: a weight file made for other code is refused when it is opened.\n\n\
         ## License\n\n\
         {license}",
        target = id.target,
        c = if has_std { ", `c` the library for C" } else { "" },
        weights = mib(program.packs.total() * 4),
        arena = mib(memory.total),
        scratch = mib(program.scratch_bytes),
        pictures = pictures(prepared),
        context = program.context,
        levels = super::manifest::levels(prepared).join(", "),
        license = license(&prepared.licenses, "runtime"),
    )
}

/// How a picture gets another side than the largest.
fn several(prepared: &Prepared) -> String {
    let all = prepared.program.sides(&prepared.description);
    let names: Vec<String> = all.iter().map(|side| format!("`{}`", side.0)).collect();
    let example = all.first().map_or(0, |side| side.0);
    format!(
        "- A picture becomes a square of {} pixels a side: a smaller one is encoded sooner, takes fewer positions and shows less.\n\
         \x20 `let pixels = chat.preprocess_at(&rgb, {example})?; let picture = chat.encode(&pixels)?;` chooses, picture by picture;\n\
         \x20 `chat.image` takes the largest. `IMAGE_SIDES` lists them.\n",
        listed(&names, "or"),
    )
}

/// Words as a list: "1", "1 or 2", "1, 2 or 3".
pub(crate) fn listed(words: &[String], last: &str) -> String {
    match words {
        [] => String::new(),
        [one] => one.clone(),
        [first @ .., end] => format!("{} {last} {end}", first.join(", ")),
    }
}

/// The rows of a table of sizes that tell the sides of pictures.
pub(super) fn pictures(prepared: &Prepared) -> String {
    let row = |(side, tokens, ..): (usize, usize, SlotId, SlotId, &Phase)| {
        format!("| picture | {side} x {side} pixels, {tokens} positions |\n")
    };
    prepared.program.sides(&prepared.description).into_iter().rev().map(row).collect()
}

/// A size for people.
pub(super) fn mib(bytes: usize) -> String {
    format!("{:.1} MiB", bytes as f64 / (1 << 20) as f64)
}

const CHOSEN_WHEN_OPENED: &str = "the best one the processor has is chosen when the model is opened";
const CHOSEN_WHEN_BUILT: &str = "chosen when the crate is built, see above";

fn native_example(name: &str, library: &str, alpha: Alpha) -> String {
    format!(
        "```rust\n\
         use {library}::{{Model, Options, Rgb8}};\n\
         use {library}_decode::Alpha;\n\n\
         fn main() -> Result<(), Box<dyn std::error::Error>> {{\n\
         \x20   // Checks that the weights belong to this code.\n\
         \x20   let model = Model::open(\"{name}/{WEIGHTS_NAME}\")?;\n\
         \x20   // The memory and the threads of a conversation.\n\
         \x20   let mut chat = model.session(Options::default())?;\n\n\
         \x20   // PNG, JPEG, GIF, WebP, BMP or PNM, to rows of 8-bit red, green, blue. `exif: true` turns phone pictures upright.\n\
         \x20   let how = {library}_decode::Options {{ alpha: Alpha::{alpha:?}, exif: false }};\n\
         \x20   let photo = {library}_decode::open(\"photo.jpg\", how)?;\n\
         \x20   let picture = chat.image(&Rgb8::new(photo.width, photo.height, &photo.pixels)?)?;\n\n\
         \x20   for piece in chat.ask(&[&picture], \"What is on the table?\")? {{\n\
         \x20       print!(\"{{}}\", piece?);\n\
         \x20   }}\n\
         \x20   // The conversation goes on.\n\
         \x20   println!(\"\\n{{}}\", chat.ask(&[], \"What color is it?\")?.text()?);\n\
         \x20   Ok(())\n\
         }}\n\
         ```\n\n"
    )
}

/// How a crate is built for a machine with files and threads.
fn native_build(machine: Machine) -> String {
    let triple = machine.triple();
    match machine.system() {
        Some(System::Linux | System::MacOs) => {
            format!("{TERMINAL}Machines of another kind build it with `--target {triple}`.\n\n")
        }
        Some(System::Ios | System::IosSimulator | System::Android) | None => format!(
            "## In an app\n\n\
             \x20   cargo build --release --lib --target {triple}       # `rustup target add {triple}` installs what that takes\n\n\
             builds it as a dependency of an app that is written in Rust. For others, `c` is a library for C:\n\n\
             \x20   cargo rustc --release --target {triple} --crate-type staticlib\n\n\
             there makes `libtvlm.a`, whose header is `c/include/tvlm.h`; `tvlmc compile --emit staticlib` does so, and `--emit package` a package\n\
             for Xcode or Gradle.\n\n"
        ),
    }
}

const TERMINAL: &str = "## From a terminal\n\n\
         \x20   cargo run --release -- --prompt \"What is this?\" --rgb 640x480:picture.rgb\n\
         \x20   cargo run --release -- --help\n\n\
         in this folder. `picture.rgb` holds raw pixels, as `ffmpeg -i photo.jpg -pix_fmt rgb24 -f rawvideo picture.rgb` writes them;\n\
         `tvlmc run` takes this folder and picture files.\n\n";

/// As [`native_example`], where the program brings the weights.
fn wasm_example(library: &str) -> String {
    format!(
        "```rust\n\
         use {library}::{{Model, OpenOptions, Options, Rgb8, WeightBuffer}};\n\n\
         fn open(length: usize, pieces: &[(usize, Vec<u8>)]) -> Result<Model, {library}::Error> {{\n\
         \x20   // {WEIGHTS_NAME}, as the program fetches it: there is no second copy.\n\
         \x20   let mut weights = WeightBuffer::new(length)?;\n\
         \x20   for (at, piece) in pieces {{\n\
         \x20       weights.bytes_mut()[*at..][..piece.len()].copy_from_slice(piece);\n\
         \x20   }}\n\
         \x20   // Checks that the weights belong to this code, and all of their checksums.\n\
         \x20   Model::from_buffer(\"{WEIGHTS_NAME}\", weights, &OpenOptions::default())\n\
         }}\n\n\
         fn ask(model: &Model, width: usize, height: usize, rgb: &[u8]) -> Result<String, {library}::Error> {{\n\
         \x20   // The memory of a conversation.\n\
         \x20   let mut chat = model.session(Options::default())?;\n\
         \x20   let picture = chat.image(&Rgb8::new(width, height, rgb)?)?;\n\
         \x20   chat.ask(&[&picture], \"What is on the table?\")?.text()\n\
         }}\n\
         ```\n\n\
         `answer.next_piece()` gives an answer piece by piece. The crate is `no_std` (it takes an allocator, which a program with\n\
         `std` has) and works on one thread. Timings are zero until `set_clock` is given one.\n\n"
    )
}

fn wasm_build(target: &str) -> String {
    format!(
        "## Building\n\n\
         \x20   cargo build --release --target {target}\n\
         \x20   RUSTFLAGS=\"-C target-feature=+simd128,+relaxed-simd\" cargo build --release --target {target}\n\n\
         The second is faster and asks for an engine with relaxed SIMD: engines refuse a whole module for one instruction that they\n\
         lack, so a page that serves both has two builds and asks `WebAssembly.validate`. Models with integer weights (`int8`,\n\
         `int4`) have the same results in both; those of floats differ in the last bits.\n\n"
    )
}

/// What the weights and the code may be used for, as far as the checkpoint says; `ours` is the folder of the runtime's license.
pub(crate) fn license(licenses: &Licenses, ours: &str) -> String {
    let mut text = "The weights have the license of the checkpoint they were made from. ".to_string();
    if licenses.is_empty() {
        text += "**It came without one**: no LICENSE, NOTICE\n\
                 or COPYING lay beside the weights, and its README.md named none. Ask who published it before you pass this\n\
                 folder on.\n";
    } else {
        text += "What lay beside them:\n\n";
        for (key, value) in &licenses.declared {
            text += &format!("- `{key}: {value}` in the front matter of its README.md\n");
        }
        for license in &licenses.texts {
            let from = license.from.as_ref().map_or(String::new(), |from| format!(", a copy of its `{from}`"));
            text += &format!("- [{file}]({file}){from}\n", file = license.file);
        }
        if licenses.folders > 0 {
            text += "- a folder of licenses, which is not copied\n";
        }
        text += "\nWho passes this folder on passes on these too.\n";
    }
    text + &format!(
        "\nThe runtime is licensed under either of [MIT]({ours}/LICENSE-MIT) or [Apache 2.0]({ours}/LICENSE-APACHE), at your option.\n"
    )
}

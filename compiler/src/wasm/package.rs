//! The folder of a model for web pages: kernels modules, the runtime, the JavaScript around them, weights in pieces.
//!
//! Everything but the weights and what names their hashes is made in memory first. The weight file is written whole,
//! then cut into pieces: its header is known last and stands first.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use models::Recipe;
use models::recipe::Cache;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::module::{code, tell};
use super::{Variant, info, phases};
use crate::assemble::{Options, crate_name, hex, write_weights};
use crate::error::{Error, grouped};
use crate::frontend::{Checkpoint, OpenOptions, tokenizer_section};
use crate::lower::{Phase, Place};
use crate::machine::Machine;
use crate::output::{MANIFEST, Staging};
use crate::package::{self, Identity, LICENSES, TOOL_VERSION, WEIGHTS_NAME};
use crate::pipeline::{self, Prepared, Sides};
use crate::quant::QUANTIZATION_NAME;
use crate::shared_memory::share;

/// The target triple.
pub const TARGET: &str = Machine::Wasm.triple();

/// Sides of images that a model is compiled for beside its own unless others are asked for, those above it left out.
pub const SIDES: [usize; 4] = [256, 512, 768, 1024];

/// What goes into every folder as it is, but for placeholders: names and contents.
const PAGE: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/web.rs"));

/// The runtime's module for a memory of its own.
const RUNTIME: &str = "runtime.wasm";

/// The one for shared memory, made of it.
const SHARED_RUNTIME: &str = "runtime-shared.wasm";

/// The modules that this program was built with: names and contents.
const BUILT: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/runtime_wasm.rs"));

/// Bytes of the first piece, so that questions can be asked early, and of the others: a page has up to two copies of one while
/// it is checked.
const PIECES: [u64; 2] = [4 << 20, 8 << 20];

/// Most bytes that weights, arena and a dozen threads' scratch may take together: addresses have 32 bits, and the runtime
/// takes some.
const ADDRESSABLE: u64 = (4 << 30) - (64 << 20);

/// Where the pieces are, and what describes everything.
pub const WEIGHTS_FOLDER: &str = "weights";
const MODEL: &str = "model.json";

/// A model that is ready to be written for the web.
pub struct Web {
    /// Where it was read from.
    pub checkpoint: Checkpoint,
    /// The lowered model.
    pub prepared: Prepared,
    /// Its name.
    pub name: String,
    /// Pairs code and weights.
    pub digest: [u8; 32],
    /// The kernels modules, by variant.
    pub modules: Vec<(Variant, Vec<u8>)>,
    /// The runtime's modules by their names.
    runtimes: Vec<(&'static str, Vec<u8>)>,
    tokenizer: Vec<u8>,
    system: String,
    baked: Option<Vec<u8>>,
    checkpoint_digest: [u8; 32],
}

/// A piece of the weight file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Piece {
    name: String,
    bytes: u64,
    sha256: String,
}

/// Reads a checkpoint and makes all of its code; weights are read once for their digest. Images have the sides of the
/// options; if these name none, the model's own and those of `sides` that are smaller.
///
/// # Errors
/// As of `assemble`, and a model that takes more than 32 bits can address.
pub fn assemble(model: &Path, options: &Options<'_>, sides: &[usize]) -> Result<Web, Error> {
    let checkpoint = Checkpoint::open(model, &OpenOptions { allow_non_finite: options.allow_non_finite })?;
    let Options { context, dump, recipe, tuning, .. } = options;
    let (recipe, tuning) = (recipe.as_ref(), tuning.as_ref());
    let sides = options.sides.as_deref().map_or(Sides::Below(sides), Sides::These);
    let choices = pipeline::Options { context: *context, dump: *dump, recipe, tuning, machine: Machine::Wasm, sides };
    let prepared = pipeline::prepare(&checkpoint, &choices)?;
    let tokenizer = tokenizer_section(&checkpoint, &prepared.description)?;
    let name = options.name.map_or_else(|| crate_name(model), str::to_owned);
    package::check_name(&name)?;
    let checkpoint_digest = checkpoint.digest()?;
    let system = options.system.clone().unwrap_or_else(|| package::SYSTEM.to_owned());
    let baked = options.baked.clone();
    let mut web = Web {
        checkpoint,
        prepared,
        name,
        digest: [0; 32],
        modules: Vec::new(),
        runtimes: runtimes()?,
        tokenizer,
        system,
        baked,
        checkpoint_digest,
    };
    let need = web.weight_file_bytes() + web.session_bytes(12);
    if need > ADDRESSABLE {
        return Err(Error::Usage(format!(
            "{} bytes of weights and memory: a module of {TARGET} addresses {}; take a smaller --context, or --recipe int4",
            grouped(need),
            grouped(ADDRESSABLE)
        )));
    }
    for variant in Variant::of(&web.prepared) {
        web.modules.push((variant, code(&web.prepared, variant)?));
    }
    web.digest = web.pairing_digest();
    let told = info::info(&web.prepared, &web.identity());
    web.modules.iter_mut().for_each(|(_, module)| tell(module, &told));
    Ok(web)
}

/// Bytes rounded up to pages of the weight file.
fn page(n: u64) -> u64 {
    n.next_multiple_of(4096)
}

impl Web {
    fn identity(&self) -> Identity<'_> {
        let (checkpoint, system, baked) = (self.checkpoint_digest, self.system.as_str(), self.baked.is_some());
        Identity { name: &self.name, target: TARGET, digest: self.digest, checkpoint, system, baked }
    }

    /// The digest that pairs modules, which say nothing of themselves yet, and weights.
    fn pairing_digest(&self) -> [u8; 32] {
        let blank = info::info(&self.prepared, &self.identity());
        let mut hash = Sha256::new();
        hash.update(self.checkpoint_digest);
        hash.update(TOOL_VERSION);
        for bytes in self.modules.iter().map(|(_, bytes)| bytes).chain([&blank]) {
            hash.update((bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        }
        hash.finalize().into()
    }

    /// Bytes of the weight file before the weights: what the runtime opens.
    pub fn header_end(&self) -> u64 {
        let system = self.baked.as_ref().map_or(0, |baked| page(baked.len() as u64));
        4096 + page(self.tokenizer.len() as u64) + system
    }

    /// Bytes of the weight file.
    pub fn weight_file_bytes(&self) -> u64 {
        self.header_end() + 4 * self.prepared.program.packs.total() as u64
    }

    /// Bytes of memory beside the weights.
    pub fn session_bytes(&self, threads: u64) -> u64 {
        let line = |n: usize| (n as u64).next_multiple_of(64);
        line(self.prepared.memory.total) + threads * line(self.prepared.program.scratch_bytes)
    }

    /// Bytes of everything that is written, about: what names hashes is small.
    pub fn bytes(&self) -> u64 {
        let modules = self.modules.iter().map(|(_, bytes)| bytes.len() as u64).sum::<u64>();
        let fixed = PAGE.iter().map(|(_, bytes)| bytes.len() as u64).sum::<u64>();
        let fixed = fixed + self.runtimes.iter().map(|(_, bytes)| bytes.len() as u64).sum::<u64>();
        // The weight file is there twice while it is cut.
        2 * self.weight_file_bytes() + modules + fixed
    }

    /// Bytes of the code that one variant takes.
    pub fn code_bytes(&self) -> u64 {
        let runtime = self.runtimes.iter().map(|(_, bytes)| bytes.len() as u64).max().unwrap_or(0);
        runtime + self.modules.iter().map(|(_, bytes)| bytes.len() as u64).max().unwrap_or(0)
    }

    /// Writes all files; `progress` gets the bytes of weights written so far and may stop the work.
    ///
    /// # Errors
    /// The disk, a weight that is not finite, a checkpoint that changed meanwhile, or what `progress` says.
    pub fn write(&self, staging: &Staging, progress: &dyn Fn(u64) -> Result<(), Error>) -> Result<(), Error> {
        staging.reserve(self.bytes())?;
        fs::create_dir(staging.path(WEIGHTS_FOLDER)).map_err(Error::io("create", &staging.path(WEIGHTS_FOLDER)))?;
        let whole = staging.path(WEIGHTS_NAME);
        let mut before: Vec<(&str, &[u8])> = vec![("tokenizer", &self.tokenizer)];
        before.extend(self.baked.as_deref().map(|baked| ("system", baked)));
        let report = write_weights(
            (&self.prepared, &self.checkpoint),
            (&whole, self.digest, self.weight_file_bytes()),
            (&before, &[]),
            progress,
        )?;
        let (pieces, sha256) = self.cut(staging, &whole)?;
        fs::remove_file(&whole).map_err(Error::io("remove", &whole))?;
        for (path, bytes) in self.files(&pieces, &sha256)? {
            staging.write(&path, &bytes)?;
        }
        if let Some(report) = report {
            staging.write(QUANTIZATION_NAME, report.to_json().as_bytes())?;
        }
        self.checkpoint.check_unchanged()
    }

    /// Sizes of the pieces of a weight file.
    fn piece_bytes(&self) -> Vec<u64> {
        let (mut left, mut sizes) = (self.weight_file_bytes(), Vec::new());
        while left > 0 {
            let size = left.min(PIECES[sizes.len().min(1)]);
            sizes.push(size);
            left -= size;
        }
        sizes
    }

    fn cut(&self, staging: &Staging, whole: &Path) -> Result<(Vec<Piece>, String), Error> {
        let mut file = File::open(whole).map_err(Error::io("open", whole))?;
        let (mut all, mut pieces) = (Sha256::new(), Vec::new());
        for (i, size) in self.piece_bytes().into_iter().enumerate() {
            let mut bytes = vec![0; size as usize];
            file.read_exact(&mut bytes).map_err(Error::io("read", whole))?;
            let name = format!("{WEIGHTS_FOLDER}/weights-{i:05}.bin");
            staging.write(&name, &bytes)?;
            all.update(&bytes);
            pieces.push(Piece { name, bytes: size, sha256: hex(&Sha256::digest(&bytes)) });
        }
        Ok((pieces, hex(&all.finalize())))
    }

    /// What differs between a folder and what would be written now, one line for each file; empty if nothing does.
    ///
    /// # Errors
    /// A folder that cannot be read.
    pub fn differences(&self, out: &Path) -> Result<Vec<String>, Error> {
        let mut found = Vec::new();
        let (mut pieces, mut all) = (Vec::new(), Sha256::new());
        for (i, size) in self.piece_bytes().into_iter().enumerate() {
            let name = format!("{WEIGHTS_FOLDER}/weights-{i:05}.bin");
            let bytes = read(&out.join(&name))?;
            match &bytes {
                None => found.push(format!("{name}: is missing")),
                Some(bytes) if bytes.len() as u64 != size => {
                    found.push(format!("{name}: {} bytes, emitted now {size}", bytes.len()));
                }
                // Weights are those of their pairing digest, which stands in the first piece.
                Some(bytes) if i == 0 && bytes.get(32..64) != Some(&self.digest[..]) => {
                    found.push(format!("{name}: is of other code or another checkpoint"));
                }
                Some(_) => {}
            }
            let bytes = bytes.unwrap_or_default();
            all.update(&bytes);
            pieces.push(Piece { name, bytes: size, sha256: hex(&Sha256::digest(&bytes)) });
        }
        let mut expected = self.files(&pieces, &hex(&all.finalize()))?;
        for (path, bytes) in &expected {
            match read(&out.join(path))? {
                None => found.push(format!("{path}: is missing")),
                // Hashes of what is there: a piece that was damaged shows here.
                Some(there) if there != *bytes => found.push(format!("{path}: is not what would be emitted now")),
                Some(_) => {}
            }
        }
        expected.extend(pieces.into_iter().map(|piece| (piece.name, Vec::new())));
        if !self.prepared.recipe.is_float() {
            expected.insert(QUANTIZATION_NAME.to_string(), Vec::new());
        }
        let mut all = Vec::new();
        list(out, "", &mut all)?;
        found.extend(all.iter().filter(|p| !expected.contains_key(*p)).map(|p| format!("{p}: would not be emitted")));
        Ok(found)
    }

    /// Every file but the weights.
    fn files(&self, pieces: &[Piece], sha256: &str) -> Result<BTreeMap<String, Vec<u8>>, Error> {
        let mut files = BTreeMap::new();
        for (variant, bytes) in &self.modules {
            files.insert(format!("wasm/kernels-{}.wasm", variant.name), bytes.clone());
        }
        for (name, bytes) in &self.runtimes {
            files.insert(format!("wasm/{name}"), bytes.clone());
        }
        files.insert(MODEL.to_string(), self.model(pieces, sha256)?.into_bytes());
        let manifest = package::manifest(&self.prepared, &self.identity());
        files.insert(MANIFEST.to_string(), manifest.into_bytes());
        for (name, text) in LICENSES {
            files.insert(name.to_string(), text.as_bytes().to_vec());
        }
        for license in &self.prepared.licenses.texts {
            files.insert(license.file.clone(), license.text.clone().into_bytes());
        }
        let fetched: Vec<String> = std::iter::once(MODEL.to_string())
            .chain(files.keys().filter(|name| name.starts_with("wasm/")).cloned())
            .chain(pieces.iter().map(|piece| piece.name.clone()))
            .collect();
        let words = self.words(pieces.len());
        for (name, bytes) in PAGE {
            files.insert(name.to_string(), filled(name, bytes, &words, &fetched)?);
        }
        Ok(files)
    }

    /// What stands for the placeholders of the page's files.
    fn words(&self, n_pieces: usize) -> Vec<(&'static str, String)> {
        let licenses = &self.prepared.licenses;
        let weights = self.weight_file_bytes();
        let megabytes = |n: u64| format!("{:.1}", n as f64 / 1e6);
        let row = |name: &str, n: u64| format!("| {name} | {} |", grouped(n));
        let variants = self.modules.iter().map(|(variant, kernels)| {
            let runtime = self.runtimes.iter().find(|(name, _)| *name == runtime(*variant)).map_or(0, |(_, b)| b.len());
            row(&format!("code, {}", variant.name), (kernels.len() + runtime) as u64)
        });
        let sizes: Vec<String> = variants.chain([row("weights", weights)]).collect();
        let sides = self.prepared.program.sides(&self.prepared.description);
        let sides: Vec<String> = sides
            .iter()
            .enumerate()
            .map(|(i, (side, tokens, ..))| format!("| {side} | {tokens} | {} |", grouped(self.peak_bytes(i))))
            .collect();
        let license = licenses.texts.first().map_or("README.md", |text| text.file.as_str());
        vec![
            ("NPM_NAME", self.name.clone()),
            ("MODEL_NAME", self.name.clone()),
            ("TOOL_VERSION", TOOL_VERSION.to_string()),
            ("LICENSE", format!("SEE LICENSE IN {license}")),
            ("DIGEST", hex(&self.digest)),
            ("SIZES_TABLE", sizes.join("\n")),
            ("SIDES_TABLE", sides.join("\n")),
            ("WEIGHTS_MB", megabytes(weights)),
            ("TOTAL_MB", megabytes(weights + self.code_bytes())),
            ("CODE_KB", self.code_bytes().div_ceil(1000).to_string()),
            ("SHARDS", n_pieces.to_string()),
            ("MAX_CONTEXT", self.prepared.program.context.to_string()),
            ("LICENSE_NOTE", format!("License of the weights: {}.", licenses.summary())),
        ]
    }

    /// Bytes of weights and of what a session with one thread touches for images of one side, which counts from the smallest.
    fn peak_bytes(&self, side: usize) -> u64 {
        let line = |n: usize| (n as u64).next_multiple_of(64);
        self.weight_file_bytes() + line(self.prepared.memory.touched(side)) + line(self.prepared.program.scratch_bytes)
    }

    /// Bytes of the weight file that a list of operands takes.
    fn end(&self, places: &[Place]) -> u64 {
        let packs = &self.prepared.program.packs;
        let ends = places.iter().map(|place| match place {
            Place::Weight(pack) | Place::Scales(pack) | Place::Reach(pack) => {
                packs.offset(*pack) + 4 * packs.floats(*pack)
            }
            Place::Slot(..) | Place::Scratch => 0,
        });
        match ends.max() {
            None | Some(0) => 0,
            Some(end) => self.header_end() + end as u64,
        }
    }

    /// `model.json`.
    fn model(&self, pieces: &[Piece], sha256: &str) -> Result<String, Error> {
        let (program, description) = (&self.prepared.program, &self.prepared.description);
        let step = |step: &crate::lower::Step| StepOut {
            name: step.name.clone(),
            macs: step.macs,
            weights_end: self.end(&step.pointers),
        };
        let all = |(name, phase): (String, &Phase)| PhaseOut { name, steps: phase.steps.iter().map(step).collect() };
        let sides = program.sides(description).into_iter().enumerate();
        let modules = Variant::of(&self.prepared).into_iter().map(|variant| {
            let kernels = format!("wasm/kernels-{}.wasm", variant.name);
            (variant.name, ModuleOut { kernels, runtime: format!("wasm/{}", runtime(variant)) })
        });
        let model = ModelOut {
            format: 1,
            name: &self.name,
            tool_version: TOOL_VERSION,
            digest: hex(&self.digest),
            license: self.prepared.licenses.short(),
            recipe: &self.prepared.recipe,
            sides: sides
                .map(|(phase, (side, tokens, ..))| SideOut { side, tokens, phase, peak_bytes: self.peak_bytes(phase) })
                .collect(),
            kv: match self.prepared.recipe.cache {
                Cache::F32 => "f32",
                Cache::F16 => "f16",
                Cache::Int8 => "int8",
            },
            max_context: program.context,
            threads_default: THREADS,
            phases: phases(&self.prepared).into_iter().map(all).collect(),
            embed_weights_end: self.end(&program.embed_pointers),
            arena_bytes: self.prepared.memory.total,
            scratch_bytes_per_thread: program.scratch_bytes,
            file: FileOut { bytes: self.weight_file_bytes(), header_end: self.header_end(), sha256 },
            shards: pieces,
            modules: modules.collect(),
        };
        let mut text = serde_json::to_string(&model).map_err(|e| Error::Bug(e.to_string()))?;
        text.push('\n');
        Ok(text)
    }
}

/// Threads where the device has as many processors.
const THREADS: usize = 4;

/// File name of a variant's runtime.
fn runtime(variant: Variant) -> &'static str {
    if variant.shared { SHARED_RUNTIME } else { RUNTIME }
}

/// The runtime's modules.
///
/// # Errors
/// There is none in this program, or not one that could be shared.
fn runtimes() -> Result<Vec<(&'static str, Vec<u8>)>, Error> {
    let Some((_, own)) = BUILT.iter().find(|(name, _)| *name == RUNTIME) else {
        return Err(Error::Bug(format!("this program was built without {RUNTIME}")));
    };
    let shared = share(own).map_err(|e| Error::Bug(format!("{RUNTIME}: {e}")))?;
    Ok(vec![(RUNTIME, own.to_vec()), (SHARED_RUNTIME, shared)])
}

#[derive(Serialize)]
struct ModelOut<'a> {
    format: u32,
    name: &'a str,
    tool_version: &'a str,
    digest: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    license: Option<String>,
    recipe: &'a Recipe,
    sides: Vec<SideOut>,
    kv: &'static str,
    max_context: usize,
    threads_default: usize,
    phases: Vec<PhaseOut>,
    embed_weights_end: u64,
    arena_bytes: usize,
    scratch_bytes_per_thread: usize,
    file: FileOut<'a>,
    shards: &'a [Piece],
    modules: BTreeMap<&'static str, ModuleOut>,
}

#[derive(Serialize)]
struct SideOut {
    side: usize,
    tokens: usize,
    phase: usize,
    peak_bytes: u64,
}

#[derive(Serialize)]
struct PhaseOut {
    name: String,
    steps: Vec<StepOut>,
}

#[derive(Serialize)]
struct StepOut {
    name: String,
    macs: u64,
    /// Bytes of the weight file that must be there.
    weights_end: u64,
}

#[derive(Serialize)]
struct FileOut<'a> {
    bytes: u64,
    header_end: u64,
    sha256: &'a str,
}

#[derive(Serialize)]
struct ModuleOut {
    kernels: String,
    runtime: String,
}

/// Lines between these two name what is fetched.
const ASSETS_BEGIN: &str = "// tvlmc:assets begin";
const ASSETS_END: &str = "// tvlmc:assets end";

/// A file of the page with its placeholders filled.
fn filled(name: &str, bytes: &[u8], words: &[(&str, String)], fetched: &[String]) -> Result<Vec<u8>, Error> {
    let Ok(text) = std::str::from_utf8(bytes) else { return Ok(bytes.to_vec()) };
    let mut text = text.to_owned();
    for (word, value) in words {
        text = text.replace(&format!("{{{{{word}}}}}"), value);
    }
    if let (Some(begin), Some(end)) = (text.find(ASSETS_BEGIN), text.find(ASSETS_END)) {
        let lines =
            fetched.iter().map(|path| format!("\n  {path:?}: new URL({:?}, import.meta.url),", format!("../{path}")));
        let lines: String = lines.collect();
        text.replace_range(begin + ASSETS_BEGIN.len()..end, &format!("{lines}\n  "));
    }
    match text.find("{{") {
        Some(at) if text[at + 2..].starts_with(|c: char| c.is_ascii_uppercase()) => {
            Err(Error::Bug(format!("{name} has a placeholder that nothing fills: {:.40}", &text[at..])))
        }
        _ => Ok(text.into_bytes()),
    }
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::io("read", path)(e)),
    }
}

/// Paths of all files under a folder, with `/` between folders.
fn list(root: &Path, under: &str, out: &mut Vec<String>) -> Result<(), Error> {
    let folder = root.join(under);
    for entry in fs::read_dir(&folder).map_err(Error::io("read", &folder))? {
        let entry = entry.map_err(Error::io("read", &folder))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = if under.is_empty() { name } else { format!("{under}/{name}") };
        if entry.path().is_dir() { list(root, &path, out)? } else { out.push(path) }
    }
    out.sort();
    Ok(())
}

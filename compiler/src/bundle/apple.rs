//! A Swift package: the library for every system as an XCFramework, the Swift face, the weights, and a podspec for CocoaPods.
//!
//! The weights are a product of their own, so that an app which downloads them after its installation leaves them out.
//! They are copied as they are and mapped where the app's resources lie.

use std::collections::BTreeMap;

use plist::{Dictionary, Value};

use super::macho::{self, ARM64, Processor, X86_64, universal};
use super::{About, Slice, Weights, read, unfit, weights};
use crate::error::Error;
use crate::machine::{Machine, System};
use crate::output::Staging;
use crate::package::{HEADER, MODULE_MAP, TOOL_VERSION};

/// The Swift face by names.
const FACE: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/swift.rs"));

/// The folder of the weight file, `weights.tvlm`.
pub const WEIGHTS_FOLDER: &str = "Sources/TvlmWeights/Weights";

/// The folder of the Core ML model.
pub const MODEL_FOLDER: &str = "Sources/TvlmCoreML/Model";

/// Sources of the face for Core ML, for packages that have a model for it.
const COREML: &str = "Sources/TvlmCoreML";

/// The folder of the libraries.
const FRAMEWORK: &str = "CTvlm.xcframework";

/// What writes a Core ML model into a folder of the output, whose path ends in `/`.
pub type CoreMl<'a> = &'a dyn Fn(&Staging, &str) -> Result<(), Error>;

/// A folder of an XCFramework is for one of these, with one library for all of its processors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Platform {
    Ios,
    IosSimulator,
    MacOs,
}

impl Platform {
    /// As `Info.plist` names it: the platform and its variant.
    fn names(self) -> (&'static str, Option<&'static str>) {
        match self {
            Platform::Ios => ("ios", None),
            Platform::IosSimulator => ("ios", Some("simulator")),
            Platform::MacOs => ("macos", None),
        }
    }

    /// `PLATFORM_*` of `mach-o/loader.h`.
    fn number(self) -> u32 {
        match self {
            Platform::Ios => 2,
            Platform::IosSimulator => 7,
            Platform::MacOs => 1,
        }
    }

    fn of(system: System) -> Option<Platform> {
        match system {
            System::Ios => Some(Platform::Ios),
            System::IosSimulator => Some(Platform::IosSimulator),
            System::MacOs => Some(Platform::MacOs),
            System::Linux | System::Android => None,
        }
    }
}

fn place(machine: Machine) -> Option<(Platform, Processor)> {
    match machine {
        Machine::Aarch64(system) => Some((Platform::of(system)?, ARM64)),
        Machine::X86_64(system) => Some((Platform::of(system)?, X86_64)),
        Machine::Wasm | Machine::WasmRust => None,
    }
}

/// The folder of one platform.
struct Folder {
    platform: Platform,
    /// Names of processors, in order.
    processors: Vec<&'static str>,
    library: Vec<u8>,
}

impl Folder {
    /// `LibraryIdentifier`, as Xcode makes it.
    fn identifier(&self) -> String {
        let (platform, variant) = self.platform.names();
        let variant = variant.map_or(String::new(), |variant| format!("-{variant}"));
        format!("{platform}-{}{variant}", self.processors.join("_"))
    }

    fn entry(&self) -> Value {
        let (platform, variant) = self.platform.names();
        let text = |text: &str| Value::String(text.to_string());
        let mut entry = dictionary([
            ("BinaryPath", text("libtvlm.a")),
            ("HeadersPath", text("Headers")),
            ("LibraryIdentifier", Value::String(self.identifier())),
            ("LibraryPath", text("libtvlm.a")),
            ("SupportedArchitectures", Value::Array(self.processors.iter().map(|name| text(name)).collect())),
            ("SupportedPlatform", text(platform)),
        ]);
        if let Some(variant) = variant {
            entry.insert("SupportedPlatformVariant".to_string(), text(variant));
        }
        Value::Dictionary(entry)
    }
}

/// Writes a Swift package of libraries for Apple's systems. The weight file that `weight_file` writes has to belong to all of
/// them. With `coreml` there is a product `TvlmCoreML` whose resource is that model.
///
/// # Errors
/// [`Error::Usage`]: no library, two for one machine, one for another system, or a name or version that cannot be such.
/// [`Error::Environment`]: a file that is no archive for its machine. A file that cannot be read or written.
pub fn write(
    staging: &Staging,
    about: &About<'_>,
    slices: &[Slice<'_>],
    weight_file: Weights<'_>,
    coreml: Option<CoreMl<'_>>,
) -> Result<(), Error> {
    about.check()?;
    let folders = folders(slices)?;
    for folder in &folders {
        let path = |name: &str| format!("{FRAMEWORK}/{}/{name}", folder.identifier());
        staging.write(&path("libtvlm.a"), &folder.library)?;
        // Xcode copies the headers of all XCFrameworks into one folder, where two module maps would be one too many; in a folder
        // with the module's name compilers find it by themselves.
        staging.write(&path("Headers/CTvlm/tvlm.h"), HEADER.as_bytes())?;
        staging.write(&path("Headers/CTvlm/module.modulemap"), MODULE_MAP.as_bytes())?;
    }
    staging.write(&format!("{FRAMEWORK}/Info.plist"), &xml(info(&folders))?)?;
    for (name, text) in FACE.iter().filter(|(name, _)| coreml.is_some() || !name.starts_with(COREML)) {
        staging.write(name, text.as_bytes())?;
    }
    if let Some(write) = coreml {
        write(staging, &format!("{MODEL_FOLDER}/"))?;
    }
    staging.write("Sources/Tvlm/PrivacyInfo.xcprivacy", &xml(privacy())?)?;
    staging.write("Package.swift", manifest(about.name, coreml.is_some()).as_bytes())?;
    staging.write(&format!("{}.podspec", about.name), podspec(about, coreml.is_some()).as_bytes())?;
    staging.write("README.md", readme(about, &folders, coreml.is_some()).as_bytes())?;
    about.write(staging)?;
    weights(staging, weight_file, WEIGHTS_FOLDER)
}

fn folders(slices: &[Slice<'_>]) -> Result<Vec<Folder>, Error> {
    let mut platforms: BTreeMap<Platform, Vec<(Processor, Vec<u8>)>> = BTreeMap::new();
    for (slice, library) in read(slices)? {
        let Some((platform, processor)) = place(slice.machine) else {
            let triple = slice.machine.triple();
            return Err(Error::Usage(format!("{triple} is no system of Apple: a Swift package has no place for it")));
        };
        let Some(made) = macho::made_for(&library) else {
            return Err(unfit(&slice, "is no archive of objects for Apple's systems"));
        };
        if made.cputype != processor.numbers[0] || made.platform.is_some_and(|number| number != platform.number()) {
            return Err(unfit(&slice, "was built for another machine"));
        }
        platforms.entry(platform).or_default().push((processor, library));
    }
    let folder = |(platform, mut files): (Platform, Vec<(Processor, Vec<u8>)>)| {
        files.sort_by_key(|(processor, _)| processor.name);
        let processors = files.iter().map(|(processor, _)| processor.name).collect();
        let library = match &mut files[..] {
            [(_, only)] => std::mem::take(only),
            several => {
                let several: Vec<(Processor, &[u8])> = several.iter().map(|(p, bytes)| (*p, &bytes[..])).collect();
                universal(&several).ok_or_else(|| Error::Bug("libraries of more than 4 GiB".to_string()))?
            }
        };
        Ok(Folder { platform, processors, library })
    };
    platforms.into_iter().map(folder).collect()
}

fn dictionary<const N: usize>(entries: [(&str, Value); N]) -> Dictionary {
    entries.into_iter().map(|(key, value)| (key.to_string(), value)).collect()
}

fn xml(value: Dictionary) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    let written = Value::Dictionary(value).to_writer_xml(&mut bytes);
    written.map_err(|e| Error::Bug(format!("a property list cannot be written: {e}")))?;
    bytes.push(b'\n');
    Ok(bytes)
}

fn info(folders: &[Folder]) -> Dictionary {
    dictionary([
        ("AvailableLibraries", Value::Array(folders.iter().map(Folder::entry).collect())),
        ("CFBundlePackageType", Value::String("XFWK".to_string())),
        ("XCFrameworkFormatVersion", Value::String("1.0".to_string())),
    ])
}

/// What Apple asks of libraries: nothing is collected and nobody tracked.
///
/// Of the functions that need a reason, a built library refers to one, `fstat`, for the size of the weight file: `C617.1` is
/// metadata of files that the app has itself. Clocks are read by `clock_gettime`, which needs none. The static library has no
/// place for this file, so it goes with the resources of the Swift face.
fn privacy() -> Dictionary {
    let text = |text: &str| Value::String(text.to_string());
    let fstat = dictionary([
        ("NSPrivacyAccessedAPIType", text("NSPrivacyAccessedAPICategoryFileTimestamp")),
        ("NSPrivacyAccessedAPITypeReasons", Value::Array(vec![text("C617.1")])),
    ]);
    dictionary([
        ("NSPrivacyAccessedAPITypes", Value::Array(vec![Value::Dictionary(fstat)])),
        ("NSPrivacyCollectedDataTypes", Value::Array(vec![])),
        ("NSPrivacyTracking", Value::Boolean(false)),
        ("NSPrivacyTrackingDomains", Value::Array(vec![])),
    ])
}

fn manifest(name: &str, coreml: bool) -> String {
    let (product, target) = if coreml { (COREML_PRODUCT, COREML_TARGET) } else { ("", "") };
    format!(
        "// swift-tools-version:5.9\n\
         // Written by tvlmc {TOOL_VERSION}.\n\
         import PackageDescription\n\n\
         let package = Package(\n\
         \x20   name: \"{name}\",\n\
         \x20   platforms: [.iOS(.v15), .macOS(.v12)],\n\
         \x20   products: [\n\
         \x20       .library(name: \"Tvlm\", targets: [\"Tvlm\"]),\n\
         \x20       // The weight file as a resource: left out by apps that download it.\n\
         \x20       .library(name: \"TvlmWeights\", targets: [\"TvlmWeights\"]),\n\
         {product}\
         \x20   ],\n\
         \x20   targets: [\n\
         \x20       .binaryTarget(name: \"CTvlm\", path: \"{FRAMEWORK}\"),\n\
         \x20       .target(name: \"Tvlm\", dependencies: [\"CTvlm\"], resources: [.copy(\"PrivacyInfo.xcprivacy\")]),\n\
         \x20       .target(name: \"TvlmWeights\", resources: [.copy(\"Weights\")]),\n\
         {target}\
         \x20   ]\n\
         )\n"
    )
}

/// The product and the target of a Core ML model. The model is copied as it is: compiling it is left to the device, so that the
/// package can be built where there is no Xcode.
const COREML_PRODUCT: &str = "\
    \x20       // The vision tower for Core ML: left out by apps that do not use it.\n\
    \x20       .library(name: \"TvlmCoreML\", targets: [\"TvlmCoreML\"]),\n";
const COREML_TARGET: &str =
    "        .target(name: \"TvlmCoreML\", dependencies: [\"Tvlm\"], resources: [.copy(\"Model\")]),\n";

fn coreml_subspec(name: &str) -> String {
    format!(
        "\x20 # The vision tower for Core ML: apps that use it take '{name}/CoreML' too.\n\
         \x20 s.subspec 'CoreML' do |coreml|\n\
         \x20   coreml.dependency '{name}/Core'\n\
         \x20   coreml.source_files = '{COREML}/*.swift'\n\
         \x20   coreml.resource_bundles = {{ 'TvlmCoreML' => ['{MODEL_FOLDER}/*.mlpackage'] }}\n\
         \x20 end\n"
    )
}

fn podspec(about: &About<'_>, coreml: bool) -> String {
    let About { name, version, .. } = about;
    let subspec = if coreml { coreml_subspec(name) } else { String::new() };
    format!(
        "# Written by tvlmc {TOOL_VERSION}. In a Podfile: pod '{name}', :path => 'path/of/this/folder'\n\
         Pod::Spec.new do |s|\n\
         \x20 s.name = '{name}'\n\
         \x20 s.version = '{version}'\n\
         \x20 s.summary = 'A FastVLM model: questions about pictures, answered on the device.'\n\
         \x20 s.homepage = 'https://github.com/apple/ml-fastvlm'\n\
         \x20 s.license = {{ :type => 'see README.md', :file => 'README.md' }}\n\
         \x20 s.author = 'tvlmc'\n\
         \x20 s.source = {{ :path => '.' }}\n\
         \x20 s.swift_version = '5.9'\n\
         \x20 s.ios.deployment_target = '15.0'\n\
         \x20 s.osx.deployment_target = '12.0'\n\
         \x20 s.module_name = 'Tvlm'\n\
         \x20 s.vendored_frameworks = '{FRAMEWORK}'\n\
         \x20 s.default_subspecs = 'Core', 'Weights'\n\
         \x20 s.subspec 'Core' do |core|\n\
         \x20   core.source_files = 'Sources/Tvlm/*.swift'\n\
         \x20   core.resource_bundles = {{ 'TvlmPrivacy' => ['Sources/Tvlm/PrivacyInfo.xcprivacy'] }}\n\
         \x20 end\n\
         \x20 # The weight file as a resource: apps that download it take only '{name}/Core'.\n\
         \x20 s.subspec 'Weights' do |weights|\n\
         \x20   weights.source_files = 'Sources/TvlmWeights/*.swift'\n\
         \x20   weights.resource_bundles = {{ 'TvlmWeights' => ['{WEIGHTS_FOLDER}/weights.tvlm'] }}\n\
         \x20 end\n\
         {subspec}\
         end\n"
    )
}

/// What an app has to be told that runs in the simulator first.
const NO_SIMULATOR: &str = "\nThe simulator of iOS is not among them: rustc had no standard library for it (`rustup target add aarch64-apple-ios-sim`).";

/// What an app has to be told that has a Core ML model.
const COREML_README: &str = "\
## Core ML\n\n\
`Sources/TvlmCoreML/Model` holds the vision tower and the projector as a Core ML model with weights of 16-bit floats, for the\n\
Neural Engine and the GPU. Add the library `TvlmCoreML` to the app (in a Podfile the subspec `CoreML`) and pass it:\n\n\
```swift\n\
import TvlmCoreML\n\n\
var options = TvlmModel.Options()\n\
options.delegate = try await TvlmCoreML.load(computeUnits: .all)\n\
let model = try TvlmModel(contentsOf: TvlmWeights.url, options: options)\n\
```\n\n\
- The first `load` on a device compiles the model, which takes seconds to minutes; the result is kept among the app's caches.\n\
- Rows are computed with 16-bit floats and differ a little from those of the processor; so may answers.\n\
- A picture that Core ML fails on is encoded by the processor; after one whose rows are infinite or NaN, all are. The model was\n\
\x20 not run by Core ML when this package was written: compare answers with and without it before an app is published.\n\n";

fn readme(about: &About<'_>, folders: &[Folder], coreml: bool) -> String {
    let name = about.name;
    let identifiers: Vec<String> = folders.iter().map(|folder| format!("`{}`", folder.identifier())).collect();
    let simulator = identifiers.iter().any(|identifier| identifier.contains("simulator"));
    format!(
        "# {name}\n\n\
         A FastVLM model compiled by tvlmc {TOOL_VERSION} as a Swift package, for iOS 15, macOS 12 and later. It answers questions about\n\
         pictures on the device, without network. Libraries: {identifiers}.{missing}\n\n\
         ## In an app\n\n\
         In Xcode: File, Add Package Dependencies, Add Local, this folder; then add the libraries `Tvlm` and `TvlmWeights` to the app.\n\
         In a `Package.swift`: `.package(path: \"FOLDER\")`, and `.product(name: \"Tvlm\", package: \"LAST\")` with the last part of\n\
         that path. In a Podfile: `pod '{name}', :path => 'FOLDER'`; there all is in one module, `Tvlm`.\n\n\
         ```swift\n\
         import Tvlm\n\
         import TvlmWeights\n\n\
         let model = try TvlmModel(contentsOf: TvlmWeights.url)\n\
         let chat = try model.session()\n\
         let photo = try await chat.image(cgImage)\n\
         for try await piece in chat.ask(\"What is on the table?\", about: [photo]) {{\n\
         \x20   print(piece, terminator: \"\")\n\
         }}\n\
         // The conversation goes on.\n\
         print(try await chat.answer(\"What color is it?\").text)\n\
         ```\n\n\
         - A model is opened once and shared. A session has its own memory and threads and does one thing after the other, on a queue\n\
         \x20 of its own; nothing here blocks the caller.\n\
         - Whoever stops iterating, or cancels the task, stops the answer.\n\
         - `image` takes a `UIImage` or `NSImage` as it is meant to be seen, a `CGImage`, drawn on white, or a `CVPixelBuffer`: the\n\
         \x20 formats 420f, 420v and 32BGRA, which cameras have, are taken as they are. A `CVPixelBuffer` and a `CGImage` do not know\n\
         \x20 their orientation: have the camera turn them (`videoRotationAngle` of its connection). A picture is encoded\n\
         \x20 once and can be asked about again, also after `reset()`.\n\
         - A model compiled with several `--sides` lists them in `model.info.sides`; `image` takes one, otherwise the largest: a smaller\n\
         \x20 picture is encoded sooner, takes fewer positions and shows less.\n\
         - What goes wrong is a `TvlmError`: a `code` for programs and a message for developers.\n\
         - `TvlmPhone(watching: [chat])`, kept for as long as it is to act, keeps sessions in step with heat, low-power mode and\n\
         \x20 memory warnings; `pause()` and `resume()` are for the background, `save(to:)`, `restore(from:)` and `rest()`, which goes on with\n\
         \x20 an answer that was cut off, for the end of the process. A hot phone gets fewer threads and, when it is serious, smaller pictures unless the app gives a side; answers\n\
         \x20 about the same picture do not change.\n\n\
         ## Weights\n\n\
         `TvlmWeights` puts the weight file into the app. One of 256 MB or more is mapped unless told otherwise: pages of it can be\n\
         dropped and do not count as the app's memory. An app that downloads it, so that its own download stays small, leaves `TvlmWeights` out and passes\n\
         `TvlmModel` the URL of the file; exclude that from backups (`isExcludedFromBackup`). Library and weights are checked to\n\
         belong to each other.\n\n\
         {coreml}\
         ## Before it is published\n\n\
         - `PrivacyInfo.xcprivacy` says that nothing is collected, and that the size of the weight file is read. An app that lets\n\
         \x20 people choose that file adds the reason `3B52.1` to its own.\n\
         - An app has one model of this kind: the functions of two would have the same names. Other static libraries\n\
         \x20 written in Rust can clash with this one in the function `rust_eh_personality`.\n\n\
         ## License\n\n\
         {license}",
        identifiers = identifiers.join(", "),
        missing = if simulator { "" } else { NO_SIMULATOR },
        coreml = if coreml { COREML_README } else { "" },
        license = about.license(),
    )
}

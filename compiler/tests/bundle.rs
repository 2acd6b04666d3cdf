//! Packages for app developers: everything that Xcode and Gradle look for is there and says the same.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};
use std::process::Command;

use models::Recipe;
use plist::Value;
use tvlmc::Error;
use tvlmc::assemble::{self, Options};
use tvlmc::bundle::{About, Slice, Weights, android, apple};
use tvlmc::frontend::Licenses;
use tvlmc::machine::{Machine, System};
use tvlmc::output::Staging;
use tvlmc::package::WEIGHTS_NAME;

const WEIGHTS: &[u8] = b"weights";

/// An archive of one empty object for a processor and a platform.
fn archive(cputype: u32, platform: u32) -> Vec<u8> {
    let words = [0xfeed_facf, cputype, 0, 1, 1, 24, 0, 0, 0x32, 24, platform, 0, 0, 0];
    let object: Vec<u8> = words.iter().flat_map(|word: &u32| word.to_le_bytes()).collect();
    let header = format!("{:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n", "a.o/", 0, 0, 0, 0, object.len());
    [b"!<arch>\n", header.as_bytes(), &object].concat()
}

/// Machines and libraries for them.
type Libraries = Vec<(Machine, Vec<u8>)>;

/// What writes a package, given the weight file too.
type Write = dyn Fn(&Staging, &About<'_>, &[Slice<'_>], Weights<'_>) -> Result<(), Error>;

/// A shared object of one empty segment.
fn shared(machine: u16, align: u64) -> Vec<u8> {
    let mut bytes = vec![0; 64 + 56];
    let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
    put(0, b"\x7fELF\x02\x01\x01");
    put(16, &3_u16.to_le_bytes());
    put(18, &machine.to_le_bytes());
    put(32, &64_u64.to_le_bytes());
    put(54, &56_u16.to_le_bytes());
    put(56, &1_u16.to_le_bytes());
    put(64, &1_u32.to_le_bytes());
    put(64 + 48, &align.to_le_bytes());
    bytes
}

const ARM64: u32 = 0x0100_000c;
const X86_64: u32 = 0x0100_0007;

fn apple_libraries() -> Libraries {
    vec![
        (Machine::X86_64(System::IosSimulator), archive(X86_64, 7)),
        (Machine::Aarch64(System::IosSimulator), archive(ARM64, 7)),
        (Machine::Aarch64(System::Ios), archive(ARM64, 2)),
        (Machine::Aarch64(System::MacOs), archive(ARM64, 1)),
        (Machine::X86_64(System::MacOs), archive(X86_64, 1)),
    ]
}

fn android_libraries() -> Libraries {
    vec![(Machine::Aarch64(System::Android), shared(183, 16384)), (Machine::X86_64(System::Android), shared(62, 65536))]
}

/// Writes a package of libraries into a new folder.
fn write(libraries: &[(Machine, Vec<u8>)], version: &str, package: &Write) -> Result<tempfile::TempDir, Error> {
    let root = tempfile::tempdir().expect("a folder");
    let place = |name: String, bytes: &[u8]| {
        let path = root.path().join(name);
        fs::write(&path, bytes).expect("written");
        path
    };
    let named = libraries.iter().enumerate();
    let files: Vec<(Machine, PathBuf)> =
        named.map(|(i, (machine, bytes))| (*machine, place(format!("lib{i}"), bytes))).collect();
    let slices: Vec<Slice<'_>> = files.iter().map(|(machine, library)| Slice { machine: *machine, library }).collect();
    let licenses = Licenses::default();
    let about = About { name: "my-model", version, manifest: "{}\n", licenses: &licenses };
    let staging = Staging::begin(&root.path().join("out"), false)?;
    package(&staging, &about, &slices, &|path| {
        fs::write(path, WEIGHTS).expect("written");
        Ok(())
    })?;
    staging.commit()?;
    Ok(root)
}

fn write_apple(libraries: &[(Machine, Vec<u8>)]) -> Result<tempfile::TempDir, Error> {
    write(libraries, "1.2.0", &|staging, about, slices, weights| apple::write(staging, about, slices, weights, None))
}

fn write_android(libraries: &[(Machine, Vec<u8>)]) -> Result<tempfile::TempDir, Error> {
    write(libraries, "1.2.0", &|staging, about, slices, weights| {
        android::write(staging, about, android::GROUP, slices, weights)
    })
}

/// All files of the package by their paths.
fn files(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![root.join("out")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(root.join("out")).expect("inside").to_string_lossy().into_owned();
                files.insert(name, fs::read(&path).expect("a file"));
            }
        }
    }
    files
}

fn text(files: &BTreeMap<String, Vec<u8>>, name: &str) -> String {
    let bytes = files.get(name).unwrap_or_else(|| panic!("no {name} among {:?}", files.keys()));
    String::from_utf8(bytes.clone()).expect("UTF-8")
}

fn unzip(bytes: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let mut archive = zip::ZipArchive::new(Cursor::new(bytes)).expect("an archive");
    let mut files = BTreeMap::new();
    for i in 0..archive.len() {
        let mut file = archive.by_index(i).expect("an entry");
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).expect("read");
        files.insert(file.name().expect("UTF-8").into_owned(), bytes);
    }
    files
}

fn has_javac() -> bool {
    let has = Command::new("javac").arg("-version").output().is_ok_and(|out| out.status.success());
    if !has {
        println!("skipped: archives for Android, as there is no javac here");
    }
    has
}

#[test]
fn a_swift_package_has_a_library_for_every_system() {
    let root = write_apple(&apple_libraries()).unwrap_or_else(|e| panic!("{e}"));
    let files = files(root.path());
    let info = Value::from_reader_xml(&files["CTvlm.xcframework/Info.plist"][..]).expect("a property list");
    let info = info.as_dictionary().expect("a dictionary");
    let word = |from: &plist::Dictionary, key: &str| from.get(key).and_then(Value::as_string).map(str::to_string);
    assert_eq!(word(info, "CFBundlePackageType").as_deref(), Some("XFWK"));
    assert_eq!(word(info, "XCFrameworkFormatVersion").as_deref(), Some("1.0"));
    let mut told = String::new();
    for entry in info.get("AvailableLibraries").and_then(Value::as_array).expect("libraries") {
        let entry = entry.as_dictionary().expect("a dictionary");
        let processors = entry.get("SupportedArchitectures").and_then(Value::as_array).expect("processors");
        let processors: Vec<&str> = processors.iter().filter_map(Value::as_string).collect();
        let identifier = word(entry, "LibraryIdentifier").expect("an identifier");
        let system = (word(entry, "SupportedPlatform"), word(entry, "SupportedPlatformVariant"));
        told +=
            &format!("{identifier} {processors:?} {} {}\n", system.0.unwrap_or_default(), system.1.unwrap_or_default());
        let folder = format!("CTvlm.xcframework/{identifier}");
        let library = &files[&format!("{folder}/{}", word(entry, "LibraryPath").expect("a library"))];
        // More than one processor lie behind a table, one stands for itself.
        assert_eq!(library.starts_with(&[0xca, 0xfe, 0xba, 0xbe]), processors.len() > 1);
        assert_eq!(library.starts_with(b"!<arch>\n"), processors.len() == 1);
        let headers = format!("{folder}/{}/CTvlm", word(entry, "HeadersPath").expect("headers"));
        assert!(text(&files, &format!("{headers}/module.modulemap")).contains("module CTvlm {\n    header \"tvlm.h\""));
        assert!(text(&files, &format!("{headers}/tvlm.h")).contains("tvlm_model_open"));
    }
    assert_eq!(
        told,
        "ios-arm64 [\"arm64\"] ios \n\
         ios-arm64_x86_64-simulator [\"arm64\", \"x86_64\"] ios simulator\n\
         macos-arm64_x86_64 [\"arm64\", \"x86_64\"] macos \n"
    );
    assert_eq!(files["Sources/TvlmWeights/Weights/weights.tvlm"], WEIGHTS);
    let privacy = Value::from_reader_xml(&files["Sources/Tvlm/PrivacyInfo.xcprivacy"][..]).expect("a property list");
    let privacy = privacy.as_dictionary().expect("a dictionary");
    assert_eq!(privacy.get("NSPrivacyTracking").and_then(Value::as_boolean), Some(false));
    // What the manifests name is there.
    let manifest = text(&files, "Package.swift");
    assert!(manifest.contains("name: \"my-model\"") && manifest.contains("path: \"CTvlm.xcframework\""), "{manifest}");
    for source in ["TvlmCamera", "TvlmError", "TvlmImage", "TvlmModel", "TvlmPhone", "TvlmSession"] {
        assert!(text(&files, &format!("Sources/Tvlm/{source}.swift")).contains("import CTvlm\n"));
    }
    let pod = text(&files, "my-model.podspec");
    assert!(pod.contains("s.version = '1.2.0'") && pod.contains("'Sources/TvlmWeights/Weights/weights.tvlm'"), "{pod}");
    assert!(files.contains_key("manifest.json") && files.contains_key("licenses/LICENSE-MIT"));
    let again = write_apple(&apple_libraries()).unwrap_or_else(|e| panic!("{e}"));
    assert!(self::files(again.path()) == files, "the same libraries make the same bytes");
}

#[test]
fn a_core_ml_model_is_a_product_of_its_own() {
    let without = write_apple(&apple_libraries()).unwrap_or_else(|e| panic!("{e}"));
    let without = files(without.path());
    assert!(without.keys().all(|name| !name.contains("CoreML")) && !text(&without, "README.md").contains("Core ML"));
    let root = write(&apple_libraries(), "1.2.0", &|staging, about, slices, weights| {
        let model =
            |staging: &Staging, folder: &str| staging.write(&format!("{folder}m.mlpackage/Manifest.json"), b"{}");
        apple::write(staging, about, slices, weights, Some(&model))
    });
    let with = files(root.unwrap_or_else(|e| panic!("{e}")).path());
    let own = ["Sources/TvlmCoreML/Model/m.mlpackage/Manifest.json", "Sources/TvlmCoreML/TvlmCoreML.swift"];
    let more: Vec<&String> = with.keys().filter(|name| !without.contains_key(*name)).collect();
    assert_eq!(more, own);
    let changed: Vec<&String> = without.keys().filter(|name| without[*name] != with[*name]).collect();
    assert_eq!(changed, ["Package.swift", "README.md", "my-model.podspec"]);
    let manifest = text(&with, "Package.swift");
    let product = "        .library(name: \"TvlmCoreML\", targets: [\"TvlmCoreML\"]),\n    ],\n    targets: [\n";
    let target =
        "        .target(name: \"TvlmCoreML\", dependencies: [\"Tvlm\"], resources: [.copy(\"Model\")]),\n    ]\n)\n";
    assert!(manifest.contains(product) && manifest.ends_with(target), "{manifest}");
    let pod = text(&with, "my-model.podspec");
    let resource =
        "    coreml.resource_bundles = { 'TvlmCoreML' => ['Sources/TvlmCoreML/Model/*.mlpackage'] }\n  end\nend\n";
    assert!(pod.contains("    coreml.dependency 'my-model/Core'\n") && pod.ends_with(resource), "{pod}");
    assert!(text(&with, "README.md").contains("options.delegate = try await TvlmCoreML.load(computeUnits: .all)\n"));
}

/// Code of several processors and one weight file: all of it says the same digest.
#[test]
fn one_weight_file_belongs_to_all_libraries() {
    let nano = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/nano/hf");
    for recipe in ["f32", "int4"] {
        let recipe = Recipe::named(recipe).unwrap_or_else(|e| panic!("{e}"));
        let assemble = |machine: Machine| {
            let options = Options { name: Some("nano"), recipe: Some(recipe.clone()), machine, ..Options::default() };
            assemble::assemble(&nano, &options).unwrap_or_else(|e| panic!("{e}"))
        };
        let mut all = [Machine::Aarch64(System::Ios), Machine::X86_64(System::IosSimulator)].map(assemble);
        let own = all[0].digest;
        assert_ne!(own, all[1].digest);
        assemble::pair(&mut all).unwrap_or_else(|e| panic!("{e}"));
        assert!(all[0].digest == all[1].digest && all[0].digest != own);
        let root = tempfile::tempdir().expect("a folder");
        let [one, other] = [0, 1].map(|i| {
            let staging = Staging::begin(&root.path().join(format!("{i}")), false).unwrap_or_else(|e| panic!("{e}"));
            all[i].write(&staging, &|_| Ok(())).unwrap_or_else(|e| panic!("{e}"));
            let read = |name: &str| fs::read(staging.path(name)).expect("a file");
            let face = String::from_utf8(read("src/lib.rs")).expect("UTF-8");
            let (_, digest) = face.split_once("WEIGHTS_DIGEST: [u8; 32] =").expect("a digest");
            (read(WEIGHTS_NAME), digest.split_once(';').expect("its end").0.to_string())
        });
        assert!(one == other, "the weight files or the digests differ");
    }
}

#[test]
fn an_older_package_is_replaced() {
    let root = write_apple(&apple_libraries()[2..3]).unwrap_or_else(|e| panic!("{e}"));
    let out = root.path().join("out");
    assert!(Staging::begin(&out, false).is_err());
    assert!(Staging::begin(&out, true).is_ok());
}

#[test]
fn libraries_for_others_are_refused() {
    let cases: [(Libraries, &str); 6] = [
        (vec![], "without a library"),
        (vec![(Machine::Aarch64(System::Ios), archive(ARM64, 2)); 2], "aarch64-apple-ios is there twice"),
        (vec![(Machine::Aarch64(System::Android), shared(183, 16384))], "no system of Apple"),
        (vec![(Machine::Aarch64(System::Ios), archive(X86_64, 2))], "aarch64-apple-ios was wanted"),
        (vec![(Machine::Aarch64(System::Ios), archive(ARM64, 7))], "was built for another machine"),
        (vec![(Machine::Aarch64(System::Ios), shared(183, 16384))], "is no archive of objects"),
    ];
    for (libraries, word) in cases {
        let refused = write_apple(&libraries).expect_err(word).to_string();
        assert!(refused.contains(word), "{word}: {refused}");
    }
    let cases: [(Libraries, &str); 5] = [
        (vec![], "without a library"),
        (vec![(Machine::Aarch64(System::Ios), archive(ARM64, 2))], "is not Android"),
        (vec![(Machine::Aarch64(System::Android), shared(62, 16384))], "aarch64-linux-android was wanted"),
        (vec![(Machine::X86_64(System::Android), shared(62, 4096))], "max-page-size=16384"),
        (vec![(Machine::X86_64(System::Android), archive(X86_64, 1))], "is no shared object"),
    ];
    for (libraries, word) in cases {
        let refused = write_android(&libraries).expect_err(word).to_string();
        assert!(refused.contains(word), "{word}: {refused}");
    }
    for version in ["", "1", "one", "1.0 ", "1.0.0'", "1..0", "1.0-<b>"] {
        let wrote = write(&apple_libraries(), version, &|staging, about, slices, weights| {
            apple::write(staging, about, slices, weights, None)
        });
        assert_eq!(wrote.is_ok(), version == "1", "{version:?}");
    }
    for group in ["", "com.", "com.Example", "../x", "a-b"] {
        let wrote = write(&android_libraries(), "1.0", &|staging, about, slices, weights| {
            android::write(staging, about, group, slices, weights)
        });
        assert!(wrote.expect_err("refused").to_string().contains("Maven group"));
    }
}

#[test]
fn an_android_archive_is_whole() {
    if !has_javac() {
        return;
    }
    let root = write_android(&android_libraries()).unwrap_or_else(|e| panic!("{e}"));
    let files = files(root.path());
    let place = "maven/dev/tvlmc/my-model/1.2.0/my-model-1.2.0";
    let archive = unzip(&files[&format!("{place}.aar")]);
    let names: Vec<&str> = archive.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            "AndroidManifest.xml",
            "R.txt",
            "classes.jar",
            "jni/arm64-v8a/libtvlm.so",
            "jni/x86_64/libtvlm.so",
            "proguard.txt"
        ]
    );
    assert_eq!(archive["jni/arm64-v8a/libtvlm.so"], shared(183, 16384));
    let classes = unzip(&archive["classes.jar"]);
    let expected =
        ["Bitmaps", "CameraImages", "Model", "Native", "Native$Pieces", "Phone", "Planes", "Pressure", "Session"];
    for class in expected.into_iter().chain(["TvlmException"]) {
        let bytes = &classes[&format!("dev/tvlmc/{class}.class")];
        // Version 52 is that of Java 8, which Android tools of all ages read.
        assert_eq!(bytes[..8], [0xca, 0xfe, 0xba, 0xbe, 0, 0, 0, 52], "{class}");
    }
    assert!(classes.keys().all(|name| name.starts_with("dev/tvlmc/")), "{:?}", classes.keys());
    let sources = unzip(&files[&format!("{place}-sources.jar")]);
    assert!(sources.contains_key("dev/tvlmc/Session.java") && !sources.keys().any(|name| name.contains("android")));
    let pom = text(&files, &format!("{place}.pom"));
    for word in ["<groupId>dev.tvlmc<", "<artifactId>my-model<", "<version>1.2.0<", "<packaging>aar<"] {
        assert!(pom.contains(word), "{pom}");
    }
    assert!(text(&files, "README.md").contains("implementation(\"dev.tvlmc:my-model:1.2.0\")"));
    assert!(text(&files, "kotlin/dev/tvlmc/Flows.kt").contains("package dev.tvlmc\n"));
    assert_eq!(files["weights/weights.tvlm"], WEIGHTS);
    let again = write_android(&android_libraries()).unwrap_or_else(|e| panic!("{e}"));
    assert!(self::files(again.path()) == files, "the same libraries make the same bytes");
}

/// `TVLM_ERROR_NOT_WEIGHTS` as languages with other customs write it.
fn in_camel_case(name: &str) -> String {
    let mut words = name.split('_').map(str::to_lowercase);
    let first = words.next().unwrap_or_default();
    words.fold(first, |text, word| text + &word[..1].to_uppercase() + &word[1..])
}

/// Numbers are written by hand in four languages.
#[test]
fn all_faces_have_the_numbers_of_the_header() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let read = |path: &str| fs::read_to_string(root.join(path)).expect("a source");
    let swift = |name: &str| read(&format!("bindings/swift/Sources/Tvlm/{name}.swift"));
    let java = |name: &str| read(&format!("bindings/android/java/dev/tvlmc/{name}.java"));
    let header = read("runtime-min/c/include/tvlm.h");
    let mut seen = BTreeMap::new();
    let constants = header.split([',', '\n', '{', '}']).filter_map(|part| part.trim().split_once(" = "));
    for (name, number) in constants.filter(|(name, _)| name.starts_with("TVLM_")) {
        let number: String = number.chars().take_while(char::is_ascii_digit).collect();
        let (kind, name) = name["TVLM_".len()..].split_once('_').unwrap_or_default();
        *seen.entry(kind).or_insert(0) += 1;
        let camel = in_camel_case(name);
        let (in_swift, in_java) = match kind {
            "ERROR" => (
                (swift("TvlmError"), format!("static let {camel} = Code(rawValue: {number})\n")),
                (java("TvlmException"), format!("int {name} = {number};")),
            ),
            "VERIFY" | "RESIDENCE" => (
                (swift("TvlmModel"), format!("case {camel} = {number}\n")),
                (java("Model"), format!("int {kind}_{name} = {number};")),
            ),
            "STOP" if number == "0" => continue,
            "STOP" => (
                (swift("TvlmSession"), format!("case {camel} = {number}\n")),
                (java("Answer"), format!("int {name} = {number};")),
            ),
            "PRESSURE" => (
                (swift("TvlmSession"), format!("case {camel} = {number}\n")),
                (java("Pressure"), format!("int {name} = {number};")),
            ),
            "AFFINITY" | "BOUND" => (
                (swift("TvlmSession"), format!("case {camel} = {number}\n")),
                (java("Session"), format!("int {kind}_{name} = {number};")),
            ),
            "FORMAT" if name.starts_with("NV12") => (
                (swift("TvlmCamera"), format!("let {camel}: UInt32 = {number}\n")),
                (java("Session"), format!("int {name} = {number};")),
            ),
            "FORMAT" => (
                (swift("TvlmImage"), format!("let {}: UInt32 = {number}\n", name.to_lowercase())),
                (java("Session"), format!("int {name} = {number};")),
            ),
            _ => continue,
        };
        // Swift makes no pictures of these.
        let is_used = kind != "FORMAT" || !["RGB8", "GRAY8"].contains(&name);
        assert!(!is_used || in_swift.0.contains(&in_swift.1), "Swift lacks {:?}", in_swift.1);
        assert!(in_java.0.contains(&in_java.1), "Java lacks {:?}", in_java.1);
    }
    let counts: Vec<(&str, i32)> = seen.into_iter().filter(|(kind, _)| *kind != "OK").collect();
    let expected = [
        ("", 1),
        ("AFFINITY", 2),
        ("BOUND", 4),
        ("ERROR", 24),
        ("FORMAT", 6),
        ("PRESSURE", 4),
        ("RESIDENCE", 3),
        ("STOP", 6),
        ("VERIFY", 3),
    ];
    assert_eq!(counts[..], expected);
}

/// What Swift calls is what the header declares, with as many arguments.
#[test]
fn swift_calls_functions_of_the_header() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let header = fs::read_to_string(root.join("runtime-min/c/include/tvlm.h")).expect("the header");
    let folder = root.join("bindings/swift/Sources/Tvlm");
    let mut called = BTreeMap::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let text = fs::read_to_string(entry.expect("an entry").path()).expect("a source");
        for (at, _) in text.match_indices("tvlm_") {
            let rest = &text[at..];
            let end = rest.find(|c: char| c != '_' && !c.is_ascii_lowercase()).unwrap_or(rest.len());
            if let Some(arguments) = rest[end..].strip_prefix('(').map(arguments) {
                called.insert(rest[..end].to_string(), arguments);
            }
        }
    }
    // Structs are made with empty parentheses.
    called.retain(|_, arguments| *arguments > 0);
    for (name, count) in &called {
        let (_, declared) =
            header.split_once(&format!("TVLM_API int32_t {name}(")).unwrap_or_else(|| panic!("no {name}"));
        assert_eq!(arguments(declared), *count, "{name}");
    }
    assert_eq!(called.len(), header.matches("TVLM_API int32_t").count());
}

/// Arguments up to the closing parenthesis; commas inside brackets are not between them.
fn arguments(text: &str) -> usize {
    let (mut depth, mut commas, mut any) = (0, 0, false);
    for c in text.chars() {
        match c {
            '(' | '{' | '[' => depth += 1,
            ')' if depth == 0 => break,
            ')' | '}' | ']' => depth -= 1,
            ',' if depth == 0 => commas += 1,
            _ => {}
        }
        any |= !c.is_whitespace();
    }
    if any { commas + 1 } else { 0 }
}

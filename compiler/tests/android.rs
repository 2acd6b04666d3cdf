//! What an Android package is made of, as far as it can be tried without Android: its Java face on the Java that is here, and its
//! library as the linker of rustc makes it.

#[allow(dead_code, reason = "shared with other tests")]
mod machine;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tvlmc::assemble::{Options, assemble};
use tvlmc::bundle::{About, Slice, android};
use tvlmc::frontend::Licenses;
use tvlmc::machine::{Machine, System};
use tvlmc::output::Staging;
use tvlmc::package::WEIGHTS_NAME;

const QUESTION: &str = "What is this? 🦀";

/// Width and height of a picture of noise.
const PICTURE: (usize, usize) = (50, 31);

fn run(command: &mut Command) -> String {
    let out = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(out.status.success(), "{command:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).expect("UTF-8")
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder");
    entries.map(|entry| entry.expect("an entry").path()).collect()
}

/// Compiles the nano model to the folder `model`.
fn write(root: &Path, machine: Machine) -> PathBuf {
    let nano = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/nano/hf");
    let options = Options { name: Some("model"), machine, ..Options::default() };
    let assembled = assemble(&nano, &options).unwrap_or_else(|e| panic!("{e}"));
    let staging = Staging::begin(&root.join("model"), false).unwrap_or_else(|e| panic!("{e}"));
    assembled.write(&staging, &|_| Ok(())).unwrap_or_else(|e| panic!("{e}"));
    staging.commit().unwrap_or_else(|e| panic!("{e}"))
}

/// A release build in `folder`, without optimizing across crates, which takes a multiple of the time and changes nothing here.
fn cargo(root: &Path, folder: &Path, more: &[&str], flags: &str) {
    let mut command = Command::new(env!("CARGO"));
    command.args(["build", "--release", "--offline", "--quiet"]).args(more).current_dir(folder);
    command.env("CARGO_TARGET_DIR", root.join("target")).env("CARGO_PROFILE_RELEASE_LTO", "off");
    run(command.env("RUSTFLAGS", format!("-Dwarnings {flags}")));
}

/// Whether a Java compiler or virtual machine is missing; told.
fn lacks_java(what: &str) -> bool {
    let lacks = ["javac", "java"].into_iter().find(|program| !machine::has_program(program));
    if let Some(lacks) = lacks {
        println!("skipped: {what}: no {lacks} here");
    }
    lacks.is_some()
}

#[test]
fn java_asks_as_rust_does() {
    if lacks_java("the Java face of a package") {
        return;
    }
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = tempfile::tempdir().expect("a folder");
    let model = write(root.path(), Machine::HOST);

    // As the package for Android has it.
    let face = model.join("c/src/lib.rs");
    let text = fs::read_to_string(&face).expect("a source") + "runtime_c::export_jni!(model::Program);\n";
    fs::write(face, text).expect("written");
    cargo(root.path(), &model, &[], "");
    cargo(root.path(), &model.join("c"), &[], "");
    exports_what_it_should(&root.path().join("target/release/libtvlm.so"));

    let classes = root.path().join("classes");
    let mut faces = sources(&here.join("../bindings/android/java/dev/tvlmc"));
    // What needs Android.
    let others = ["Bitmaps.java", "CameraImages.java", "Phone.java"];
    faces.retain(|path| !others.iter().any(|name| path.ends_with(name)));
    faces.push(here.join("tests/android_support/Ask.java"));
    run(Command::new("javac").args(["-encoding", "UTF-8", "-d"]).arg(&classes).args(faces));

    let (w, h) = PICTURE;
    let picture = root.path().join("picture.rgb");
    let noise: Vec<u8> = (0..w * h * 3).map(|i| ((i * 7919 + i / 97 * 31) % 251) as u8).collect();
    fs::write(&picture, noise).expect("written");
    let weights = model.join(WEIGHTS_NAME);
    let java = run(Command::new("java")
        .args(["-Xcheck:jni", "-Dfile.encoding=UTF-8", "-Dstdout.encoding=UTF-8", "-Dsun.stdout.encoding=UTF-8"])
        .arg(format!("-Djava.library.path={}", root.path().join("target/release").display()))
        .arg("-cp")
        .arg(&classes)
        .arg("Ask")
        .args([weights.as_os_str(), picture.as_os_str()])
        .args([&w.to_string(), &h.to_string(), QUESTION]));
    let rust = run(Command::new(root.path().join("target/release/model"))
        .arg("--weights")
        .arg(&weights)
        .arg("--rgb")
        .arg(format!("{w}x{h}:{}", picture.display()))
        .args(["--prompt", QUESTION, "--max-new-tokens", "12"]));
    assert!(!java.trim().is_empty() && !java.contains("WARNING"), "{java}");
    assert_eq!(java.trim_end(), rust.trim_end());
}

/// What watches a phone, on systems before and after they told how hot they are; Android and the sessions are a test's.
#[test]
fn sessions_are_kept_in_step_with_the_phone() {
    if lacks_java("what watches a phone") {
        return;
    }
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (face, stubs) =
        (here.join("../bindings/android/java/dev/tvlmc"), here.join("../bindings/android/stubs/android"));
    let fakes = here.join("tests/android_support/phone");
    let classes = tempfile::tempdir().expect("a folder");
    let mut files = vec![fakes.join("Watch.java")];
    files.extend(["android/os", "dev/tvlmc"].iter().flat_map(|folder| sources(&fakes.join(folder))));
    files.extend(["Phone", "Pressure", "TvlmException"].map(|name| face.join(format!("{name}.java"))));
    let content = ["ComponentCallbacks", "ComponentCallbacks2", "BroadcastReceiver", "Intent", "res/Configuration"];
    files.extend(content.map(|name| stubs.join(format!("content/{name}.java"))));
    files.extend(sources(&fakes.join("android/content")));
    run(Command::new("javac").args(["-encoding", "UTF-8", "-d"]).arg(classes.path()).args(files));
    for version in ["24", "28", "29", "35"] {
        let told = run(Command::new("java").arg("-cp").arg(classes.path()).args(["Watch", version]));
        assert_eq!(told.trim_end(), format!("watched {version}"));
    }
}

#[test]
fn planes_of_cameras_are_put_in_order() {
    if lacks_java("pictures of Android's cameras") {
        return;
    }
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = tempfile::tempdir().expect("a folder");
    let face = here.join("../bindings/android/java/dev/tvlmc");
    let sources = ["Planes.java", "TvlmException.java"].map(|name| face.join(name));
    let test = here.join("tests/android_support/planes/dev/tvlmc/PlanesTest.java");
    run(Command::new("javac").args(["-encoding", "UTF-8", "-d"]).arg(root.path()).args(sources).arg(test));
    assert_eq!(run(Command::new("java").arg("-cp").arg(root.path()).arg("dev.tvlmc.PlanesTest")), "done\n");
}

/// There is no C library of Android here, whose functions stay undefined, as they would in the end.
#[test]
fn a_library_is_linked_for_large_pages() {
    let triple = Machine::Aarch64(System::Android).triple();
    if !machine::has_target(triple) {
        println!("skipped: a library for Android: no {triple} of rustc here");
        return;
    }
    let root = tempfile::tempdir().expect("a folder");
    let model = write(root.path(), Machine::Aarch64(System::Android));
    for name in ["c", "dl", "log", "m", "unwind"] {
        fs::write(root.path().join(format!("lib{name}.a")), "!<arch>\n").expect("written");
    }
    let flags = format!(
        "-Clinker=rust-lld -Clinker-flavor=ld.lld -Clink-arg=-L{} -Clink-arg=-zmax-page-size=16384",
        root.path().display()
    );
    // As text, a folder with a space in its name would be two arguments.
    assert!(!root.path().to_string_lossy().contains(' '));
    cargo(root.path(), &model.join("c"), &["--target", triple], &flags);
    let library = root.path().join("target").join(triple).join("release/libtvlm.so");
    exports_what_it_should(&library);
    let (manifest, licenses) = ("{}\n", &Licenses::default());
    let about = About { name: "model", version: "1.0.0", manifest, licenses };
    let slices = [Slice { machine: Machine::Aarch64(System::Android), library: &library }];
    let staging = Staging::begin(&root.path().join("package"), false).unwrap_or_else(|e| panic!("{e}"));
    match android::write(&staging, &about, android::GROUP, &slices, &|_| Ok(())) {
        // The library was looked at before.
        Err(e) if e.to_string().contains("javac") => println!("skipped: the archive: {e}"),
        done => done.unwrap_or_else(|e| panic!("{e}")),
    }
}

/// The functions of C and of Java, and nothing else that an app could confuse with its own.
fn exports_what_it_should(library: &Path) {
    let Ok(out) = Command::new("nm").args(["-D", "--defined-only", "--format=posix"]).arg(library).output() else {
        println!("skipped: the exported symbols, as there is no nm here");
        return;
    };
    let told = String::from_utf8_lossy(&out.stdout).into_owned();
    let names: Vec<&str> = told.lines().filter_map(|line| line.split(' ').next()).collect();
    let (java, others): (Vec<&str>, Vec<&str>) =
        names.iter().partition(|name| name.starts_with("Java_dev_tvlmc_Native_"));
    // Java needs no version of the library that it comes with.
    assert_eq!((java.len(), others.len()), (20, 21), "{names:?}");
    assert!(others.iter().all(|name| name.starts_with("tvlm_")), "{names:?}");
}

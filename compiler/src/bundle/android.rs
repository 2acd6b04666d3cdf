//! A folder for Gradle: an Android archive in a local Maven repository, its sources, a Kotlin file, the weights.
//!
//! The archive holds the Java face compiled, and the library for each processor. The weights lie beside it: Google Play
//! limits what an app is downloaded with to less than a model has, and the library maps a file.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::{Cursor, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime, ZipWriter};

use super::{About, Slice, Weights, elf, read, unfit, weights};
use crate::error::{Error, Quoted};
use crate::machine::{Machine, System};
use crate::output::Staging;
use crate::package::TOOL_VERSION;

/// Sources of the Java face, of what it is compiled against, and of what goes along for Kotlin.
const FACE: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/android.rs"));

/// The folder of the weight file, `weights.tvlm`.
const WEIGHTS_FOLDER: &str = "weights";

/// The Maven group that is taken if none is chosen.
pub const GROUP: &str = "dev.tvlmc";

/// Android 7, the first whose linker and libraries are those of 64-bit devices in use.
const MIN_SDK: u32 = 24;

/// Writes a folder of libraries for Android: the archive `maven/GROUP/NAME/VERSION/NAME-VERSION.aar` and what belongs to it.
/// `group` is that of Maven, such as [`GROUP`]. The weight file is copied, or written by whoever calls, into
/// [`WEIGHTS_FOLDER`]; it has to belong to all of the libraries.
///
/// # Errors
/// [`Error::Usage`]: no library, two for one machine, one for another system, or a name, version or group that cannot be such.
/// [`Error::Environment`]: a file that is no shared object for its machine, or is aligned to small pages; no `javac`, or one
/// that fails. A file that cannot be read or written.
pub fn write(
    staging: &Staging,
    about: &About<'_>,
    group: &str,
    slices: &[Slice<'_>],
    weight_file: Weights<'_>,
) -> Result<(), Error> {
    about.check()?;
    check_group(group)?;
    let mut archive = libraries(slices)?;
    archive.insert("AndroidManifest.xml".to_string(), android_manifest().into_bytes());
    archive.insert("R.txt".to_string(), Vec::new());
    archive.insert("proguard.txt".to_string(), KEPT.as_bytes().to_vec());
    archive.insert("classes.jar".to_string(), zip(&classes()?)?);
    let About { name, version, .. } = about;
    let folder = format!("maven/{}/{name}/{version}", group.replace('.', "/"));
    staging.write(&format!("{folder}/{name}-{version}.aar"), &zip(&archive)?)?;
    let sources = BTreeMap::from_iter(java("java/").map(|(name, text)| (name.to_string(), text.as_bytes().to_vec())));
    staging.write(&format!("{folder}/{name}-{version}-sources.jar"), &zip(&sources)?)?;
    staging.write(&format!("{folder}/{name}-{version}.pom"), pom(about, group).as_bytes())?;
    for (name, text) in java("kotlin/") {
        staging.write(&format!("kotlin/{name}"), text.as_bytes())?;
    }
    staging.write("README.md", readme(about, group).as_bytes())?;
    about.write(staging)?;
    weights(staging, weight_file, WEIGHTS_FOLDER)
}

/// What cargo is told in environment variables to link a shared library for Android: the compiler of an NDK, which brings the C
/// library and the unwinder that panics need, and pages of 16 KB.
///
/// # Errors
/// [`Error::Usage`] for another system; [`Error::Environment`] without an NDK in `ANDROID_NDK_HOME`, `ANDROID_NDK_ROOT`, or in the
/// folder `ndk` of `ANDROID_HOME`, of which the newest is taken.
pub fn linking(machine: Machine) -> Result<[(String, OsString); 2], Error> {
    let processor = match machine {
        Machine::Aarch64(System::Android) => "aarch64",
        Machine::X86_64(System::Android) => "x86_64",
        other => return Err(Error::Usage(format!("{} is not Android", other.triple()))),
    };
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let installed = || {
        let entries = fs::read_dir(set("ANDROID_HOME")?.join("ndk")).ok()?;
        // Folders are named by versions such as 27.0.12077973.
        let version = |path: &PathBuf| -> Option<Vec<u32>> {
            path.file_name()?.to_str()?.split('.').map(|number| number.parse().ok()).collect()
        };
        entries.flatten().map(|entry| entry.path()).filter(|path| version(path).is_some()).max_by_key(version)
    };
    let Some(ndk) = set("ANDROID_NDK_HOME").or_else(|| set("ANDROID_NDK_ROOT")).or_else(installed) else {
        return Err(Error::Environment(
            "no Android NDK, whose linker a library for Android takes: neither ANDROID_NDK_HOME nor ANDROID_NDK_ROOT is set, and \
             there is none in the folder ndk of ANDROID_HOME. Install r23 or later (`sdkmanager --install 'ndk;VERSION'`, or Android \
             Studio's SDK manager) and set ANDROID_NDK_HOME to its folder (a JDK, 11 or later, is needed, too); `--emit crate` and `staticlib` do without"
                .to_string(),
        ));
    };
    let host = if cfg!(target_os = "macos") { "darwin-x86_64" } else { "linux-x86_64" };
    let linker = ndk.join(format!("toolchains/llvm/prebuilt/{host}/bin/{processor}-linux-android{MIN_SDK}-clang"));
    if !linker.is_file() {
        let linker = linker.display();
        return Err(Error::Environment(format!(
            "{linker} does not exist: is {} an Android NDK, r23 or later?",
            ndk.display()
        )));
    }
    let variable = |what: &str| format!("CARGO_TARGET_{}_{what}", machine.triple().to_uppercase().replace('-', "_"));
    let arguments = format!("-C link-arg=-Wl,-z,max-page-size={}", elf::PAGE);
    Ok([(variable("LINKER"), linker.into()), (variable("RUSTFLAGS"), arguments.into())])
}

fn check_group(group: &str) -> Result<(), Error> {
    let word = |word: &str| {
        word.starts_with(|c: char| c.is_ascii_lowercase())
            && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
    };
    if group.split('.').all(word) {
        return Ok(());
    }
    Err(Error::Usage(format!("{} is no Maven group; one is words with points between, as com.example", Quoted(group))))
}

/// The libraries by their place in the archive.
fn libraries(slices: &[Slice<'_>]) -> Result<BTreeMap<String, Vec<u8>>, Error> {
    let mut libraries = BTreeMap::new();
    for (slice, library) in read(slices)? {
        let (folder, machine) = match slice.machine {
            Machine::Aarch64(System::Android) => ("arm64-v8a", elf::AARCH64),
            Machine::X86_64(System::Android) => ("x86_64", elf::X86_64),
            other => {
                let triple = other.triple();
                return Err(Error::Usage(format!("{triple} is not Android: its archives have no place for it")));
            }
        };
        let Some(made) = elf::made_for(&library) else { return Err(unfit(&slice, "is no shared object of 64 bits")) };
        if made.machine != machine {
            return Err(unfit(&slice, "was built for another machine"));
        }
        if made.align < elf::PAGE {
            return Err(Error::Environment(format!(
                "{}: is aligned to pages of {} bytes, and devices with pages of {} refuse it: link it with -C link-arg=-Wl,-z,max-page-size={}",
                slice.library.display(),
                made.align,
                elf::PAGE,
                elf::PAGE
            )));
        }
        libraries.insert(format!("jni/{folder}/libtvlm.so"), library);
    }
    Ok(libraries)
}

/// Sources in a folder of the face, with names that begin in it.
fn java(folder: &str) -> impl Iterator<Item = (&'static str, &'static str)> {
    FACE.iter().filter_map(move |(name, text)| name.strip_prefix(folder).map(|name| (name, *text)))
}

/// The compiled Java face by names of files.
fn classes() -> Result<BTreeMap<String, Vec<u8>>, Error> {
    let root = tempfile::tempdir().map_err(Error::io("create a folder in", &std::env::temp_dir()))?;
    // The classes of Android that are named are declared by stubs, which stay here.
    let stubs = compile(root.path(), "stubs", None)?;
    let folder = compile(root.path(), "java", Some(&stubs))?;
    let mut classes = BTreeMap::new();
    let mut folders = vec![String::new()];
    while let Some(inside) = folders.pop() {
        let path = folder.join(&inside);
        let failed = |e| Error::io("read", &path)(e);
        for entry in fs::read_dir(&path).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = format!("{inside}{}", entry.file_name().to_string_lossy());
            if entry.file_type().map_err(failed)?.is_dir() {
                folders.push(name + "/");
            } else {
                classes.insert(name, fs::read(entry.path()).map_err(Error::io("read", &entry.path()))?);
            }
        }
    }
    Ok(classes)
}

/// Compiles a folder of the face for all Android versions, and says where the classes are.
fn compile(root: &Path, folder: &str, against: Option<&Path>) -> Result<PathBuf, Error> {
    let classes = root.join(format!("{folder}-classes"));
    let mut files = Vec::new();
    for (name, text) in java(&format!("{folder}/")) {
        let path = root.join(folder).join(name);
        let parent = path.parent().unwrap_or(root);
        fs::create_dir_all(parent).map_err(Error::io("create", parent))?;
        fs::write(&path, text).map_err(Error::io("write", &path))?;
        files.push(path);
    }
    let mut arguments: Vec<OsString> =
        // Newer compilers find that version old, which is no news.
        ["--release", "8", "-Xlint:-options", "-encoding", "UTF-8", "-proc:none", "-d"].map(OsString::from).into();
    arguments.push(classes.clone().into());
    if let Some(against) = against {
        arguments.extend(["-cp".into(), against.into()]);
    }
    arguments.extend(files.into_iter().map(OsString::from));
    let (javac, done) = javac(&arguments)?;
    if done.status.success() {
        return Ok(classes);
    }
    let told = String::from_utf8_lossy(&done.stderr).into_owned();
    Err(Error::Environment(format!(
        "{} could not compile the Java face of the library; a JDK of 11 or later is needed:\n{}",
        javac.display(),
        told.trim_end()
    )))
}

/// Refuses a machine that has no Java compiler, before minutes of work.
///
/// # Errors
/// [`Error::Environment`]: there is none.
pub fn check_javac() -> Result<(), Error> {
    javac(&["-version".into()]).map(|_| ())
}

/// Runs the Java compiler, which is returned with what it said.
fn javac(arguments: &[OsString]) -> Result<(PathBuf, Output), Error> {
    let javac = match std::env::var_os("JAVA_HOME").filter(|home| !home.is_empty()) {
        Some(home) => Path::new(&home).join("bin/javac"),
        None => PathBuf::from("javac"),
    };
    let done = Command::new(&javac).args(arguments).output().map_err(|e| match e.kind() {
        ErrorKind::NotFound => Error::Environment(format!(
            "there is no {}, which compiles the Java face of the library: install a JDK, 11 or later, or set JAVA_HOME to one",
            javac.display()
        )),
        _ => Error::io("run", &javac)(e),
    })?;
    Ok((javac, done))
}

/// An archive of files in the order of their names, without times: the same files are the same bytes.
fn zip(files: &BTreeMap<String, Vec<u8>>) -> Result<Vec<u8>, Error> {
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Deflated)
        .last_modified_time(DateTime::default())
        .unix_permissions(0o644);
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    let bug = |e: &dyn std::fmt::Display| Error::Bug(format!("an archive cannot be written: {e}"));
    for (name, bytes) in files {
        archive.start_file(name.as_str(), options).map_err(|e| bug(&e))?;
        archive.write_all(bytes).map_err(|e| bug(&e))?;
    }
    Ok(archive.finish().map_err(|e| bug(&e))?.into_inner())
}

/// What tools that shrink apps leave alone: names that the library looks up, or is looked up by.
const KEPT: &str = "\
-keep class dev.tvlmc.Native { native <methods>; }
-keep interface dev.tvlmc.Native$Pieces { *; }
-keepclassmembers class * implements dev.tvlmc.Native$Pieces { int piece(byte[]); }
";

fn android_manifest() -> String {
    format!(
        "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n\
         <manifest xmlns:android=\"http://schemas.android.com/apk/res/android\" package=\"dev.tvlmc\">\n\
         \x20   <uses-sdk android:minSdkVersion=\"{MIN_SDK}\" />\n\
         </manifest>\n"
    )
}

/// Names and versions were checked to have no character that XML means something by.
fn pom(about: &About<'_>, group: &str) -> String {
    let About { name, version, .. } = about;
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <!-- Written by tvlmc {TOOL_VERSION}. -->\n\
         <project xmlns=\"http://maven.apache.org/POM/4.0.0\" xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\"\n\
         \x20   xsi:schemaLocation=\"http://maven.apache.org/POM/4.0.0 https://maven.apache.org/xsd/maven-4.0.0.xsd\">\n\
         \x20 <modelVersion>4.0.0</modelVersion>\n\
         \x20 <groupId>{group}</groupId>\n\
         \x20 <artifactId>{name}</artifactId>\n\
         \x20 <version>{version}</version>\n\
         \x20 <packaging>aar</packaging>\n\
         </project>\n"
    )
}

fn readme(about: &About<'_>, group: &str) -> String {
    let About { name, version, .. } = about;
    format!(
        "# {name}\n\n\
         A FastVLM model compiled by tvlmc {TOOL_VERSION} as an Android archive, for Android 7 (API level {MIN_SDK}) and later on 64-bit\n\
         devices. It answers questions about pictures on the device, without network.\n\n\
         ## In an app\n\n\
         `maven` is a repository. In `settings.gradle.kts`, beside the repositories that are there, and in `build.gradle.kts` of the app:\n\n\
         ```kotlin\n\
         dependencyResolutionManagement {{\n\
         \x20   repositories {{\n\
         \x20       maven {{ url = uri(\"path/of/this/folder/maven\") }}\n\
         \x20   }}\n\
         }}\n\
         ```\n\n\
         ```kotlin\n\
         dependencies {{\n\
         \x20   implementation(\"{group}:{name}:{version}\")\n\
         }}\n\
         ```\n\n\
         In Java, on a thread that may wait for seconds:\n\n\
         ```java\n\
         import dev.tvlmc.*;\n\n\
         File weights = new File(context.getNoBackupFilesDir(), \"weights.tvlm\");\n\
         try (Model model = new Model(weights);\n\
         \x20       Session chat = model.session(new Session.Options());\n\
         \x20       Image photo = Bitmaps.encode(chat, bitmap)) {{\n\
         \x20   Answer answer = chat.ask(\"What is on the table?\", new Image[] {{photo}}, piece -> {{\n\
         \x20       show(piece);\n\
         \x20       return true;\n\
         \x20   }});\n\
         \x20   // The conversation goes on.\n\
         \x20   String color = chat.ask(\"What color is it?\").text;\n\
         }}\n\
         ```\n\n\
         For Kotlin, copy `kotlin/dev/tvlmc/Flows.kt` into the app, which needs `kotlinx-coroutines`:\n\n\
         ```kotlin\n\
         val photo = withContext(Dispatchers.Default) {{ Bitmaps.encode(chat, bitmap) }}\n\
         chat.answer(\"What is on the table?\", photo).collect {{ piece -> show(piece) }}\n\
         ```\n\n\
         - A model is opened once and shared. A session has its own memory and threads and works for one caller at a time, on the\n\
         \x20 thread of that caller; `cancel()` and `close()` stop it from any other. Close what is no longer needed: this memory is\n\
         \x20 not Java's.\n\
         - `Bitmaps.encode` takes any bitmap, on white where it is transparent; turn photos upright before, as their Exif\n\
         \x20 orientation says. `CameraImages.encode` takes an `android.media.Image` of the format `YUV_420_888`, which is that of\n\
         \x20 cameras, or bytes of NV21. `session.encode` takes pixels of a buffer. A picture is encoded once and can be asked about\n\
         \x20 again, also after `reset()`.\n\
         - A model compiled with several `--sides` lists them in `model.info().sides`; `encode` takes one, otherwise the largest: a\n\
         \x20 smaller picture is encoded sooner, takes fewer positions and shows less.\n\
         - What goes wrong is a `TvlmException`: a `code()` for programs and a message for developers.\n\
         - `Phone.watch(context, model, chat)` keeps sessions in step with heat, the battery saver and memory warnings;\n\
         \x20 `chat.pause()` and `resume()` are for the background, `chat.save(path)` and `restore(path)` for the end of the process.\n\
         \x20 A hot phone gets fewer threads and, when it is serious, smaller pictures unless the app gives a side; answers about\n\
         \x20 the same picture do not change.\n\
         - An app with code in C or C++ takes `tvlmc compile --emit staticlib` instead, whose `tvlm.h` is the same interface and\n\
         \x20 takes an engine of the app's own for pictures, too (`tvlm_delegate`).\n\n\
         ## Weights\n\n\
         `weights/weights.tvlm` is not in the archive, as it is larger than what an app may be downloaded with. Give it to a device as\n\
         an asset pack (Play Asset Delivery, `fast-follow` or `on-demand`, whose files have a path), or download it into\n\
         `context.getNoBackupFilesDir()`. While developing:\n\n\
         \x20   adb push weights/weights.tvlm /data/local/tmp/\n\
         \x20   adb shell run-as YOUR.APP mkdir -p no_backup\n\
         \x20   adb shell run-as YOUR.APP cp /data/local/tmp/weights.tvlm no_backup/\n\n\
         It has to be a file, which is mapped if it has 256 MB or more: what lies compressed in an APK is none. Library and weights are checked to belong\n\
         to each other.\n\n\
         ## Before it is published\n\n\
         - The library is aligned to pages of 16 KB. Shrinkers are told what to keep.\n\
         - An app has one model of this kind: the libraries of two would have the same name.\n\n\
         ## License\n\n\
         {license}",
        license = about.license(),
    )
}

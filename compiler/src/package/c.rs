//! The C interface beside an emitted crate: a package of its own, as not every program wants one.

use std::collections::BTreeMap;

use super::readme::mib;
use super::{INTERFACE, Identity, LICENSES, Package, TOOL_VERSION, WEIGHTS_NAME};
use crate::machine::{Machine, System};
use crate::pipeline::Prepared;

pub(crate) const HEADER: &str = include_str!("../../../runtime-min/c/include/tvlm.h");
const EXAMPLE: &str = include_str!("../../../runtime-min/c/example.c");

pub(super) fn emit(machine: Machine, id: &Identity<'_>, files: &mut BTreeMap<String, String>) {
    let (name, library) = (id.name, id.name.replace('-', "_"));
    let package = |what: &str, name: &str| {
        format!(
            "# Written by tvlmc {TOOL_VERSION}: {what}.\n\
             [package]\nname = \"{name}\"\nversion = \"{TOOL_VERSION}\"\nedition = \"2024\"\nrust-version = \"1.90\"\n\
             license = \"MIT OR Apache-2.0\"\npublish = false\n\n"
        )
    };
    let own = package("the model as a library for C, include/tvlm.h", &format!("{name}-c"));
    files.insert(
        "c/Cargo.toml".to_string(),
        format!(
            "{own}[workspace]\n\n[lib]\nname = \"tvlm\"\ncrate-type = [\"staticlib\", \"cdylib\"]\ndoc = false\n\n\
             [dependencies]\n{name} = {{ path = \"..\" }}\nruntime-c = {{ path = \"interface\" }}\n\n\
             [profile.release]\nopt-level = 3\nlto = \"fat\"\ncodegen-units = 1\nstrip = \"symbols\"\n"
        ),
    );
    let interface = package("what the functions of tvlm.h do, unchanged", "runtime-c");
    files.insert(
        "c/interface/Cargo.toml".to_string(),
        format!(
            "{interface}[lib]\nname = \"runtime_c\"\n\n[dependencies]\nruntime-min = {{ path = \"../../runtime\" }}\n"
        ),
    );
    let mut face = format!("//! The functions of `include/tvlm.h`.\n\nruntime_c::export!({library}::Program);\n");
    if machine.system() == Some(System::Android) {
        face += &format!("// For the Java class dev.tvlmc.Native.\nruntime_c::export_jni!({library}::Program);\n");
    }
    files.insert("c/src/lib.rs".to_string(), face);
    files.insert("c/include/tvlm.h".to_string(), HEADER.to_string());
    files.insert("c/example.c".to_string(), EXAMPLE.to_string());
    for (name, text) in INTERFACE {
        files.insert(format!("c/interface/src/{name}"), text.to_string());
    }
}

/// What lies beside a built library: its header, an example, a readme and the licenses.
pub(crate) fn library_files(package: &Package, prepared: &Prepared, shared: bool) -> BTreeMap<String, String> {
    let mut files = BTreeMap::from([
        ("include/tvlm.h".to_string(), HEADER.to_string()),
        ("include/module.modulemap".to_string(), MODULE_MAP.to_string()),
        ("example.c".to_string(), EXAMPLE.to_string()),
        ("README.md".to_string(), readme(package, prepared, shared)),
    ]);
    for (name, text) in LICENSES {
        files.insert(format!("lib/{name}"), text.to_string());
    }
    for license in &prepared.licenses.texts {
        files.insert(license.file.clone(), license.text.clone());
    }
    files
}

/// The header as a module, for Swift and Objective-C.
pub(crate) const MODULE_MAP: &str = "module CTvlm {\n    header \"tvlm.h\"\n    export *\n}\n";

/// What programs on Linux are linked with.
const LINUX: &str = " -lpthread -ldl -lm";

/// How a picture gets another side than the largest.
const SIDES: &str = "A picture has the largest side unless `side` in `tvlm_pixels` says another: a smaller one is encoded sooner, takes fewer\n\
                     positions and shows less.\n\n";

fn readme(package: &Package, prepared: &Prepared, shared: bool) -> String {
    let machine = prepared.machine;
    let libraries = if shared { "`lib/libtvlm.a` and `lib/libtvlm.so` need" } else { "`lib/libtvlm.a` needs" };
    let on_linux = machine.system() == Some(System::Linux);
    let system = if on_linux { "the system's C library and libgcc" } else { "the system's own library" };
    let (compiler, libraries_of_system, place) = match machine {
        machine if machine == Machine::HOST => ("cc", LINUX, "here"),
        Machine::Aarch64(System::Linux) => ("aarch64-linux-gnu-gcc", LINUX, "on the machine"),
        Machine::X86_64(System::Linux) | Machine::Wasm | Machine::WasmRust => ("cc", LINUX, "on the machine"),
        Machine::Aarch64(System::Android) => ("aarch64-linux-android24-clang", " -ldl -lm", "on the device"),
        Machine::X86_64(System::Android) => ("x86_64-linux-android24-clang", " -ldl -lm", "in the emulator"),
        Machine::Aarch64(System::Ios) => ("xcrun -sdk iphoneos clang -arch arm64", "", "in an app, on the device"),
        Machine::X86_64(System::Ios)
        | Machine::X86_64(System::IosSimulator)
        | Machine::Aarch64(System::IosSimulator) => {
            ("xcrun -sdk iphonesimulator clang", "", "in an app, in the simulator")
        }
        Machine::Aarch64(System::MacOs) => ("clang -arch arm64", "", "on a Mac"),
        Machine::X86_64(System::MacOs) => ("clang -arch x86_64", "", "on a Mac"),
    };
    format!(
        "# A FastVLM model for C\n\n\
         Compiled by tvlmc {TOOL_VERSION} for `{triple}`. {libraries} nothing but {system};\n\
         `include/tvlm.h` says what its functions do, `{WEIGHTS_NAME}` belongs to this build of them.\n\n\
         \x20   {compiler} example.c -Iinclude lib/libtvlm.a{libraries_of_system} -o example\n\
         \x20   ffmpeg -i photo.jpg photo.ppm\n\
         \x20   ./example {WEIGHTS_NAME} photo.ppm \"What is on the table?\"        # {place}\n\n\
         Functions return 0 or a number of `tvlm_code`, and a message for people; nothing ends the process but a weight file that is changed\n\
         while it is open, and handles that are none. A program links one model: the functions of two have the same names. Levels:\n\
         {levels}; the best one the processor has is chosen when the model is opened.\n\n\
         | what | size |\n|---|---|\n\
         | weights | {weights} |\n\
         | memory of a session, shared by its threads | {arena} |\n\
         | memory of each thread | {scratch} |\n\
         {pictures}\n\
         {sides}\
         The library has the license of the runtime, [MIT](lib/LICENSE-MIT) or [Apache 2.0](lib/LICENSE-APACHE), the weights that of\n\
         their checkpoint ({license}).\n",
        triple = machine.triple(),
        levels = super::manifest::levels(prepared).join(", "),
        weights = mib(package.weights_bytes),
        arena = mib(package.arena_bytes),
        scratch = mib(package.scratch_bytes),
        pictures = super::readme::pictures(prepared),
        sides = if prepared.program.smaller.is_empty() { "" } else { SIDES },
        license = prepared.licenses.summary(),
    )
}

//! The C interface beside an emitted crate: a package of its own, as not every program wants one.

use std::collections::BTreeMap;

use super::{INTERFACE, Identity, TOOL_VERSION};
use crate::machine::{Machine, System};

pub(crate) const HEADER: &str = include_str!("../../../runtime-min/c/include/tvlm.h");
const EXAMPLE: &str = include_str!("../../../runtime-min/c/example.c");

pub(super) fn emit(id: &Identity<'_>, files: &mut BTreeMap<String, String>) {
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
    if matches!(
        Machine::of_triple(id.target),
        Some(Machine::X86_64(System::Android) | Machine::Aarch64(System::Android))
    ) {
        face += &format!("// For the Java class dev.tvlmc.Native.\nruntime_c::export_jni!({library}::Program);\n");
    }
    files.insert("c/src/lib.rs".to_string(), face);
    files.insert("c/include/tvlm.h".to_string(), HEADER.to_string());
    files.insert("c/example.c".to_string(), EXAMPLE.to_string());
    for (name, text) in INTERFACE {
        files.insert(format!("c/interface/src/{name}"), text.to_string());
    }
}

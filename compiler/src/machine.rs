//! What a model is compiled for.

use std::io;
use std::path::Path;
use std::process::Command;

use codegen_avx2::Level as X86;
use codegen_neon::Level as Arm;
use codegen_wasm::Level as Wasm;
use kernels::Target;

/// An instruction set and, where it matters, the system around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Machine {
    /// x86-64 processors.
    X86_64(System),
    /// aarch64 processors.
    Aarch64(System),
    /// WebAssembly engines, in modules of our own.
    Wasm,
    /// WebAssembly engines, in programs that rustc compiles.
    WasmRust,
}

/// An operating system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum System {
    /// Linux with the GNU C library.
    Linux,
    /// Android.
    Android,
    /// iOS and iPadOS on a device.
    Ios,
    /// The simulator of iOS.
    IosSimulator,
    /// macOS.
    MacOs,
}

impl Default for Machine {
    fn default() -> Machine {
        Machine::HOST
    }
}

impl Machine {
    /// What runs this code; x86-64 with Linux where it is none of ours.
    pub const HOST: Machine = {
        let system = if cfg!(target_os = "macos") {
            System::MacOs
        } else if cfg!(target_os = "android") {
            System::Android
        } else {
            System::Linux
        };
        if cfg!(target_arch = "aarch64") { Machine::Aarch64(system) } else { Machine::X86_64(system) }
    };

    /// What runs this code, if crates are emitted for it.
    pub fn here() -> Option<Machine> {
        Machine::named(std::env::consts::ARCH, std::env::consts::OS)
    }

    /// The machine that the standard library calls so.
    fn named(processor: &str, system: &str) -> Option<Machine> {
        let system = match system {
            "linux" => System::Linux,
            "android" => System::Android,
            "macos" => System::MacOs,
            _ => return None,
        };
        match processor {
            "x86_64" => Some(Machine::X86_64(system)),
            "aarch64" => Some(Machine::Aarch64(system)),
            _ => None,
        }
    }

    /// All that have a triple of their own.
    pub const ALL: [Machine; 10] = [
        Machine::X86_64(System::Linux),
        Machine::Aarch64(System::Linux),
        Machine::Aarch64(System::Android),
        Machine::X86_64(System::Android),
        Machine::Aarch64(System::Ios),
        Machine::Aarch64(System::IosSimulator),
        Machine::X86_64(System::IosSimulator),
        Machine::Aarch64(System::MacOs),
        Machine::X86_64(System::MacOs),
        Machine::Wasm,
    ];

    /// The one with a target triple.
    pub fn of_triple(triple: &str) -> Option<Machine> {
        Machine::ALL.into_iter().find(|machine| machine.triple() == triple)
    }

    /// The target triple, as rustc names it.
    pub const fn triple(self) -> &'static str {
        match self {
            Machine::X86_64(System::Linux) => "x86_64-unknown-linux-gnu",
            Machine::X86_64(System::Android) => "x86_64-linux-android",
            Machine::X86_64(System::Ios | System::IosSimulator) => "x86_64-apple-ios",
            Machine::X86_64(System::MacOs) => "x86_64-apple-darwin",
            Machine::Aarch64(System::Linux) => "aarch64-unknown-linux-gnu",
            Machine::Aarch64(System::Android) => "aarch64-linux-android",
            Machine::Aarch64(System::Ios) => "aarch64-apple-ios",
            Machine::Aarch64(System::IosSimulator) => "aarch64-apple-ios-sim",
            Machine::Aarch64(System::MacOs) => "aarch64-apple-darwin",
            Machine::Wasm | Machine::WasmRust => "wasm32-unknown-unknown",
        }
    }

    /// The operating system, where there is one.
    pub const fn system(self) -> Option<System> {
        match self {
            Machine::X86_64(system) | Machine::Aarch64(system) => Some(system),
            Machine::Wasm | Machine::WasmRust => None,
        }
    }

    /// Whether emitted crates have files, threads and a command line: `std` of the runtime.
    pub const fn has_std(self) -> bool {
        self.system().is_some()
    }

    /// The levels of a float or a quantized model, best first.
    pub(crate) fn levels(self, float: bool) -> Vec<Box<dyn Target>> {
        match (self, float) {
            (Machine::X86_64(_), true) => boxed(&X86::FLOAT),
            (Machine::X86_64(_), false) => boxed(&X86::EXACT),
            (Machine::Aarch64(_), true) => boxed(&Arm::FLOAT),
            (Machine::Aarch64(_), false) => boxed(&Arm::EXACT),
            (Machine::Wasm | Machine::WasmRust, true) => boxed(&Wasm::FLOAT),
            (Machine::Wasm, false) => boxed(&Wasm::EXACT),
            // Which dot product is faster would have to be measured before the program is compiled.
            (Machine::WasmRust, false) => boxed(&[Wasm::RelaxedExact, Wasm::Simd128]),
        }
    }

    /// The name of a level as emitted code and users say it.
    pub fn level_name(self, level: &str) -> String {
        let family = match self {
            Machine::X86_64(_) => "x86-64",
            Machine::Aarch64(_) => "aarch64",
            Machine::Wasm | Machine::WasmRust => "wasm32",
        };
        format!("{family}-{}", level.replace('_', "-"))
    }
}

/// Whether the rustc on the path has the standard library of a target.
///
/// # Errors
/// There is no rustc that could be run.
pub fn has_target(triple: &str) -> io::Result<bool> {
    let asked = Command::new("rustc").args(["--print", "target-libdir", "--target", triple]).output()?;
    Ok(Path::new(String::from_utf8_lossy(&asked.stdout).trim()).is_dir())
}

fn boxed<T: Target + Copy + 'static>(levels: &[T]) -> Vec<Box<dyn Target>> {
    levels.iter().map(|level| Box::new(*level) as Box<dyn Target>).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn triples_are_found_again() {
        for machine in Machine::ALL {
            assert_eq!(Machine::of_triple(machine.triple()), Some(machine));
        }
        assert_eq!(Machine::of_triple("riscv64gc-unknown-linux-gnu"), None);
    }

    #[test]
    fn machines_that_run_emitted_code() {
        assert!(Machine::here().is_none_or(|machine| machine == Machine::HOST));
        assert_eq!(Machine::named("aarch64", "linux"), Some(Machine::Aarch64(System::Linux)));
        assert_eq!(Machine::named("aarch64", "macos"), Some(Machine::Aarch64(System::MacOs)));
        assert_eq!(Machine::named("x86_64", "android"), Some(Machine::X86_64(System::Android)));
        for (processor, system) in [("riscv64", "linux"), ("x86_64", "windows"), ("wasm32", "unknown")] {
            assert_eq!(Machine::named(processor, system), None);
        }
    }
}

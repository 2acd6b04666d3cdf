//! The `tvlmc` command; everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    tvlmc::cli::main()
}

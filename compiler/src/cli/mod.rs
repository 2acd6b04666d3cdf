//! The `tvlmc` command: what its verbs do, and how they talk.
//!
//! Results go to stdout, everything else to stderr; the exit code says what kind of trouble there was.

mod args;
mod bundle;
mod cache;
mod compile;
mod delegate;
mod demo;
mod diff;
mod explain;
mod inspect;
mod library;
mod model;
mod picture;
mod predict;
mod recipe;
mod run;
mod runner;
mod system;
mod tune;
mod tuned;
mod ui;
mod verify;
mod web;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use crate::error::Error;
use args::{Cli, Command};
use ui::Ui;

/// Exit code after Ctrl-C.
const INTERRUPTED: u8 = 130;

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let mut ui = Ui::new(cli.quiet, cli.color);
    let code = match threads(&mut ui).and_then(|()| command(&cli.command, &ui)) {
        // Whoever stopped us knows.
        _ if ui.is_interrupted() => INTERRUPTED,
        Ok(code) => code,
        Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::BrokenPipe => 0,
        Err(error) => {
            ui.error(&error);
            error.exit_code()
        }
    };
    ExitCode::from(code)
}

/// Starts the threads that share the work, or does with this one where the system gives none.
fn threads(ui: &mut Ui) -> Result<(), Error> {
    // A trial, as the pool of all can be asked for once only.
    let builder = match rayon::ThreadPoolBuilder::new().build() {
        Ok(_) => rayon::ThreadPoolBuilder::new(),
        Err(_) => {
            ui.stop_bars();
            rayon::ThreadPoolBuilder::new().num_threads(1).use_current_thread()
        }
    };
    builder.build_global().map_err(|e| {
        Error::Environment(format!("cannot start threads: {e}: raise the limit on the processes of a user (ulimit -u)"))
    })
}

fn command(command: &Command, ui: &Ui) -> Result<u8, Error> {
    match command {
        Command::Compile(args) => compile::compile(args, ui),
        Command::Run(args) => run::run(args, ui),
        Command::Inspect(args) => inspect::inspect(args, ui),
        Command::Predict(args) => predict::predict(args, ui),
        Command::Tune(args) => tune::tune(args, ui),
        Command::Verify(args) => verify::verify(args, ui),
        Command::Demo(args) => demo::demo(args, ui),
        Command::Completions(args) => {
            let mut script = Vec::new();
            clap_complete::generate(args.shell, &mut Cli::command(), "tvlmc", &mut script);
            print(&String::from_utf8_lossy(&script)).map(|()| 0)
        }
    }
}

/// Writes a result. A reader that has gone away ends the command quietly.
fn print(text: &str) -> Result<(), Error> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(Error::io("write", "standard output".as_ref()))
}

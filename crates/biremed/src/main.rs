//! `biremed`, the daemon.

use std::io::Write as _;
use std::process::ExitCode;

use biremed::daemon;
use biremed::settings::{Flags, Settings};
use clap::Parser as _;

fn main() -> ExitCode {
    let flags = Flags::parse();
    let print_config = flags.print_config;
    let done = Settings::resolve(flags).and_then(|settings| {
        if print_config {
            return Ok(write!(std::io::stdout(), "{}", settings.explain())?);
        }
        daemon::run(settings)
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "biremed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

//! The command line of Bireme. It speaks only HTTP, so whatever it can do, `docker` and every SDK can.
//!
//! Three stages: [`cli`] is the grammar; [`settings`] turns flags, environment and defaults into plain values;
//! [`commands`] does the work with those values and prints only through a [`printer::Printer`].

#![warn(missing_docs)]

pub mod app;
pub mod archive;
pub mod attach;
pub mod cli;
pub mod commands;
pub mod context;
pub mod copy;
pub mod daemon;
pub mod error;
mod flame;
pub mod listing;
pub mod printer;
pub mod progress;
pub mod registry;
pub mod request;
pub mod settings;
pub mod template;
pub mod terminal;
pub mod top;
pub mod units;

use std::process::ExitCode;

use clap::FromArgMatches;

/// Reads the arguments, runs the command and turns what became of it into an exit code.
pub async fn main() -> ExitCode {
    let matches = match cli::command().try_get_matches() {
        Ok(matches) => matches,
        Err(error) => return error::usage(&error),
    };
    let cli = match cli::Cli::from_arg_matches(&matches) {
        Ok(cli) => cli,
        Err(error) => return error::usage(&error),
    };
    let name = matches.subcommand_name().map(str::to_owned);
    let settings = match settings::Settings::resolve(&cli.global, &settings::Process) {
        Ok(settings) => settings,
        Err(error) => return error::report(&error, name.as_deref()),
    };
    let context = context::Context::new(settings, cli.app);
    match Box::pin(commands::run(&context, cli.command)).await {
        Ok(code) => ExitCode::from(code),
        Err(error) => error::report(&error, name.as_deref()),
    }
}

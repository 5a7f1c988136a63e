//! Plays Whiskers over HTTP, from this machine to this machine: `play` loads the app and checks every score, `check`
//! tries every module once.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for people to watch")]

mod check;
mod connection;
mod play;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use bireme_api::client::{Client, Host};
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(about = "Plays Whiskers over HTTP")]
struct Cli {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Many games at once; afterwards every score must be what was acknowledged
    Play {
        #[arg(long, default_value_t = 8080)]
        port: u16,
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=500))]
        players: u16,
        #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u16).range(1..=300))]
        seconds: u16,
        /// The engine, for the count of instances
        #[arg(long, env = "BIREME_HOST")]
        host: Option<Host>,
    },
    /// Every module once, with good and bad requests, and one short game
    Check {
        #[arg(long, default_value_t = 8080)]
        port: u16,
        /// What the app was started with as WHISKERS_OPERATOR_TOKEN
        #[arg(long)]
        token: String,
    },
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Cli::parse().what).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("whiskers-bots: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(what: What) -> Result<()> {
    match what {
        What::Play { port, players, seconds, host } => {
            let engine = host.map(Client::new);
            play::run(port, players.into(), Duration::from_secs(seconds.into()), engine.as_ref()).await
        }
        What::Check { port, token } => check::run(port, &token).await,
    }
}

//! One file per command. Each takes the context and its own arguments and answers the exit code.

mod inspect;
mod ps;
mod pull;
mod run;
mod version;

use crate::cli::Command;
use crate::context::Context;
use crate::error::Outcome;

/// Runs one command.
pub async fn run(context: &Context, command: Command) -> Outcome {
    context.ensure_engine().await?;
    match command {
        Command::Run(args) => run::run(context, &args).await,
        Command::Ps(args) => ps::ps(context, &args).await,
        Command::Inspect(args) => inspect::inspect(context, &args).await,
        Command::Pull(args) => pull::pull(context, &args).await,
        Command::Version(args) => version::version(context, &args).await,
        _ => anyhow::bail!("later"),
    }
}

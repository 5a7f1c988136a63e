//! `soak`: the stories of `tests/tests/soak` with more clients and for longer than CI has time for.

use anyhow::Result;

use crate::{task_whiskers, workspace};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Clients at once
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u16).range(1..=1000))]
    clients: u16,
    /// How long they go on
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u16).range(1..=3600))]
    seconds: u16,
    /// Builds, networks, volumes, components and apps beside the lives of containers, and the example played all the while
    #[arg(long)]
    everything: bool,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    // All of the workspace, as everything else is built: another set would mean other features, and compiling anew.
    workspace::run(&mut workspace::cargo(&["build", "--locked", "--workspace", "--all-targets"]))?;
    let story = if args.everything { "everything_at_once" } else { "many_clients" };
    if args.everything {
        task_whiskers::build()?;
    }
    let mut test = workspace::cargo(&["test", "--locked", "--workspace", "--test", "soak", "--", "--nocapture", story]);
    test.env("BIREME_SOAK", format!("{}x{}", args.clients, args.seconds));
    workspace::run(&mut test)
}

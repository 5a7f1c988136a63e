//! `soak`: the story of `tests/tests/soak.rs` with more clients and for longer than CI has time for.

use anyhow::Result;

use crate::house;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Clients at once
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u16).range(1..=1000))]
    clients: u16,
    /// How long they go on
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u16).range(1..=3600))]
    seconds: u16,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    // All of the workspace, as everything else is built: another set would mean other features, and compiling anew.
    house::run(&mut house::cargo(&["build", "--locked", "--workspace", "--all-targets"]))?;
    let mut test = house::cargo(&["test", "--locked", "--workspace", "--test", "soak", "--", "--nocapture"]);
    test.env("BIREME_SOAK", format!("{}x{}", args.clients, args.seconds));
    house::run(&mut test)
}

//! `growth`: how times grow with the number of things, by `benches/src/growth.rs`.

use std::process::Stdio;

use anyhow::Result;

use crate::{task_bench, task_guests, task_images, task_setup, workspace};

/// Where in `docs/performance.md` the table goes.
const MARKS: (&str, &str) = ("<!-- ./x growth --write -->", "<!-- end of growth -->");

#[derive(clap::Args)]
pub(crate) struct Args {
    /// How many of each
    #[arg(long, value_delimiter = ',', default_values_t = [10, 100, 1000])]
    sizes: Vec<u16>,
    /// Put the table into docs/performance.md
    #[arg(long)]
    write: bool,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    task_setup::packages()?;
    task_images::run()?;
    task_guests::run()?;
    workspace::run(&mut workspace::cargo(&["build", "--locked", "--workspace", "--all-targets"]))?;
    let sizes: Vec<String> = args.sizes.iter().map(ToString::to_string).collect();
    let mut command = workspace::program(workspace::bin("bireme-benches"));
    let table = workspace::output(command.args(["--growth", &sizes.join(",")]).stderr(Stdio::inherit()))?;
    println!("{table}");
    if args.write { task_bench::write(MARKS, &table) } else { Ok(()) }
}

//! Tasks of the workspace, one file each. `./x help` lists them.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for people to watch")]

mod circles;
mod compat_builds;
mod debian;
mod nextest;
mod steps;
mod task_bench;
mod task_check;
mod task_compat;
mod task_demo;
mod task_deny;
mod task_deps;
mod task_docs;
mod task_growth;
mod task_guests;
mod task_images;
mod task_oracle;
mod task_published;
mod task_setup;
mod task_soak;
mod task_test;
mod task_vm;
mod task_whiskers;
mod unsafe_code;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "x", about = "Tasks of the workspace")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install and unpack what building, testing and the demo need; what is there stays as it is
    Setup,
    /// Build the test guests into target/guests
    Guests,
    /// Make the images that tests and the demo run, into target/images
    Images,
    /// Load the example app: N players at once for S seconds, then every score is checked (`build` builds its modules)
    Whiskers(task_whiskers::Args),
    /// Start the example app and say where to look
    Demo(task_demo::Args),
    /// Formatting, edges, clippy, unit and property tests: under a minute once everything was compiled, without root
    Check,
    /// Everything that CI runs
    Test,
    /// Time the release build beside Docker's engine, podman and wasmtime
    Bench(task_bench::Args),
    /// Time 10, 100 and 1,000 of each thing
    Growth(task_growth::Args),
    /// Many clients at once that create, start, listen and remove, for minutes; what is left over is a failure
    Soak(task_soak::Args),
    /// Run the stories of containers in a virtual machine with cgroup v2 alone; arguments go to the tests
    Vm(task_vm::Args),
    /// Docker's own engine, for comparison: `start` it, `stop` it
    Oracle(task_oracle::Args),
    /// Run the tests of client libraries (bollard, testcontainers) from their published packages
    Published(task_published::Args),
    /// Run the API's request scripts against Docker's own engine and ours, and write docs/compatibility.md
    Compat(task_compat::Args),
    /// Check that the crates use each other as ARCHITECTURE.md allows, that no files do in a circle, and where `unsafe` stands
    Deps,
    /// Check licences, sources and advisories of the dependencies
    Deny,
    /// Write the generated reference pages
    Docs(task_docs::Args),
}

fn main() -> ExitCode {
    let done = match Cli::parse().task {
        Task::Setup => task_setup::run(),
        Task::Guests => task_guests::run(),
        Task::Images => task_images::run(),
        Task::Whiskers(args) => task_whiskers::run(&args),
        Task::Demo(args) => task_demo::run(&args),
        Task::Check => task_check::run(),
        Task::Test => task_test::run(),
        Task::Bench(args) => task_bench::run(&args),
        Task::Growth(args) => task_growth::run(&args),
        Task::Soak(args) => task_soak::run(&args),
        Task::Vm(args) => task_vm::run(&args),
        Task::Oracle(args) => task_oracle::run(&args),
        Task::Published(args) => task_published::run(&args),
        Task::Compat(args) => task_compat::run(&args),
        Task::Deps => task_deps::run(),
        Task::Deny => task_deny::run(),
        Task::Docs(args) => task_docs::run(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("x: {error:#}");
            ExitCode::FAILURE
        }
    }
}

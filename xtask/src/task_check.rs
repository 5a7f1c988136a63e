//! `check`: what shows most mistakes within a minute, once everything was compiled: formatting, edges, clippy, and the tests
//! that stand on nothing but the code. `./x test` is what CI runs, and knows more.

use std::path::Path;

use anyhow::Result;

use crate::steps::Steps;
use crate::{nextest, task_deps, task_test, workspace};

/// What has such tests: the crates themselves, and of their folders `tests` the files that start nothing.
const TARGETS: [&str; 16] = [
    "--lib", "--bins", "--test", "golden", "--test", "plan", "--test", "request", "--test", "robust", "--test",
    "schema", "--test", "help", "--test", "lives",
];

/// Where Linux has a file system in memory for everybody.
const MEMORY: &str = "/dev/shm";

pub(crate) fn run() -> Result<()> {
    let mut steps = Steps::default();
    let checked = all(&mut steps);
    steps.tell();
    checked
}

fn all(steps: &mut Steps) -> Result<()> {
    steps.step("formatting", task_test::formatting)?;
    steps.step("edges between crates", task_deps::run)?;
    steps.step("clippy", task_test::clippy)?;
    steps.step("unit and property tests", || {
        let mut command = if nextest::is_there() {
            // The profile leaves out what needs root or takes long.
            nextest::command("check", &TARGETS)
        } else {
            let mut command = workspace::cargo(&["test", "--quiet", "--locked", "--workspace", "--no-fail-fast"]);
            command.args(TARGETS);
            command
        };
        // Tests of what is kept on the disk wait for it at every step: minutes, beside others that write.
        if Path::new(MEMORY).is_dir() {
            command.env("TMPDIR", MEMORY);
        }
        workspace::run(&mut command)
    })
}

//! `test`: everything that CI runs, in order, each step timed; the last lines are the test runner's summary.

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;
use std::thread;

use anyhow::{Context, Result, anyhow, bail};

use crate::steps::Steps;
use crate::{
    nextest, task_deny, task_deps, task_docs, task_guests, task_images, task_published, task_setup, task_vm,
    task_whiskers, workspace,
};

pub(crate) fn run() -> Result<()> {
    let mut steps = Steps::default();
    let tested = all(&mut steps);
    steps.tell();
    println!("\n{}", tested?);
    Ok(())
}

/// Answers the summary of the test runner.
fn all(steps: &mut Steps) -> Result<String> {
    steps.step("Debian packages", task_setup::packages_of_tests)?;
    steps.step("formatting", formatting)?;
    steps.step("edges between crates", task_deps::run)?;
    // What is fetched and built for WebAssembly does not wait for the workspace, nor the workspace for it.
    steps.step("build, guests, images", || {
        thread::scope(|scope| {
            let beside = scope.spawn(|| -> Result<()> {
                task_images::run()?;
                task_guests::run()?;
                task_whiskers::build()
            });
            let built = workspace::run(&mut workspace::cargo(&["build", "--locked", "--workspace", "--all-targets"]));
            let beside = beside.join().unwrap_or_else(|_| Err(anyhow!("the build of guests and images panicked")));
            built.and(beside)
        })
    })?;
    steps.step("generated pages", || task_docs::run(&task_docs::Args { check: true }))?;
    steps.step("clippy", clippy)?;
    steps.step("licences and sources", task_deny::run)?;
    steps.step("demo, checked, and in a browser", || {
        // A process of its own, so that what it leaves running would be seen.
        workspace::run(workspace::program(workspace::bin("xtask")).args([
            "demo",
            "--built",
            "--check",
            "--browser",
            "--players",
            "20",
        ]))
    })?;
    steps.step("tests of the example", || {
        let manifest = "examples/whiskers/Cargo.toml";
        let target = workspace::made("whiskers-build").display().to_string();
        let common = ["--locked", "--manifest-path", manifest, "--target-dir", &target];
        workspace::run(workspace::cargo(&["test", "--quiet", "--package", "pantry", "--package", "files"]).args(common))
    })?;
    steps.step("cgroup v2, in a virtual machine", || {
        if !task_vm::is_offered() {
            eprintln!("x: left out: the virtual machine is an x86-64 one, from Debian's packages");
            return Ok(());
        }
        let args = task_vm::Args::default();
        match task_vm::run(&args) {
            // An emulated machine is slow enough to show a race that no other does: told, and tried once more where it
            // would hold up a landing, as the tests on this machine are.
            Err(error) if is_ci() => {
                eprintln!("x: FLAKY, unless it fails again: {error:#}");
                task_vm::run(&args)
            }
            other => other,
        }
    })?;
    steps.step("tests of others", || task_published::run(&task_published::Args::default()))?;
    let summary = steps.step("tests", tests)?;
    if nextest::is_there() && is_ci() {
        steps.step("flaky tests, alone", nextest::try_flaky_again)?;
    }
    Ok(summary)
}

pub(crate) fn formatting() -> Result<()> {
    workspace::run(&mut workspace::cargo(&["fmt", "--all", "--check"]))
}

pub(crate) fn clippy() -> Result<()> {
    let warnings = ["--", "-D", "warnings"];
    workspace::run(workspace::cargo(&["clippy", "--locked", "--workspace", "--all-targets"]).args(warnings))
}

/// Whether a landing waits for this: what fails is then tried once more.
fn is_ci() -> bool {
    std::env::var_os("CI").is_some()
}

/// Runs every test of the workspace; answers the summary of the runner.
fn tests() -> Result<String> {
    let nextest = nextest::is_there();
    let mut command = if nextest {
        nextest::command(if is_ci() { nextest::CI } else { "default" }, &[])
    } else {
        workspace::cargo(&["test", "--locked", "--workspace", "--no-fail-fast"])
    };
    // The golden Compose files are compared with what the real Compose makes of them today, not only with what is kept.
    command.env("BIREME_COMPOSE_ORACLE", task_setup::compose_plugin());
    // nextest reports on standard error, cargo test on standard output.
    if nextest {
        command.stderr(Stdio::piped());
    } else {
        command.stdout(Stdio::piped());
    }
    let mut child = command.spawn().context("cannot start the tests")?;
    let report: Box<dyn std::io::Read> = match (child.stdout.take(), child.stderr.take()) {
        (Some(out), _) => Box::new(out),
        (_, Some(err)) => Box::new(err),
        _ => bail!("the tests have no output"),
    };
    let mut summary = Vec::new();
    for line in BufReader::new(report).lines() {
        let line = line.context("cannot read the tests' report")?;
        writeln!(std::io::stderr(), "{line}").context("cannot pass the tests' report on")?;
        if line.contains("Summary [") || line.starts_with("test result:") {
            summary.push(line);
        }
    }
    let status = child.wait().context("cannot wait for the tests")?;
    if !status.success() {
        bail!("the tests ended with {status}\n{}", summary.join("\n"));
    }
    Ok(summary.join("\n"))
}

//! `test`: everything that CI runs, in order, each step timed; the last lines are the test runner's summary.

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;
use std::thread;

use anyhow::{Context, Result, anyhow, bail};

use crate::steps::Steps;
use crate::{
    task_deny, task_deps, task_docs, task_guests, task_images, task_published, task_setup, task_vm, task_whiskers,
    workspace,
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
    steps.step("Debian packages", task_setup::packages)?;
    steps.step("formatting", || workspace::run(&mut workspace::cargo(&["fmt", "--all", "--check"])))?;
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
    steps.step("clippy", || {
        workspace::run(&mut workspace::cargo(&[
            "clippy",
            "--locked",
            "--workspace",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ]))
    })?;
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
            Err(error) if std::env::var_os("CI").is_some() => {
                eprintln!("x: FLAKY, unless it fails again: {error:#}");
                task_vm::run(&args)
            }
            other => other,
        }
    })?;
    steps.step("tests of others", || task_published::run(&task_published::Args::default()))?;
    steps.step("tests", tests)
}

/// Runs every test of the workspace; answers the summary of the runner.
fn tests() -> Result<String> {
    let nextest = workspace::has("cargo-nextest");
    let profile = if std::env::var_os("CI").is_some() { "ci" } else { "default" };
    let arguments: &[&str] = if nextest {
        &["nextest", "run", "--profile", profile, "--locked", "--workspace", "--no-fail-fast"]
    } else {
        &["test", "--locked", "--workspace", "--no-fail-fast"]
    };
    let mut command = workspace::cargo(arguments);
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

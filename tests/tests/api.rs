//! The Engine API, case by case: a test for each case of the request scripts in `tests/api`, called
//! `SCRIPT::SUBJECT | WHAT IS EXPECTED`. `./x compat` runs them against Docker's own engine as well.
//!
//! Each has a private engine, with its data in memory and those images that the case speaks of: up and down again in a
//! fifth of a second, of which the processor works for 0.1 s. So every case is held to leave nothing behind, and none
//! depends on what another did; one engine for all of them would have to outlive the processes in which nextest runs the
//! tests, which nobody then ends and looks after. They mostly wait, so `.config/nextest.toml` runs four at once.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeSet;
use std::process::{Command, ExitCode};
use std::sync::Arc;

use bireme_testing::Engine;
use bireme_testing::conformance::{self, Case, Script};
use libtest_mimic::{Arguments, Failed, Trial};

fn main() -> ExitCode {
    let mut trials = vec![Trial::test("every_endpoint_and_flag_has_a_case", || {
        every_endpoint_and_flag_has_a_case();
        Ok(())
    })];
    trials.push(Trial::test("all_scripts_together", all_together));
    for script in conformance::scripts().unwrap() {
        let script = Arc::new(script);
        for at in 0..script.cases.len() {
            let case = &script.cases[at];
            let name = format!("{}::{} | {}", script.name, case.subject, case.says);
            let script = Arc::clone(&script);
            trials.push(Trial::test(name, move || run(&script, &script.cases[at])));
        }
    }
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// All cases of all scripts on one engine, several at a time, so that each meets what the others made: a filter that is
/// ignored, or a prune that takes too much, shows itself here.
fn all_together() -> Result<(), Failed> {
    let engine = Engine::start();
    for image in ["busybox", "alpine"] {
        engine.load(image);
    }
    let shapes = conformance::folder().join("shapes");
    let run = conformance::Run { socket: &engine.socket(), shapes: &shapes, reference: false };
    let outcomes = conformance::run(&run, &conformance::scripts()?);
    let complaints: Vec<String> = outcomes.iter().filter_map(conformance::Outcome::complaint).collect();
    if !complaints.is_empty() {
        return Err(format!("{} of {} cases:\n{}", complaints.len(), outcomes.len(), complaints.join("\n")).into());
    }
    engine.finish();
    Ok(())
}

fn run(script: &Script, case: &Case) -> Result<(), Failed> {
    let engine = Engine::in_memory();
    for image in ["busybox", "alpine"].into_iter().filter(|image| case.names(image)) {
        engine.load(image);
    }
    let shapes = conformance::folder().join("shapes");
    let run = conformance::Run { socket: &engine.socket(), shapes: &shapes, reference: false };
    if let Some(complaint) = conformance::run_case(&run, script, case).complaint() {
        return Err(complaint.into());
    }
    engine.finish();
    Ok(())
}

fn every_endpoint_and_flag_has_a_case() {
    let scripts = conformance::scripts().unwrap();
    let subjects: BTreeSet<&str> =
        scripts.iter().flat_map(|script| &script.cases).map(|case| case.subject.as_str()).collect();
    let endpoints = std::fs::read_to_string(conformance::folder().join("endpoints.txt")).unwrap();
    let mut wanted: Vec<String> = endpoints.lines().map(str::to_owned).collect();
    let help = Command::new("docker").args(["run", "--help"]).output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let flags = help.lines().filter_map(|line| line.trim_start().split("--").nth(1)?.split(' ').next());
    wanted.extend(flags.filter(|flag| !flag.is_empty()).map(|flag| format!("docker run --{flag}")));
    let missing: Vec<&String> = wanted.iter().filter(|one| !subjects.contains(one.as_str())).collect();
    assert!(wanted.len() > 150, "the lists are cut short: {wanted:?}");
    assert!(missing.is_empty(), "no case for {missing:#?}");
}

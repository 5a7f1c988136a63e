//! The Engine API, case by case: the request scripts of `tests/api` against a private engine. `./x compat` runs them
//! against Docker's own engine as well.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeSet;
use std::process::Command;

use bireme_testing::{Engine, conformance};

#[test]
fn the_engine_answers_as_dockers_does() {
    let engine = Engine::start();
    for image in ["busybox", "alpine"] {
        engine.load(image);
    }
    let scripts = conformance::scripts().unwrap();
    let shapes = conformance::folder().join("shapes");
    let socket = engine.socket();
    let run = conformance::Run { socket: &socket, shapes: &shapes, reference: false };
    let outcomes = conformance::run(&run, &scripts);
    let complaints: Vec<String> = outcomes.iter().filter_map(conformance::Outcome::complaint).collect();
    assert!(complaints.is_empty(), "{} of {} cases:\n{}", complaints.len(), outcomes.len(), complaints.join("\n"));
    engine.finish();
}

#[test]
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

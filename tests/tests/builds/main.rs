//! The corpus of builds: Dockerfiles in the styles that people use, built by real clients, and what Docker's own engine
//! makes of them. A test for each case and client, called `CASE::CLIENT`.
//!
//! A case is a folder of `tests/builds` (its README tells the form). What comes of it (exit code, configuration, files with
//! modes and owners) is kept in `expected.json`, which only Docker's engine writes (`./x oracle builds --record`), and which
//! ours must reach. What it does not reach yet is in `tests/builds/not-yet.txt`, with the reason; a case in that list that
//! passes fails, so that the list stays true.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod case;
mod client;
mod outcome;
mod side;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;

use libtest_mimic::{Arguments, Failed, Trial};
use serde_json::{Map, Value, json};

use case::Case;
use client::Client;
use side::Side;

/// Set by `./x compat`: the folder into which every test writes what came of it.
const REPORT: &str = "BIREME_TEST_REPORT";

fn main() -> ExitCode {
    let cases = case::all();
    let mut trials = vec![Trial::test("the_list_of_what_does_not_pass_yet_names_cases", || {
        let known: BTreeSet<String> =
            case::all().iter().flat_map(|case| case.clients.iter().map(|client| name(case, *client))).collect();
        let unknown: Vec<String> = not_yet().into_iter().map(|(name, _)| name).filter(|n| !known.contains(n)).collect();
        if unknown.is_empty() { Ok(()) } else { Err(format!("there are no such cases: {unknown:?}").into()) }
    })];
    for case in cases {
        let case = Arc::new(case);
        for &client in &case.clients {
            let case = Arc::clone(&case);
            trials.push(Trial::test(name(&case, client), move || check(&case, client)));
        }
    }
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn name(case: &Case, client: Client) -> String {
    format!("{}::{}", case.name, client.name())
}

/// The names of `not-yet.txt`, each with the sentence why.
fn not_yet() -> Vec<(String, String)> {
    let text = std::fs::read_to_string(case::folder().join("not-yet.txt")).unwrap_or_default();
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let mut names = Vec::new();
    for line in lines {
        let (what, why) = line.split_once(": ").unwrap_or_else(|| panic!("not-yet.txt: no sentence in {line:?}"));
        let mut words = what.split_whitespace();
        let case = words.next().unwrap_or_default();
        names.extend(words.map(|client| (format!("{case}::{client}"), why.to_owned())));
    }
    names
}

fn check(case: &Case, client: Client) -> Result<(), Failed> {
    let side = Side::start(case);
    let tag = format!("builds-{}-{}", case.name, client.name());
    let folder = side.folder().join("context").join(&case.name);
    std::fs::create_dir_all(folder.parent().unwrap()).unwrap();
    copy(&case::folder().join(&case.name), &folder);
    let (outcome, told) = outcome::of(case, client, &side, &folder, &tag);
    let kept = case::folder().join(&case.name).join("expected.json");
    let all = Expected::read(&kept);
    if side.is_docker() {
        // What Docker does not say are wrong words; not every client shows all that it says.
        let said = outcome["said"].as_array().map_or(0, Vec::len);
        let silent = said == 0 && !case.words.is_empty();
        if silent || case.fails == (outcome["exit"] == 0) || outcome.get("secrets found in").is_some() {
            return Err(format!("{outcome:#}\nis not what case.json says of Docker's engine\n{told}").into());
        }
    }
    if side::records() {
        all.with(client, outcome).write(&kept);
        side.finish(&tag);
        return Ok(());
    }
    let wanted = all.of(client).cloned().unwrap_or_default();
    let difference = if wanted == outcome { None } else { Some(difference(&side, &wanted, &outcome)) };
    let known = not_yet().into_iter().find(|(listed, _)| *listed == name(case, client) && !side.is_docker());
    report(case, client, difference.is_none(), known.as_ref().map(|(_, why)| why.as_str()));
    match (difference, known) {
        (None, None) | (Some(_), Some(_)) => {}
        (None, Some(_)) => return Err("it is built as on Docker's engine now: take it out of not-yet.txt".into()),
        (Some(difference), None) => {
            let needs = case.needs.join(", ");
            return Err(format!("not as expected.json (needs: {needs}):\n{difference}\nprinted:\n{told}").into());
        }
    }
    side.finish(&tag);
    Ok(())
}

/// Copies a folder; modes are those of a plain checkout, whatever the mask of this one was.
fn copy(from: &Path, to: &Path) {
    let done = Command::new("cp").arg("-rT").arg(from).arg(to).status().unwrap();
    assert!(done.success(), "{} cannot be copied", from.display());
    let done = Command::new("chmod").arg("-R").arg("u=rwX,go=rX").arg(to).status().unwrap();
    assert!(done.success(), "the modes of {} cannot be set", to.display());
    for own in ["case.json", "expected.json"] {
        let _ = std::fs::remove_file(to.join(own));
    }
}

fn report(case: &Case, client: Client, same: bool, why: Option<&str>) {
    if let Some(folder) = std::env::var_os(REPORT).map(PathBuf::from) {
        let line = json!({ "case": case.name, "says": case.says, "client": client.name(), "same": same, "why": why });
        std::fs::write(folder.join(name(case, client)), line.to_string()).unwrap();
    }
}

fn difference(side: &Side, wanted: &Value, got: &Value) -> String {
    let path = |name: &str, value: &Value| {
        let path = side.folder().join(name);
        std::fs::write(&path, format!("{value:#}\n")).unwrap();
        path
    };
    let (wanted, got) = (path("wanted", wanted), path("got", got));
    let told = Command::new("diff").arg("-U4").arg(wanted).arg(got).output().unwrap();
    String::from_utf8_lossy(&told.stdout).lines().skip(2).collect::<Vec<_>>().join("\n")
}

/// What is expected of each client, by name. On disk what is the same for several is written once, for the first.
struct Expected(Map<String, Value>);

impl Expected {
    fn read(path: &Path) -> Self {
        let text = std::fs::read_to_string(path).unwrap_or_else(|_| "{}".to_owned());
        let kept: Map<String, Value> = serde_json::from_str(&text).unwrap();
        let whole = |value: &Value| {
            let other = value.as_str().and_then(|text| text.strip_prefix("as "));
            other.map_or_else(|| value.clone(), |other| kept[other].clone())
        };
        Self(kept.iter().map(|(client, value)| (client.clone(), whole(value))).collect())
    }

    fn of(&self, client: Client) -> Option<&Value> {
        self.0.get(client.name())
    }

    fn with(mut self, client: Client, outcome: Value) -> Self {
        self.0.insert(client.name().to_owned(), outcome);
        self
    }

    fn write(&self, path: &Path) {
        let short = self.0.iter().map(|(client, value)| {
            let (first, _) = self.0.iter().find(|(_, other)| *other == value).unwrap();
            let short = if first == client { value.clone() } else { json!(format!("as {first}")) };
            (client.clone(), short)
        });
        let short: Map<String, Value> = short.collect();
        std::fs::write(path, format!("{:#}\n", Value::Object(short))).unwrap();
    }
}

//! The corpus: every valid case resolves to what the real Compose resolves it to, every invalid one to its message.
//!
//! `expected.json` of a valid case is what `docker-compose config --format json` (2.40.3) answers, with the place of the
//! repository taken out. With `BIREME_COMPOSE_ORACLE=/path/to/docker-compose` the real one is asked again and must still
//! answer the same; with `BIREME_COMPOSE_BLESS=1` as well, its answers and our messages are written down anew.

#![allow(clippy::unwrap_used, reason = "an unwrap that fails fails the test")]

mod common;

use std::fs;
use std::process::Command;

use bireme_compose::{ComposeError, LoadOptions, Project, load};
use common::{Case, Disk, oracle};
use serde_json::Value;

fn bless() -> bool {
    std::env::var_os("BIREME_COMPOSE_BLESS").is_some()
}

fn ask(oracle: &std::path::Path, case: &Case) -> std::process::Output {
    Command::new(oracle)
        .args(&case.args)
        .args(["config", "--format", "json"])
        .current_dir(&case.cwd)
        .env_clear()
        .envs(&case.env)
        .output()
        .unwrap()
}

/// What two ways of saying the same look like once they are one.
fn normalise(value: &mut Value) {
    for service in value["services"].as_object_mut().into_iter().flat_map(|services| services.values_mut()) {
        let Some(service) = service.as_object_mut() else { continue };
        // The real one prints `null` for an absent command.
        for key in ["command", "entrypoint"] {
            if service.get(key).is_some_and(Value::is_null) {
                service.remove(key);
            }
        }
        // It prints an empty placement for every `deploy`, and leaves extensions out of JSON (not out of YAML).
        if let Some(deploy) = service.get_mut("deploy").and_then(Value::as_object_mut)
            && deploy.get("placement").is_some_and(|placement| *placement == serde_json::json!({}))
        {
            deploy.remove("placement");
        }
        // Its JSON (not its YAML) spells the limits of devices as Go does.
        for limit in service.get_mut("blkio_config").and_then(Value::as_object_mut).into_iter().flatten() {
            for limit in limit.1.as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut) {
                *limit = std::mem::take(limit).into_iter().map(|(key, value)| (key.to_lowercase(), value)).collect();
            }
        }
        service.retain(|key, _| !key.starts_with("x-"));
    }
    for section in ["networks", "volumes", "secrets", "configs"] {
        for member in value[section].as_object_mut().into_iter().flat_map(|members| members.values_mut()) {
            if let Some(member) = member.as_object_mut() {
                member.retain(|key, _| !key.starts_with("x-"));
            }
        }
    }
}

fn loaded(case: &Case) -> Result<Project, ComposeError> {
    load(&case.options(), &Disk)
}

#[test]
fn valid_files_resolve_as_with_the_real_compose() {
    let mut wrong = Vec::new();
    for case in Case::all("valid") {
        let golden = case.folder.join("expected.json");
        if let Some(oracle) = oracle() {
            let output = ask(&oracle, &case);
            if !output.status.success() {
                wrong.push(format!(
                    "{}: the real Compose refuses: {}",
                    case.name,
                    String::from_utf8_lossy(&output.stderr)
                ));
                continue;
            }
            let mut theirs: Value = serde_json::from_slice(&output.stdout).unwrap();
            normalise(&mut theirs);
            let text = case.portable(&format!("{theirs:#}\n"));
            if bless() {
                fs::write(&golden, &text).unwrap();
            }
            let kept: Value = serde_json::from_str(&fs::read_to_string(&golden).unwrap()).unwrap();
            let asked: Value = serde_json::from_str(&text).unwrap();
            if kept != asked {
                wrong.push(format!("{}: expected.json is not what the real Compose answers", case.name));
            }
        }
        let expected: Value = serde_json::from_str(&fs::read_to_string(&golden).unwrap()).unwrap();
        match loaded(&case) {
            Err(error) => wrong.push(format!("{}: refused: {error}", case.name)),
            Ok(project) => {
                let mut ours: Value = serde_json::from_str(&case.portable(&project.to_json())).unwrap();
                normalise(&mut ours);
                differences(&case.name, &ours, &expected, &mut wrong);
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

fn differences(path: &str, ours: &Value, theirs: &Value, wrong: &mut Vec<String>) {
    match (ours, theirs) {
        (Value::Object(a), Value::Object(b)) => {
            for key in a.keys().chain(b.keys().filter(|key| !a.contains_key(*key))) {
                let nothing = Value::from("<absent>");
                let (a, b) = (a.get(key).unwrap_or(&nothing), b.get(key).unwrap_or(&nothing));
                differences(&format!("{path}.{key}"), a, b, wrong);
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (index, (a, b)) in a.iter().zip(b).enumerate() {
                differences(&format!("{path}[{index}]"), a, b, wrong);
            }
        }
        (a, b) if a != b => wrong.push(format!("{path}: ours {a}, theirs {b}")),
        _ => {}
    }
}

#[test]
fn what_is_printed_reads_back_as_the_same_project() {
    for case in Case::all("valid") {
        let Ok(project) = loaded(&case) else { continue };
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("compose.yaml");
        fs::write(&file, project.to_yaml()).unwrap();
        let options = LoadOptions {
            files: vec![file],
            profiles: vec!["*".to_owned()],
            working_dir: folder.path().to_owned(),
            ..LoadOptions::default()
        };
        let again =
            load(&options, &Disk).unwrap_or_else(|error| panic!("{}: {error}\n{}", case.name, project.to_yaml()));
        assert_eq!(again.to_yaml(), project.to_yaml(), "{}", case.name);
    }
}

#[test]
fn invalid_files_are_refused_with_their_message() {
    let mut wrong = Vec::new();
    for case in Case::all("invalid") {
        let golden = case.folder.join("error.txt");
        let error = match loaded(&case) {
            Ok(_) => {
                wrong.push(format!("{}: accepted", case.name));
                continue;
            }
            Err(error) => error,
        };
        let message = case.portable(&format!("{error}\n"));
        if bless() {
            fs::write(&golden, &message).unwrap();
        }
        let expected = fs::read_to_string(&golden).unwrap_or_default();
        if message != expected {
            wrong.push(format!("{}:\n  ours     {message}  expected {expected}", case.name));
        }
        // What we call malformed, the real one refuses too; what we do not offer, it accepts.
        let malformed = error.kind() != bireme_core::ErrorKind::Unsupported && !case.stricter;
        if let Some(oracle) = oracle()
            && malformed
            && ask(&oracle, &case).status.success()
        {
            wrong.push(format!("{}: the real Compose accepts it; we said: {message}", case.name));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

//! Small Dockerfiles and what BuildKit says of them.
//!
//! `buildkit.json` was written down from Docker's engine 28.5.2 and buildx 0.29.1 (`docker build --call=check,format=json`)
//! with an image `busybox` whose environment is a PATH alone.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeMap;

use bireme_dockerfile::lint::{BaseImage, LintContext, lint};
use bireme_dockerfile::scope::{PlatformWords, Variables, globals, predefined};
use bireme_dockerfile::{Dockerfile, Expander, Instruction, Keyword, ParseError, graph, read};
use serde_json::{Value, json};

fn variables() -> Variables {
    let linux = PlatformWords { os: "linux", arch: "amd64", variant: "" };
    predefined(linux, linux, None, &BTreeMap::new())
}

/// What a front end would find, short of running anything.
fn say(text: &str) -> Value {
    let mut warnings = Vec::new();
    let error = found(text, &mut warnings).err();
    let mut said = json!({ "file": text, "warnings": warnings });
    if let Some(error) = error {
        let at: Vec<usize> = error.lines.iter().flat_map(|lines| lines.each()).collect();
        said["error"] = json!(error.message);
        said["at"] = json!(at);
    }
    said
}

fn found(text: &str, said: &mut Vec<Value>) -> Result<(), ParseError> {
    let file = Dockerfile::parse(text)?;
    let (build_args, predefined) = (BTreeMap::new(), variables());
    let path = [("PATH".to_owned(), "/bin".to_owned())];
    let base = |_: &str| Some(BaseImage { env: path.iter().cloned().collect(), shell: false });
    let context = LintContext { build_args: &build_args, predefined: &predefined, base: &base, ignored: None };
    let (warnings, refusal) = lint(&file, &context)?;
    for warning in &warnings {
        let at: Vec<usize> = warning.lines.each().collect();
        said.push(json!([warning.rule, warning.detail, at]));
    }
    let globals = globals(&file, &predefined, &build_args)?;
    let value = |name: &str| globals.values.get(name).map(str::to_owned);
    let mut expander = Expander::new(file.directives.escape, &value);
    for stage in 0..file.stages.len() {
        graph::platform(&file, stage, &mut expander)?;
    }
    graph::needed(&file, file.stages.len() - 1, &mut expander)?;
    for stage in &file.stages {
        let mut env: BTreeMap<String, String> = path.iter().cloned().collect();
        for at in &stage.body {
            carry_out(at, &mut env)?;
        }
    }
    refusal.map_or(Ok(()), Err)
}

/// Reads each instruction with its values in, as the builder does.
fn carry_out(at: &Instruction, env: &mut BTreeMap<String, String>) -> Result<(), ParseError> {
    let before = env.clone();
    let value = |name: &str| before.get(name).cloned();
    let mut expander = Expander::new(at.escape, &value);
    match at.keyword {
        Keyword::Copy | Keyword::Add => {
            let copy = read::copy(at)?.expanded(at, &mut expander)?;
            copy.permissions().map_err(|reason| at.fault(reason))?;
        }
        Keyword::Run => {
            for mount in read::mounts(at, &read::run(at)?, &mut expander)? {
                if matches!(mount.kind, read::MountKind::Bind | read::MountKind::Cache | read::MountKind::Tmpfs) {
                    mount.target_in("/").map_err(|reason| at.fault(reason))?;
                }
            }
        }
        Keyword::Env => env.extend(read::expand_pairs(at, &mut expander)?),
        Keyword::Label => drop(read::expand_pairs(at, &mut expander)?),
        Keyword::Arg => {
            for argument in read::arguments(at)? {
                if let Some(default) = argument.default {
                    env.insert(argument.name, expander.word(&default).map_err(|reason| at.fault(reason))?);
                }
            }
        }
        Keyword::Expose => drop(read::ports(at, &mut expander)?),
        Keyword::Volume => drop(read::expand_volumes(at, &mut expander)?),
        Keyword::User | Keyword::Workdir => {
            expander.word(read::single(at)?).map_err(|reason| at.fault(reason))?;
        }
        _ => {}
    }
    Ok(())
}

/// Where this differs, and why.
const DIFFERS: [(&str, &str); 6] = [
    ("--parents", "taken by the newest front end, without its labs"),
    ("--security", "taken by the front end of BuildKit, not by that within Docker's engine"),
    ("--device", "refused in our own words"),
    ("STOPSIGNAL", "which signals there are is not for a grammar to know"),
    ("_FILE=", "the newest linter takes words as harmless that this one does not"),
    ("a.txt bar", "was recorded with a .dockerignore"),
];

#[test]
fn says_what_buildkit_says() {
    let expected: Vec<Value> = serde_json::from_str(include_str!("buildkit.json")).unwrap();
    let mut wrong = String::new();
    let mut held = 0;
    for case in expected {
        let text = case["file"].as_str().unwrap().to_owned();
        let error = case["error"].as_str().unwrap_or_default();
        // What a name of an image or a platform is, the builder knows.
        if DIFFERS.iter().any(|(part, _)| text.contains(part)) || error.starts_with("failed to parse") {
            continue;
        }
        let mut case = case.clone();
        let mut said = say(&text);
        if !error.is_empty() {
            // A front end stops at the error and has told of what stands before it; the linter here has seen all or nothing.
            (case["warnings"], said["warnings"]) = (Value::Null, Value::Null);
        }
        if text.starts_with('#') && case["at"] != said["at"] && case["at"].as_array().is_some_and(|at| at.len() == 1) {
            // BuildKit counts the lines of directives from 0.
            case["at"][0] = json!(case["at"][0].as_u64().unwrap() + 1);
        }
        held += 1;
        if said != case {
            wrong.push_str(&format!("{text:?}\n  BuildKit: {case}\n  here:     {said}\n"));
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    assert!(held > 400, "{held}");
}

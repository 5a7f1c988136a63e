//! What is answered to `docker build --call`, held against BuildKit's own answers.
//!
//! `subrequests.json` was written down from Docker's engine 28.5.2 and buildx 0.29.1; the definitions of how the file was
//! fetched are left out of it.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeMap;

use bireme_dockerfile::lint::{BaseImage, LintContext, lint};
use bireme_dockerfile::scope::{PlatformWords, predefined};
use bireme_dockerfile::subrequest::{self, Answer};
use bireme_dockerfile::{Dockerfile, graph};
use serde_json::Value;

fn answer(case: &Value) -> Answer {
    let text = case["file"].as_str().unwrap();
    let linux = PlatformWords { os: "linux", arch: "amd64", variant: "" };
    let build_args = BTreeMap::new();
    let predefined = predefined(linux, linux, None, &build_args);
    let base = |_: &str| {
        let path = ("PATH".to_owned(), "/bin".to_owned());
        Some(BaseImage { env: [path].into_iter().collect(), shell: false })
    };
    let context = LintContext { build_args: &build_args, predefined: &predefined, base: &base, ignored: None };
    let file = match Dockerfile::parse(text) {
        Ok(file) => file,
        Err(error) => return subrequest::lint("Dockerfile", text, &[], Some(&error)),
    };
    match case["request"].as_str().unwrap() {
        "outline" => {
            let target = graph::target(&file, case["target"].as_str()).unwrap();
            subrequest::outline(&file, text, target, &context).unwrap()
        }
        "targets" => subrequest::targets(&file, text),
        "check" => {
            let (warnings, refusal) = lint(&file, &context).unwrap();
            subrequest::lint("Dockerfile", text, &warnings, refusal.as_ref())
        }
        _ => subrequest::describe(),
    }
}

#[test]
fn answers_as_buildkit_does() {
    let cases: Vec<Value> = serde_json::from_str(include_str!("subrequests.json")).unwrap();
    assert!(cases.len() > 12);
    for case in &cases {
        let answer = answer(case);
        let json: Value = serde_json::from_str(&answer.json).unwrap();
        assert_eq!(json, case["json"], "{case}");
        let expected = case["text"].as_str().unwrap();
        let text = answer.text.unwrap();
        match case["request"].as_str().unwrap() {
            // The client says first how many there are.
            "check" => {
                let expected = expected.split_once("\n").map_or("", |(_, rest)| rest);
                assert_eq!(text.trim_end(), expected.trim_end(), "{case}");
                let bad = expected.contains("WARNING") || !case["json"]["buildError"].is_null();
                assert_eq!(answer.status, Some(u8::from(bad)), "{case}");
            }
            _ => assert_eq!(text, expected, "{case}"),
        }
    }
}

//! Dockerfiles of anybody: read, expanded, their stages followed, checked. Nothing of it may panic or grow without bound.

#![no_main]

use std::collections::BTreeMap;

use bireme_dockerfile::lint::{LintContext, lint};
use bireme_dockerfile::scope::{PlatformWords, globals, predefined};
use bireme_dockerfile::{Dockerfile, Expander, LONGEST, detect_syntax, graph, read, subrequest};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let _ = detect_syntax(text);
    let Ok(file) = Dockerfile::parse(text) else { return };
    let platform = PlatformWords { os: "linux", arch: "amd64", variant: "" };
    let build_args = BTreeMap::new();
    let predefined = predefined(platform, platform, None, &build_args);
    let base = |_: &str| Some(Default::default());
    let context = LintContext { build_args: &build_args, predefined: &predefined, base: &base, ignored: None };
    let lines = text.split('\n').count();
    for warning in lint(&file, &context).unwrap_or_default() {
        assert!(warning.lines.first >= 1 && warning.lines.last <= lines);
    }
    let _ = subrequest::outline(&file, text, file.stages.len() - 1, &context);
    let Ok(globals) = globals(&file, &predefined, &build_args) else { return };
    let value = |name: &str| globals.values.get(name).map(str::to_owned);
    let mut expander = Expander::new(file.directives.escape, &value);
    if let Ok(needed) = graph::needed(&file, file.stages.len() - 1, &mut expander) {
        assert!(needed.iter().all(|stage| *stage < file.stages.len()));
    }
    for at in file.instructions() {
        if let Ok(word) = expander.word(&at.rest) {
            assert!(word.len() <= LONGEST);
        }
        if let Ok(run) = read::run(at) {
            let _ = read::mounts(at, &run, &mut expander);
        }
        let _ = read::copy(at).and_then(|copy| copy.expanded(at, &mut expander));
        let _ = read::shown(at, &value);
    }
});

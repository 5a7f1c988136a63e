//! The door that Dockerfiles of strangers come through, for fuzzers and for the test that does the same in little. Not for use
//! otherwise.

use std::collections::BTreeMap;

use crate::lint::{BaseImage, LintContext, lint};
use crate::scope::{PlatformWords, globals, predefined};
use crate::{Dockerfile, Expander, LONGEST, detect_syntax, graph, read, subrequest};

/// Reads a Dockerfile, expands its words, follows its stages and checks it.
///
/// # Panics
/// Where a promise is broken: a warning about lines that are not there, a stage that is not, a word that is too long.
pub fn dockerfile(text: &str) {
    let _ = detect_syntax(text);
    let Ok(file) = Dockerfile::parse(text) else { return };
    let platform = PlatformWords { os: "linux", arch: "amd64", variant: "" };
    let build_args = BTreeMap::new();
    let predefined = predefined(platform, platform, None, &build_args);
    let base = |_: &str| Some(BaseImage::default());
    let context = LintContext { build_args: &build_args, predefined: &predefined, base: &base, ignored: None };
    let lines = text.split('\n').count();
    if let Ok((warnings, _)) = lint(&file, &context) {
        for warning in warnings {
            assert!(warning.lines.first >= 1 && warning.lines.last <= lines, "{:?} of {lines} lines", warning.lines);
        }
    }
    let _ = subrequest::outline(&file, text, file.stages.len() - 1, &context);
    let Ok(globals) = globals(&file, &predefined, &build_args) else { return };
    let value = |name: &str| globals.values.get(name).map(str::to_owned);
    let mut expander = Expander::new(file.directives.escape, &value);
    if let Ok(needed) = graph::needed(&file, file.stages.len() - 1, &mut expander) {
        assert!(needed.iter().all(|stage| *stage < file.stages.len()), "a stage that is not there is needed");
    }
    for at in file.instructions() {
        if let Ok(word) = expander.word(&at.rest) {
            assert!(word.len() <= LONGEST, "a word of {} bytes", word.len());
        }
        if let Ok(run) = read::run(at) {
            let _ = read::mounts(at, &run, &mut expander);
        }
        let _ = read::copy(at).and_then(|copy| copy.expanded(at, &mut expander));
        let _ = read::shown(at, &value);
    }
}

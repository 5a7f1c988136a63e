//! Which stages of a Dockerfile are built, decided from its text.

use std::collections::BTreeSet;

use super::dockerfile::{Dockerfile, StageText};
use super::request::BuildRequest;
use crate::error::ImageError;

/// The stage to end with.
pub(super) fn target(request: &BuildRequest, dockerfile: &Dockerfile) -> Result<usize, ImageError> {
    let Some(target) = request.target.as_deref().filter(|target| !target.is_empty()) else {
        return Ok(dockerfile.stages.len() - 1);
    };
    let by_number = target.parse().ok().filter(|at| *at < dockerfile.stages.len());
    position(dockerfile, target, dockerfile.stages.len()).or(by_number).ok_or_else(|| ImageError::BuildRequest {
        reason: format!("target stage \"{target}\" could not be found in the Dockerfile"),
    })
}

/// The stages that `target` is made of, itself included.
pub(super) fn needed(dockerfile: &Dockerfile, target: usize) -> BTreeSet<usize> {
    let mut needed = BTreeSet::new();
    let mut open = vec![target];
    while let Some(at) = open.pop() {
        if !needed.insert(at) {
            continue;
        }
        let stage = &dockerfile.stages[at];
        // Names with variables in them may mean any earlier stage.
        let mut reach = |name: &str, numbers: bool| {
            if name.contains('$') {
                open.extend(0..at);
                return;
            }
            let number = name.parse().ok().filter(|number| numbers && *number < at);
            open.extend(position(dockerfile, name, at).or(number));
        };
        reach(stage.from.rest.split_whitespace().next().unwrap_or_default(), false);
        for instruction in &stage.body {
            for (flag, value) in &instruction.flags {
                if flag == "from" {
                    reach(value.as_deref().unwrap_or_default(), true);
                }
            }
        }
    }
    needed
}

/// Which of the first `before` stages has that name.
pub(super) fn position(dockerfile: &Dockerfile, name: &str, before: usize) -> Option<usize> {
    let name = name.to_ascii_lowercase();
    dockerfile.stages[..before].iter().rposition(|stage| stage.name.as_deref() == Some(name.as_str()))
}

/// Whether a stage is neither based on anything nor does anything.
pub(super) fn makes_nothing(stage: &StageText) -> bool {
    let base = stage.from.rest.split_whitespace().find(|word| !word.starts_with("--"));
    stage.body.is_empty() && base == Some("scratch")
}

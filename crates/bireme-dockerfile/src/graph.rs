//! Which stages a target needs, decided from the text.
//!
//! Edges are FROM, `COPY --from` and `RUN --mount=from=`. FROM names stages before it, in their own case; `COPY --from` in any
//! case or by number; a mount in any case. What is no stage is a named context or an image, which others find out.
//!
//! Source: github.com/moby/buildkit, `frontend/dockerfile/dockerfile2llb/convert.go`, checked against what it answers.

use std::collections::BTreeSet;

use crate::dockerfile::{Dockerfile, Stage};
use crate::error::ParseError;
use crate::instruction::Instruction;
use crate::keyword::Keyword;
use crate::words::Expander;
use crate::{read, suggest};

/// Where files come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The stage of that number.
    Stage(usize),
    /// A named context, or an image.
    Other(String),
}

/// One thing that an instruction of a stage takes from elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edge {
    /// What it names.
    pub to: Source,
    /// Which of the stage's instructions; `None` is its FROM.
    pub instruction: Option<usize>,
}

/// The number of the stage to end with: the named one, the numbered one, the last.
///
/// # Errors
/// When there is none of that name, with the nearest.
pub fn target(file: &Dockerfile, name: Option<&str>) -> Result<usize, ParseError> {
    let Some(name) = name.filter(|name| !name.is_empty()) else { return Ok(file.stages.len().saturating_sub(1)) };
    let by_number = || name.parse().ok().filter(|number| *number < file.stages.len());
    named(&file.stages, name).or_else(by_number).ok_or_else(|| {
        let names = file.stages.iter().filter_map(|stage| stage.name.as_deref());
        let message = format!("target stage {name:?} could not be found");
        ParseError::of_file(suggest::with_nearest(message, name, names, true))
    })
}

/// The last of the stages with that name, in any case.
pub fn named(stages: &[Stage], name: &str) -> Option<usize> {
    let name = name.to_lowercase();
    stages.iter().rposition(|stage| stage.name.as_deref() == Some(name.as_str()))
}

/// What FROM names, its variables expanded with the arguments before the first FROM.
///
/// # Errors
/// When it cannot be expanded, or comes to nothing.
pub fn base(file: &Dockerfile, stage: usize, globals: &mut Expander<'_>) -> Result<Source, ParseError> {
    let from = &file.stages[stage].from;
    let name = globals.word(&from.image).map_err(|reason| from.instruction.fault(reason))?;
    if name.is_empty() {
        return Err(from.instruction.fault(format!("base name ({}) should not be blank", from.image)));
    }
    let before = file.stages[..stage].iter().rposition(|stage| stage.name.as_deref() == Some(name.as_str()));
    Ok(before.map_or(Source::Other(name), Source::Stage))
}

/// The platform that FROM names, its variables expanded as in [`base`].
///
/// # Errors
/// When it cannot be expanded, or comes to nothing.
pub fn platform(file: &Dockerfile, stage: usize, globals: &mut Expander<'_>) -> Result<Option<String>, ParseError> {
    let from = &file.stages[stage].from;
    let Some(written) = &from.platform else { return Ok(None) };
    let fault = |reason: String| from.instruction.fault(reason);
    let platform = globals
        .word(written)
        .map_err(|reason| fault(format!("failed to process arguments for platform {written}: {reason}")))?;
    if platform.is_empty() {
        return Err(fault(format!("empty platform value from expression {written}")));
    }
    Ok(Some(platform))
}

/// Everything that a stage takes from elsewhere. `globals` expands with the arguments before the first FROM.
///
/// # Errors
/// As [`base`], and when an instruction names a stage that there is not, itself or one that stands behind its own.
pub fn edges(file: &Dockerfile, stage: usize, globals: &mut Expander<'_>) -> Result<Vec<Edge>, ParseError> {
    let mut edges = vec![Edge { to: base(file, stage, globals)?, instruction: None }];
    for (number, at) in file.stages[stage].body.iter().enumerate() {
        let sources = match at.keyword {
            Keyword::Copy => copied(file, at)?.into_iter().collect(),
            Keyword::Run => mounted(file, at)?,
            _ => Vec::new(),
        };
        edges.extend(sources.into_iter().map(|to| Edge { to, instruction: Some(number) }));
    }
    Ok(edges)
}

/// What `COPY --from` names, whichever stage it stands in.
///
/// # Errors
/// When it names a stage by a number that there is not, or variables stand in it.
pub fn copied(file: &Dockerfile, at: &Instruction) -> Result<Option<Source>, ParseError> {
    let Some(from) = read::copy(at)?.from else { return Ok(None) };
    if from.contains('$') {
        return Err(ParseError::of_file(read::NO_VARIABLES_IN_FROM));
    }
    if let Ok(number) = from.parse::<i64>() {
        let stage = usize::try_from(number).ok().filter(|number| *number < file.stages.len());
        let stage = stage.ok_or_else(|| ParseError::of_file(format!("invalid stage index {number}")))?;
        return Ok(Some(Source::Stage(stage)));
    }
    Ok(Some(named(&file.stages, &from).map_or(Source::Other(from), Source::Stage)))
}

/// What `RUN --mount=from=` names, in the order of the mounts that have it.
fn mounted(file: &Dockerfile, at: &Instruction) -> Result<Vec<Source>, ParseError> {
    let mounts = read::mounted_from(at)?;
    Ok(mounts
        .into_iter()
        .map(|(from, _)| named(&file.stages, &from).map_or(Source::Other(from), Source::Stage))
        .collect())
}

/// The stages that `target` is made of, itself included.
///
/// # Errors
/// When a stage of the file needs itself, directly or through others, or one that stands behind it.
pub fn needed(file: &Dockerfile, target: usize, globals: &mut Expander<'_>) -> Result<BTreeSet<usize>, ParseError> {
    let mut all = Vec::new();
    for stage in 0..file.stages.len() {
        all.push(edges(file, stage, globals)?);
    }
    circles(file, &all)?;
    for (number, edges) in all.iter().enumerate() {
        if let Some((to, at)) = copies(edges).into_iter().find(|(to, _)| *to > number) {
            return Err(too_early(file, number, to, &file.stages[number].body[at]));
        }
    }
    let mut needed = BTreeSet::new();
    let mut open = vec![target];
    while let Some(stage) = open.pop() {
        if needed.insert(stage) {
            open.extend(all[stage].iter().filter_map(|edge| match edge.to {
                Source::Stage(to) => Some(to),
                Source::Other(_) => None,
            }));
        }
    }
    Ok(needed)
}

/// Why a stage cannot take something from one that stands behind it.
fn too_early(file: &Dockerfile, stage: usize, to: usize, at: &Instruction) -> ParseError {
    if at.keyword == Keyword::Run {
        let mounts = read::mounted_from(at).unwrap_or_default();
        let mount = mounts.into_iter().find(|(from, _)| named(&file.stages, from) == Some(to));
        let (from, target) = mount.unwrap_or_default();
        return at.fault(format!(
            "cannot mount from stage {from:?} to {target:?}, stage needs to be defined before current command"
        ));
    }
    let from = read::copy(at).ok().and_then(|copy| copy.from).unwrap_or_else(|| stage_name(file, to));
    at.fault(format!(
        "cannot copy from stage {from:?}, it needs to be defined before current stage {:?}",
        stage_name(file, stage)
    ))
}

/// Refuses stages that need themselves.
fn circles(file: &Dockerfile, all: &[Vec<Edge>]) -> Result<(), ParseError> {
    let mut visited = vec![false; all.len()];
    for start in 0..all.len() {
        if visited[start] {
            continue;
        }
        visited[start] = true;
        // The stages under way, each with its edges and how many of them have been followed.
        let mut path = vec![(start, copies(&all[start]), 0)];
        while let Some((_, edges, followed)) = path.last_mut() {
            let Some((to, _)) = edges.get(*followed).copied() else {
                path.pop();
                continue;
            };
            *followed += 1;
            if path.iter().any(|(stage, ..)| *stage == to) {
                let message = format!("circular dependency detected on stage: {}", stage_name(file, start));
                let lines =
                    path.iter().map(|(stage, edges, followed)| file.stages[*stage].body[edges[followed - 1].1].lines);
                return Err(ParseError { message, lines: lines.collect() });
            }
            if !visited[to] {
                visited[to] = true;
                path.push((to, copies(&all[to]), 0));
            }
        }
    }
    Ok(())
}

/// Its name, or the one that BuildKit gives it.
fn stage_name(file: &Dockerfile, stage: usize) -> String {
    file.stages[stage].name.clone().unwrap_or_else(|| format!("stage-{stage}"))
}

/// The instructions that take something from other stages, with the stages.
fn copies(edges: &[Edge]) -> Vec<(usize, usize)> {
    edges
        .iter()
        .filter_map(|edge| match edge {
            Edge { to: Source::Stage(to), instruction: Some(at) } => Some((*to, *at)),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
#[path = "graph_tests.rs"]
mod tests;

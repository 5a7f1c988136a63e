//! Rules about how a file is written: case, names, comments, empty lines.

use super::Found;
use super::rules::*;
use crate::dockerfile::{Dockerfile, Stage};
use crate::error::Lines;
use crate::instruction::Instruction;
use crate::keyword::Keyword;
use crate::read;

/// Names that mean something else in `--from`.
const RESERVED: [&str; 2] = ["context", "scratch"];

/// What is seen of each instruction by itself.
pub(super) fn as_written(file: &Dockerfile, found: &mut Found) {
    for at in file.instructions() {
        if let Some(line) = at.empty_continuation {
            found.warn(&NO_EMPTY_CONTINUATION, Lines::single(line), "Empty continuation line".to_owned());
        }
    }
    for at in &file.globals {
        argument(at, found);
    }
    for stage in &file.stages {
        from(stage, found);
        for at in &stage.body {
            match at.keyword {
                Keyword::Arg => argument(at, found),
                Keyword::Maintainer => {
                    let detail = "Maintainer instruction is deprecated in favor of using label";
                    found.warn(&MAINTAINER_DEPRECATED, at.lines, detail.to_owned());
                }
                _ => {}
            }
        }
    }
}

fn from(stage: &Stage, found: &mut Found) {
    let from = &stage.from;
    let at = &from.instruction;
    if let Some(name) = from.name.as_deref().filter(|name| name.chars().any(char::is_uppercase)) {
        found.warn(&STAGE_NAME_CASING, at.lines, format!("Stage name '{name}' should be lowercase"));
    }
    if let Some(word) = &from.as_word {
        let lower = |word: &str| word == word.to_lowercase();
        let upper = |word: &str| word == word.to_uppercase();
        let differ = (lower(&at.written) && !lower(word)) || (upper(&at.written) && !upper(word));
        if differ {
            let detail = format!("'{word}' and '{}' keywords' casing do not match", at.written);
            found.warn(&FROM_AS_CASING, at.lines, detail);
        }
    }
    description("FROM", stage.name.iter().map(String::as_str).collect(), at, found);
}

fn argument(at: &Instruction, found: &mut Found) {
    let arguments = read::arguments(at).unwrap_or_default();
    description("ARG", arguments.iter().map(|argument| argument.name.as_str()).collect(), at, found);
}

/// The comment right before a definition describes it.
fn description(word: &str, names: Vec<&str>, at: &Instruction, found: &mut Found) {
    let (Some(comment), Some(first)) = (at.comments.last(), names.first()) else { return };
    if names.contains(&comment.split(' ').next().unwrap_or_default()) {
        return;
    }
    let name = if names.len() > 1 { "<arg_key>" } else { first };
    let detail = format!("Comment for {word} should follow the format: `# {name} <description>`");
    found.warn(&INVALID_DEFINITION_DESCRIPTION, at.lines, detail);
}

/// Names of stages, against each other.
pub(super) fn stages(file: &Dockerfile, found: &mut Found) {
    let mut seen: Vec<&str> = Vec::new();
    for stage in &file.stages {
        let Some(name) = stage.name.as_deref() else { continue };
        let lines = stage.from.instruction.lines;
        if RESERVED.contains(&name) {
            let detail = format!("Stage name should not use the same name as reserved stage {name:?}");
            found.warn(&RESERVED_STAGE_NAME, lines, detail);
        }
        if seen.contains(&name) {
            let detail = format!("Duplicate stage name {name:?}, stage names should be unique");
            found.warn(&DUPLICATE_STAGE_NAME, lines, detail);
        }
        seen.push(name);
    }
}

/// The case of instructions, against that of most.
pub(super) fn casing(file: &Dockerfile, found: &mut Found) {
    let staged = || file.stages.iter().flat_map(|stage| std::iter::once(&stage.from.instruction).chain(&stage.body));
    let count = |fits: fn(&str) -> bool| staged().filter(|at| fits(&at.written)).count();
    let lower = |word: &str| word == word.to_lowercase();
    let upper = |word: &str| word == word.to_uppercase();
    let mostly_lower = count(lower) > count(upper);
    for at in staged() {
        let (fits, case) =
            if mostly_lower { (lower(&at.written), "lowercase") } else { (upper(&at.written), "uppercase") };
        if !fits {
            let detail = format!("Command '{}' should match the case of the command majority ({case})", at.written);
            found.warn(&CONSISTENT_INSTRUCTION_CASING, at.lines, detail);
        }
    }
}

//! The linter: what `docker build --check` warns of, in BuildKit's words, at its places and in its order.
//!
//! Pure: what it cannot see in the text, [`LintContext`] tells it. Where that does not know the base image, the rules that
//! depend on it are not asked. What an image leaves behind with ONBUILD is not looked at.
//!
//! Source: docs.docker.com/reference/build-checks; github.com/moby/buildkit, `frontend/dockerfile/linter`,
//! `frontend/dockerfile/dockerfile2llb/{convert,validations}.go`.

mod from;
mod names;
mod reference;
mod rules;
mod stage;

use std::collections::BTreeMap;

use crate::directives::CheckOptions;
use crate::dockerfile::Dockerfile;
use crate::error::{Lines, ParseError};
use crate::scope::Variables;

pub use rules::Rule;

/// What the linter must be told.
#[derive(Clone, Copy)]
pub struct LintContext<'a> {
    /// What the build gives with `--build-arg`. `BUILDKIT_DOCKERFILE_CHECK` among them goes before the directive `check`.
    pub build_args: &'a BTreeMap<String, String>,
    /// Of [`crate::scope::predefined`].
    pub predefined: &'a Variables,
    /// What is known of an image or named context.
    pub base: &'a dyn Fn(&str) -> Option<BaseImage>,
    /// What `.dockerignore` leaves out, where there is one and it is known.
    pub ignored: Option<Ignored<'a>>,
}

/// What the linter must know of a base image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BaseImage {
    /// Its environment.
    pub env: Variables,
    /// Whether it sets a shell.
    pub shell: bool,
}

/// What `.dockerignore` says.
#[derive(Clone, Copy)]
pub struct Ignored<'a> {
    /// Whether a path of the context, clean and without a slash before it, is left out, or a folder above it.
    pub path: &'a dyn Fn(&str) -> bool,
    /// Whether a pattern begins with `!`. Then nothing is said: a file in a folder that is left out may be let in again.
    pub exceptions: bool,
    /// Whether a pattern leaves out everything: `*`, `**`, `**/*`.
    pub everything: bool,
}

/// One thing to mend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// The rule's name.
    pub rule: &'static str,
    /// What the rule asks for.
    pub description: &'static str,
    /// Where it is explained.
    pub url: String,
    /// What is wrong here.
    pub detail: String,
    /// Where.
    pub lines: Lines,
}

/// The options that hold for a file: those of the build, else those of the directive.
///
/// # Errors
/// When they are malformed.
fn options(file: &Dockerfile, build_args: &BTreeMap<String, String>) -> Result<CheckOptions, ParseError> {
    let text = build_args.get("BUILDKIT_DOCKERFILE_CHECK").or(file.directives.check.as_ref());
    CheckOptions::read(text.map_or("", String::as_str))
}

/// What a file is to be warned of, the first of it where that is very much; and the refusal that follows from it where
/// `error=true` is set.
///
/// # Errors
/// When the options of the check are malformed.
pub fn lint(file: &Dockerfile, context: &LintContext<'_>) -> Result<(Vec<Warning>, Option<ParseError>), ParseError> {
    let Found { options, warnings, .. } = found(file, context)?;
    let refusal = refusal(&options, &warnings);
    Ok((warnings, refusal))
}

fn found(file: &Dockerfile, context: &LintContext<'_>) -> Result<Found, ParseError> {
    let mut found = Found { options: options(file, context.build_args)?, warnings: Vec::new(), cost: 0 };
    names::as_written(file, &mut found);
    names::stages(file, &mut found);
    names::casing(file, &mut found);
    from::defaults(file, context, &mut found);
    // What cannot be expanded makes the build fail, and is told then.
    if let Ok(globals) = crate::scope::globals(file, context.predefined, context.build_args) {
        from::stages(file, &globals, &mut found);
        stage::all(file, &globals, context, &mut found);
    }
    Ok(found)
}

fn refusal(options: &CheckOptions, warnings: &[Warning]) -> Option<ParseError> {
    if !options.error || warnings.is_empty() {
        return None;
    }
    let mut rules: Vec<&str> = Vec::new();
    for warning in warnings {
        if !rules.contains(&warning.rule) {
            rules.push(warning.rule);
        }
    }
    Some(ParseError::of_file(format!("lint violation found for rules: {}", rules.join(", "))))
}

/// Nobody mends more at a time. With the next bound it keeps the work on anybody's file within a second or so.
const MOST_WARNINGS: usize = 500;
/// What the words of a file may cost to expand; see [`crate::Expander`].
const MOST_COST: usize = 1 << 26;

/// Warnings as they are found.
struct Found {
    options: CheckOptions,
    warnings: Vec<Warning>,
    cost: usize,
}

impl Found {
    /// Whether no more is looked at.
    fn full(&self) -> bool {
        self.warnings.len() >= MOST_WARNINGS || self.cost > MOST_COST
    }

    fn warn(&mut self, rule: &Rule, lines: Lines, detail: String) {
        if self.warnings.len() < MOST_WARNINGS && self.options.asks(rule.name, rule.experimental) {
            let Rule { name, description, .. } = *rule;
            self.warnings.push(Warning { rule: name, description, url: rule.url(), detail, lines });
        }
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;

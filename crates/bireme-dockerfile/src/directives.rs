//! Parser directives: `# escape=`, `# syntax=` and `# check=` at the very top of a file.
//!
//! Source: docs.docker.com/reference/dockerfile, "Parser directives"; github.com/moby/buildkit,
//! `frontend/dockerfile/parser/directives.go`.

use bireme_core::go::parse_bool;

use crate::error::{Lines, ParseError};

/// What the directives of a file say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directives {
    /// Which front end shall read the file, and the words for it behind the first.
    pub syntax: Option<String>,
    /// `\` or a backtick.
    pub escape: char,
    /// Which checks are made, as it is written up to the first space. See [`CheckOptions::read`].
    pub check: Option<String>,
}

impl Default for Directives {
    fn default() -> Self {
        Self { syntax: None, escape: '\\', check: None }
    }
}

/// Reads directives line by line, until the first line that is none.
#[derive(Default)]
pub(crate) struct Reader {
    done: bool,
    seen: Vec<String>,
    pub(crate) directives: Directives,
}

impl Reader {
    /// With an escape given, no line is a directive.
    pub(crate) fn new(escape: Option<char>) -> Self {
        let directives = Directives { escape: escape.unwrap_or('\\'), ..Directives::default() };
        Self { done: escape.is_some(), directives, ..Self::default() }
    }

    /// Takes the next line, without white space at its beginning and without its end; answers whether it was one.
    pub(crate) fn line(&mut self, number: usize, line: &str) -> Result<bool, ParseError> {
        if self.done {
            return Ok(false);
        }
        let Some((name, value)) = directive(line, "#") else {
            self.done = true;
            return Ok(false);
        };
        if self.seen.contains(&name) {
            let message = format!("only one {name} parser directive can be used");
            return Err(ParseError::at(Lines::single(number), message));
        }
        match name.as_str() {
            "escape" => {
                self.directives.escape = match value {
                    "\\" => '\\',
                    "`" => '`',
                    other => {
                        let message = format!("invalid escape token '{other}' does not match ` or \\");
                        return Err(ParseError::at(Lines::single(number), message));
                    }
                };
            }
            "syntax" => self.directives.syntax = Some(value.to_owned()),
            // What stands behind white space is no part of it.
            _ => self.directives.check = value.split(' ').next().map(str::to_owned),
        }
        self.seen.push(name);
        Ok(true)
    }
}

/// Reads one directive: its name in lower case, its value.
fn directive<'a>(line: &'a str, comment: &str) -> Option<(String, &'a str)> {
    let (name, value) = line.strip_prefix(comment)?.split_once('=')?;
    let (name, value) = (name.trim().to_ascii_lowercase(), value.trim());
    (matches!(name.as_str(), "escape" | "syntax" | "check") && !value.is_empty()).then_some((name, value))
}

/// Which front end a text asks for, whatever language it is in: `# syntax=`, `// syntax=`, or `{"syntax": …}`, behind a byte
/// order mark and a `#!` line.
///
/// Answers the image, and the whole value.
pub fn detect_syntax(text: &str) -> Option<(String, String)> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let text = match text.split_once('\n') {
        Some((first, rest)) if first.starts_with("#!") => rest,
        None if text.starts_with("#!") => "",
        _ => text,
    };
    let first_word = |value: &str| (value.split(' ').next().unwrap_or_default().to_owned(), value.to_owned());
    for comment in ["#", "//"] {
        let mut seen = Vec::new();
        for line in text.lines() {
            let Some((name, value)) = directive(line, comment) else { break };
            if seen.contains(&name) {
                break;
            }
            if name == "syntax" {
                return Some(first_word(value));
            }
            seen.push(name);
        }
    }
    let object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(text).ok()?;
    let value = object.get("syntax")?.as_str()?;
    Some((value.to_owned(), value.to_owned()))
}

/// Which checks are made and what follows from them: `# check=skip=A,B;error=true;experimental=all`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckOptions {
    /// Rules that are not asked.
    pub skip: Vec<String>,
    /// No rule is asked but the experimental ones that are named.
    pub skip_all: bool,
    /// Experimental rules that are asked.
    pub experimental: Vec<String>,
    /// All experimental rules are asked.
    pub experimental_all: bool,
    /// A warning makes the build fail.
    pub error: bool,
}

impl CheckOptions {
    /// Reads the directive's value, or that of the build argument `BUILDKIT_DOCKERFILE_CHECK`, which goes before it.
    ///
    /// # Errors
    /// When it is not of this form, in BuildKit's words.
    pub fn read(text: &str) -> Result<Self, ParseError> {
        let mut options = Self::default();
        let fault = |reason: String| ParseError::of_file(format!("failed to parse check options: {reason}"));
        let list = |value: &str| value.split(',').map(|rule| rule.trim().to_owned()).collect::<Vec<_>>();
        if text.trim().is_empty() {
            return Ok(options);
        }
        for part in text.trim().splitn(3, ';') {
            let Some((name, value)) = part.split_once('=') else {
                return Err(fault(format!("invalid check option {part:?}")));
            };
            let value = value.trim();
            match name.trim() {
                "skip" if value == "all" => options.skip_all = true,
                "skip" => options.skip = list(value),
                "experimental" if value == "all" => options.experimental_all = true,
                "experimental" => options.experimental = list(value),
                "error" => {
                    options.error = parse_bool(value).ok_or_else(|| {
                        fault(format!(
                            "failed to parse check option {part:?}: strconv.ParseBool: parsing {value:?}: invalid syntax"
                        ))
                    })?;
                }
                other => return Err(fault(format!("invalid check option {other:?}"))),
            }
        }
        Ok(options)
    }

    /// Whether a rule is asked.
    pub fn asks(&self, rule: &str, experimental: bool) -> bool {
        let named = |rules: &[String]| rules.iter().any(|name| name == rule);
        if experimental {
            self.experimental_all || named(&self.experimental)
        } else {
            !self.skip_all && !named(&self.skip)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_front_end_in_any_language() {
        for (text, image) in [
            ("# syntax=docker/dockerfile:1 x\nFROM a", Some("docker/dockerfile:1")),
            ("\u{feff}#SYNTAX = a  \n", Some("a")),
            ("#!/usr/bin/env x\n# syntax=a\n", Some("a")),
            ("# escape=`\n# syntax=a\n", Some("a")),
            ("// syntax=a\n{}", Some("a")),
            ("{\"syntax\": \"a b\"}", Some("a b")),
            ("# a comment\n# syntax=a\n", None),
            ("FROM a\n# syntax=a\n", None),
            ("\n# syntax=a\n", None),
            ("# syntax=\n", None),
            ("{\"syntax\": 1}", None),
        ] {
            assert_eq!(detect_syntax(text).map(|found| found.0).as_deref(), image, "{text}");
        }
    }

    #[test]
    fn reads_check_options_and_refuses_others() {
        let read = CheckOptions::read("skip=A, B;error=1;experimental=all").unwrap();
        assert!(!read.asks("A", false) && !read.asks("B", false) && read.asks("C", false) && read.asks("D", true));
        assert!(read.error);
        let read = CheckOptions::read("skip=all;experimental=D").unwrap();
        assert!(!read.asks("C", false) && read.asks("D", true) && !read.asks("E", true));
        for (text, reason) in [
            ("foo=bar", "invalid check option \"foo\""),
            ("skip", "invalid check option \"skip\""),
            ("error=x", "failed to parse check option \"error=x\": strconv.ParseBool: parsing \"x\": invalid syntax"),
        ] {
            let error = CheckOptions::read(text).unwrap_err();
            assert_eq!(error.message, format!("failed to parse check options: {reason}"));
        }
    }
}

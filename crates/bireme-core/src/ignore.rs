//! Which files of a folder are left out: `.dockerignore`, and the patterns of `--exclude`.
//!
//! A line is a [deep pattern](crate::glob) of a path below the folder; one that begins with `!` takes back. The last line
//! that fits a path, or a folder above it, decides.
//!
//! Source: the Dockerfile reference, ".dockerignore file"; `ReadAll` and `MatchesOrParentMatches` of
//! github.com/moby/patternmatcher.

use std::convert::Infallible;

use thiserror::Error;

use crate::glob::{Pattern, PatternError};

/// The most patterns of one file.
pub const RULES: usize = 10_000;

/// The patterns of one file, in order.
#[derive(Clone, Debug, Default)]
pub struct Ignore {
    rules: Vec<Rule>,
}

#[derive(Clone, Debug)]
struct Rule {
    pattern: Pattern,
    /// It takes back what was left out.
    keeps: bool,
    /// As it was written, cleaned.
    text: String,
}

/// Why patterns cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum IgnoreError {
    /// One of them is no pattern.
    #[error(transparent)]
    Pattern(#[from] PatternError),
    /// More than [`RULES`].
    #[error("it has more than {RULES} patterns: hide whole folders, or send a smaller context")]
    TooMany,
    /// A single pattern with a line break in it.
    #[error("\"{}\" is more than one line", .pattern.escape_debug())]
    Lines {
        /// The whole pattern.
        pattern: String,
    },
}

impl Ignore {
    /// Reads the text of a file: a pattern a line, none in lines that are empty or begin with `#`.
    ///
    /// # Errors
    /// When a line is no pattern, or there are too many.
    pub fn parse(text: &str) -> Result<Self, IgnoreError> {
        let mut all = Self::default();
        for line in text.strip_prefix('\u{feff}').unwrap_or(text).lines().filter(|line| !line.starts_with('#')) {
            all.add(line)?;
        }
        Ok(all)
    }

    /// Patterns that were given one by one.
    ///
    /// # Errors
    /// When one of them is no pattern or has several lines, or there are too many.
    pub fn of(patterns: &[String]) -> Result<Self, IgnoreError> {
        let mut all = Self::default();
        for pattern in patterns {
            if pattern.contains(['\n', '\r']) {
                return Err(IgnoreError::Lines { pattern: pattern.clone() });
            }
            all.add(pattern)?;
        }
        Ok(all)
    }

    fn add(&mut self, line: &str) -> Result<(), IgnoreError> {
        let line = line.trim();
        let (line, keeps) = match line.strip_prefix('!') {
            Some(rest) => (rest.trim(), true),
            None => (line, false),
        };
        let clean = clean(line);
        if clean.is_empty() {
            return Ok(());
        }
        self.rules.push(Rule { pattern: Pattern::deep(&clean)?, keeps, text: clean });
        if self.rules.len() > RULES { Err(IgnoreError::TooMany) } else { Ok(()) }
    }

    /// Whether `path`, relative to the folder and with `/`, is left out.
    pub fn hides(&self, path: &str) -> bool {
        match self.try_hides(path, || Ok::<(), Infallible>(())) {
            Ok(hidden) => hidden,
            Err(never) => match never {},
        }
    }

    /// As [`Self::hides`], asking `go_on` before each pattern: many patterns on a long path take long.
    ///
    /// # Errors
    /// What `go_on` answers.
    pub fn try_hides<E>(&self, path: &str, mut go_on: impl FnMut() -> Result<(), E>) -> Result<bool, E> {
        let mut hidden = false;
        for rule in self.rules.iter() {
            if hidden == rule.keeps {
                go_on()?;
                hidden ^= rule.pattern.matches_or_parent(path);
            }
        }
        Ok(hidden)
    }

    /// The patterns as a file would have them, one a line.
    pub fn patterns(&self) -> Vec<String> {
        let written = |rule: &Rule| format!("{}{}", if rule.keeps { "!" } else { "" }, rule.text);
        self.rules.iter().map(written).collect()
    }

    /// Whether something in a folder that is left out may be kept all the same.
    pub fn has_exceptions(&self) -> bool {
        self.rules.iter().any(|rule| rule.keeps)
    }
}

/// The path below the folder that a pattern is meant for. Source: Go's `filepath.Clean`.
fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => drop(parts.pop()),
            ".." if path.starts_with('/') => {}
            part => parts.push(part),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(rules: &str, path: &str, hidden: bool) {
        assert_eq!(Ignore::parse(rules).unwrap().hides(path), hidden, "{rules:?} on {path}");
    }

    #[test]
    fn patterns_are_dockers() {
        for (rules, path, hidden) in [
            ("# note\n\ntarget", "target", true),
            (" # no note\n", "# no note", true),
            ("\u{feff}target", "target", true),
            ("target", "target/debug/x", true),
            ("target", "sub/target", false),
            ("**/target", "sub/target/x", true),
            ("*.md", "README.md", true),
            ("*.md", "docs/a.md", false),
            ("**/*.md", "docs/a.md", true),
            ("/a/b?", "a/bc", true),
            ("[a-c]x", "bx", true),
            ("[^a-c]x", "bx", false),
            ("./a", "a", true),
            ("a/../b/", "b", true),
            ("/../b", "b", true),
            ("../b", "b", false),
            ("a/**/z", "a/z", true),
            ("**/*.o", "x/y.o", true),
            ("**/*.o", "y.o", true),
            ("**/*.o", "y.c", false),
            // Classes are Go's: a slash may be of one, and a backslash escapes within.
            ("a[^b]c", "a/c", true),
            ("[\\]]x", "]x", true),
            (".", "a", false),
            ("/", "a", false),
            ("!", "a", false),
        ] {
            check(rules, path, hidden);
        }
    }

    #[test]
    fn the_last_line_that_fits_decides() {
        for (rules, path, hidden) in [
            ("*.md\n!README.md", "README.md", false),
            ("*.md\n! README.md", "README.md", false),
            ("!README.md\n*.md", "README.md", true),
            ("# c\n*.md\n!README.md\n/target", "a.md", true),
            ("# c\n*.md\n!README.md\n/target", "README.md", false),
            ("# c\n*.md\n!README.md\n/target", "target", true),
            ("# c\n*.md\n!README.md\n/target", "target/debug/x", true),
            ("# c\n*.md\n!README.md\n/target", "x/target", false),
            ("*\n!src", "src/main.rs", false),
            ("*\n!src", "other", true),
            ("*\n!src\nsrc/*.o", "src/a.o", true),
        ] {
            check(rules, path, hidden);
        }
        assert!(Ignore::parse("*\n!src").unwrap().has_exceptions() && !Ignore::parse("*").unwrap().has_exceptions());
    }

    #[test]
    fn single_patterns_are_one_line_and_no_notes() {
        let of = |pattern: &str| Ignore::of(&[pattern.to_owned()]);
        assert!(of("#x").unwrap().hides("#x"));
        assert_eq!(of("a\nb").unwrap_err().to_string(), "\"a\\nb\" is more than one line");
        assert_eq!(of("[a").unwrap_err().to_string(), "\"[a\" is a malformed pattern");
    }

    #[test]
    fn there_is_a_bound_and_an_end_when_nobody_waits() {
        let most = Ignore::parse(&"a\n".repeat(RULES)).unwrap();
        assert_eq!(Ignore::parse(&"a\n".repeat(RULES + 1)).unwrap_err(), IgnoreError::TooMany);
        assert_eq!(Ignore::of(&vec!["a".to_owned(); RULES + 1]).unwrap_err(), IgnoreError::TooMany);
        let mut asked = 0;
        let answer = most.try_hides("b/c", || {
            asked += 1;
            if asked > 3 { Err("gone") } else { Ok(()) }
        });
        assert_eq!((answer, asked), (Err("gone"), 4));
    }

    proptest! {
        #[test]
        fn what_hides_a_folder_hides_all_in_it(rules in "([*a/!.]{0,5}\n){0,4}", path in "[a.]{1,3}", more in "[a.]{1,3}") {
            if let Ok(ignore) = Ignore::parse(&rules)
                && !ignore.has_exceptions()
                && ignore.hides(&path)
            {
                let below = format!("{path}/{more}");
                prop_assert!(ignore.hides(&below));
            }
        }
    }
}

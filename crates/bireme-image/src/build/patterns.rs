//! `.dockerignore`. Source: github.com/moby/patternmatcher.

use std::io;

use bireme_core::glob::Pattern;

use crate::wanted::Wanted;

/// Patterns of one `.dockerignore`.
const RULES: usize = 10_000;

/// What of a context is not to be seen.
#[derive(Debug, Default)]
pub(super) struct Ignore {
    /// In order: the pattern, and whether it takes back.
    rules: Vec<(Pattern, bool)>,
}

impl Ignore {
    /// Of patterns, one by one, as `--exclude` gives them.
    pub(super) fn of(patterns: &[String]) -> Result<Self, String> {
        let mut all = Self::default();
        for pattern in patterns {
            if pattern.contains(['\n', '\r']) {
                return Err(format!("\"{}\" is more than one line", pattern.escape_debug()));
            }
            all.rules.extend(Self::parse(pattern)?.rules);
            all.check()?;
        }
        Ok(all)
    }

    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut all = Self::default();
        for line in text.strip_prefix('\u{feff}').unwrap_or(text).lines() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (line, back) = match line.strip_prefix('!') {
                Some(rest) => (rest.trim(), true),
                None => (line, false),
            };
            let clean: Vec<&str> = line.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
            if clean.is_empty() {
                continue;
            }
            all.rules.push((Pattern::deep(&clean.join("/")).map_err(|error| error.to_string())?, back));
            all.check()?;
        }
        Ok(all)
    }

    fn check(&self) -> Result<(), String> {
        match self.rules.len() > RULES {
            true => Err(format!("it has more than {RULES} patterns: hide whole folders, or send a smaller context")),
            false => Ok(()),
        }
    }

    /// Whether `path`, relative to the context, is hidden: the last rule that fits it or a folder above it decides.
    ///
    /// # Errors
    /// When nobody waits for the answer any more: many rules on a deep path take long.
    pub(super) fn hides(&self, path: &str, wanted: &Wanted) -> io::Result<bool> {
        let mut hidden = false;
        for (pattern, back) in &self.rules {
            if hidden != *back {
                continue;
            }
            let above = path.match_indices('/').map(|(at, _)| &path[..at]);
            for path in above.chain([path]) {
                wanted.check()?;
                if pattern.matches(path) {
                    hidden = !back;
                    break;
                }
            }
        }
        Ok(hidden)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bireme_core::glob::LONGEST;

    #[test]
    fn the_last_rule_decides() {
        let ignore = Ignore::parse("# c\n*.md\n!README.md\n/target\n**/*.o\n").unwrap();
        for (path, hidden) in [
            ("a.md", true),
            ("README.md", false),
            ("target", true),
            ("target/debug/x", true),
            ("x/target", false),
            ("x/y.o", true),
            ("y.o", true),
            ("y.c", false),
        ] {
            assert_eq!(ignore.hides(path, &Wanted::default()).unwrap(), hidden, "{path}");
        }
        let only = Ignore::parse("*\n!src\n").unwrap();
        let hides = |path| only.hides(path, &Wanted::default()).unwrap();
        assert!(!hides("src/main.rs") && hides("other"));
    }

    #[test]
    fn patterns_have_a_bound_and_end_with_whoever_waits() {
        let of = |count: usize, length: usize| Ignore::parse(&format!("{}\n", "a".repeat(length)).repeat(count));
        let most = of(RULES, 1).unwrap();
        assert!(of(RULES + 1, 1).unwrap_err().contains("more than 10000 patterns"));
        assert!(Ignore::of(&vec!["a".to_owned(); RULES + 1]).is_err());
        assert!(of(1, LONGEST).is_ok() && of(1, LONGEST + 1).unwrap_err().contains("more than 4096 bytes"));
        let gone = Wanted::default();
        assert!(!most.hides("b/c", &gone).unwrap());
        gone.give_up();
        assert!(most.hides("b/c", &gone).is_err());
    }
}

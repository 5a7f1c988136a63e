//! Wildcards of COPY and ADD, and `.dockerignore`.
//!
//! Source: Go's `path/filepath.Match`; github.com/moby/patternmatcher.

use std::io;

use crate::wanted::Wanted;

/// Bytes of a pattern, those of the longest path.
const LONGEST: usize = 4096;

/// Patterns of one `.dockerignore`.
const RULES: usize = 10_000;

/// One pattern, taken apart.
#[derive(Debug)]
pub(super) struct Pattern {
    tokens: Vec<Token>,
}

#[derive(Debug)]
enum Token {
    Letter(char),
    /// `?`
    One,
    /// `*`
    Many,
    /// `**`
    Deep,
    /// `**/`: any folders, also none.
    Folders,
    /// `[a-z]`, `[^a-z]`
    Class {
        not: bool,
        ranges: Vec<(char, char)>,
    },
}

impl Pattern {
    /// `deep` gives `**` its meaning; else it is two `*`.
    pub(super) fn new(text: &str, deep: bool) -> Result<Self, String> {
        if text.len() > LONGEST {
            let start: String = text.chars().take(40).collect();
            return Err(format!(
                "the pattern \"{start}…\" has more than {LONGEST} bytes, and so has no path that fits it"
            ));
        }
        let mut tokens = Vec::new();
        let mut letters = text.chars().peekable();
        let bad = || format!("\"{text}\" is a malformed pattern");
        while let Some(letter) = letters.next() {
            tokens.push(match letter {
                '*' if deep && letters.next_if_eq(&'*').is_some() => {
                    if letters.next_if_eq(&'/').is_some() {
                        Token::Folders
                    } else {
                        Token::Deep
                    }
                }
                '*' => Token::Many,
                '?' => Token::One,
                '\\' => Token::Letter(letters.next().ok_or_else(bad)?),
                '[' => {
                    let not = letters.next_if_eq(&'^').is_some();
                    let mut ranges = Vec::new();
                    loop {
                        let mut one = || match letters.next() {
                            Some('\\') => letters.next(),
                            other => other,
                        };
                        let low = one().ok_or_else(bad)?;
                        if low == ']' && !ranges.is_empty() {
                            break;
                        }
                        let high = if letters.next_if_eq(&'-').is_some() {
                            match letters.next() {
                                Some('\\') => letters.next().ok_or_else(bad)?,
                                Some(']') | None => return Err(bad()),
                                Some(high) => high,
                            }
                        } else {
                            low
                        };
                        ranges.push((low, high));
                    }
                    Token::Class { not, ranges }
                }
                other => Token::Letter(other),
            });
        }
        Ok(Self { tokens })
    }

    /// Whether the whole of `path` matches. Linear in the product of the lengths, whatever the pattern.
    pub(super) fn matches(&self, path: &str) -> bool {
        let letters: Vec<char> = path.chars().collect();
        // reached[n]: the tokens so far match the first n letters.
        let mut reached = vec![false; letters.len() + 1];
        reached[0] = true;
        for token in &self.tokens {
            let mut next = vec![false; letters.len() + 1];
            match token {
                Token::Many | Token::Deep => {
                    let deep = matches!(token, Token::Deep);
                    let mut open = false;
                    for at in 0..=letters.len() {
                        open |= reached[at];
                        next[at] = open;
                        if at < letters.len() && letters[at] == '/' && !deep {
                            open = false;
                        }
                    }
                }
                Token::Folders => {
                    let mut open = false;
                    for at in 0..=letters.len() {
                        next[at] = reached[at] || (open && letters[at - 1] == '/');
                        open |= reached[at];
                    }
                }
                single => {
                    for (at, letter) in letters.iter().enumerate() {
                        next[at + 1] = reached[at] && single.takes(*letter);
                    }
                }
            }
            reached = next;
        }
        reached[letters.len()]
    }
}

impl Token {
    fn takes(&self, letter: char) -> bool {
        match self {
            Self::Letter(own) => *own == letter,
            Self::One => letter != '/',
            Self::Class { not, ranges } => {
                letter != '/' && ranges.iter().any(|(low, high)| (*low..=*high).contains(&letter)) != *not
            }
            Self::Many | Self::Deep | Self::Folders => false,
        }
    }
}

/// Whether a path of COPY is a pattern at all.
pub(super) fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?', '['])
}

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
            all.rules.push((Pattern::new(&clean.join("/"), true)?, back));
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
    use proptest::prelude::*;

    #[test]
    fn matches_as_go_does() {
        for (pattern, path, fits) in [
            ("*.txt", "a.txt", true),
            ("*.txt", "b/a.txt", false),
            ("a?c", "abc", true),
            ("a?c", "a/c", false),
            ("[a-c]x", "bx", true),
            ("[^a-c]x", "bx", false),
            ("\\*", "*", true),
            ("**/x", "x", true),
            ("**/x", "ax", false),
            ("**/x", "a/b/x", true),
            ("a/**", "a/b/c", true),
            ("**", "a/b", true),
        ] {
            assert_eq!(Pattern::new(pattern, true).unwrap().matches(path), fits, "{pattern} {path}");
        }
        assert!(Pattern::new("[a", true).is_err());
    }

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

    proptest! {
        #[test]
        fn never_panics(pattern in "[*?\\[\\]a/\\\\^-]{0,20}", path in "[a/b*]{0,30}") {
            if let Ok(pattern) = Pattern::new(&pattern, true) {
                let _ = pattern.matches(&path);
            }
        }
    }
}

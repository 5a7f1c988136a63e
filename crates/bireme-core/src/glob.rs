//! Patterns of names and paths, as Go matches them.
//!
//! | in a pattern | stands for |
//! |---|---|
//! | `*` | any letters but `/`, also none |
//! | `?` | one letter but `/` |
//! | `[a-z]`, `[^a-z]` | one letter of the class, or one that is not in it |
//! | `\x` | the letter `x` |
//! | `**`, `**/` | in [deep](Pattern::deep) patterns: any folders, also none; at the end of the pattern, anything |
//!
//! A pattern fits the whole of a path or not at all. Source: Go's `path.Match`; `Pattern.compile` of
//! github.com/moby/patternmatcher for what is deep.

use thiserror::Error;

/// The most bytes of a pattern: those of the longest path.
pub const LONGEST: usize = 4096;

/// One pattern, taken apart.
#[derive(Clone, Debug)]
pub struct Pattern {
    tokens: Vec<Token>,
}

/// Why a text is no pattern.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PatternError {
    /// A class that is empty or not closed, or a backslash at the end.
    #[error("\"{pattern}\" is a malformed pattern")]
    Malformed {
        /// The whole pattern.
        pattern: String,
    },
    /// More than [`LONGEST`] bytes.
    #[error("the pattern \"{start}…\" has more than {LONGEST} bytes, and so has no path that fits it")]
    TooLong {
        /// The first letters of the pattern.
        start: String,
    },
}

#[derive(Clone, Debug)]
enum Token {
    Letter(char),
    /// `?`
    One,
    /// `*`
    Many,
    /// `**` at the end: anything.
    Anything,
    /// `**` before something: nothing, or whatever ends with a slash.
    Folders,
    /// `[a-z]`, `[^a-z]`
    Class {
        not: bool,
        ranges: Vec<(char, char)>,
    },
}

impl Pattern {
    /// A pattern of Go's `path.Match`: `**` is no more than `*`.
    ///
    /// # Errors
    /// When it is malformed or too long.
    pub fn new(text: &str) -> Result<Self, PatternError> {
        Self::read(text, false)
    }

    /// A pattern in which `**` stands for folders, as in `.dockerignore`.
    ///
    /// # Errors
    /// When it is malformed or too long.
    pub fn deep(text: &str) -> Result<Self, PatternError> {
        Self::read(text, true)
    }

    fn read(text: &str, deep: bool) -> Result<Self, PatternError> {
        if text.len() > LONGEST {
            return Err(PatternError::TooLong { start: text.chars().take(40).collect() });
        }
        let malformed = || PatternError::Malformed { pattern: text.to_owned() };
        let mut tokens = Vec::new();
        let mut rest = text;
        while let Some(letter) = rest.chars().next() {
            let at_start = rest.len() == text.len();
            rest = &rest[letter.len_utf8()..];
            tokens.push(match letter {
                '*' if deep && rest.starts_with('*') => {
                    let behind = &rest[1..];
                    let literal = !behind.contains(['*', '?', '[', ']', '\\']);
                    // patternmatcher compares ends where nothing but letters follows: `**x` fits `ax`, `**x?` only `a/xy`.
                    if at_start && literal && !behind.starts_with('/') {
                        rest = behind;
                        Token::Anything
                    } else {
                        rest = behind.strip_prefix('/').unwrap_or(behind);
                        if rest.is_empty() { Token::Anything } else { Token::Folders }
                    }
                }
                '*' => Token::Many,
                '?' => Token::One,
                '\\' => Token::Letter(take(&mut rest).ok_or_else(malformed)?),
                '[' => class(&mut rest).ok_or_else(malformed)?,
                other => Token::Letter(other),
            });
        }
        Ok(Self { tokens })
    }

    /// Whether the pattern fits the whole of `path`. Linear in the product of the lengths, whatever the pattern.
    pub fn matches(&self, path: &str) -> bool {
        let letters: Vec<char> = path.chars().collect();
        self.reached(&letters)[letters.len()]
    }

    /// Whether the pattern fits `path` or a folder above it, at the cost of one comparison.
    pub fn matches_or_parent(&self, path: &str) -> bool {
        let letters: Vec<char> = path.chars().collect();
        let reached = self.reached(&letters);
        let parents = letters.iter().enumerate().filter(|(_, letter)| **letter == '/');
        reached[letters.len()] || parents.into_iter().any(|(at, _)| reached[at])
    }

    /// At `n`, whether the pattern fits the first `n` letters.
    fn reached(&self, letters: &[char]) -> Vec<bool> {
        let mut reached = vec![false; letters.len() + 1];
        let mut next = reached.clone();
        reached[0] = true;
        for token in &self.tokens {
            // Whether what came before fits some beginning from which this token may go on.
            let mut open = false;
            for at in 0..=letters.len() {
                let before = at.checked_sub(1).map(|last| (reached[last], letters[last]));
                next[at] = match token {
                    Token::Anything => {
                        open |= reached[at];
                        open
                    }
                    Token::Many => {
                        open = reached[at] || (open && before.is_some_and(|(_, letter)| letter != '/'));
                        open
                    }
                    Token::Folders => {
                        let ends = open && before.is_some_and(|(_, letter)| letter == '/');
                        open |= reached[at];
                        reached[at] || ends
                    }
                    single => before.is_some_and(|(reached, letter)| reached && single.takes(letter)),
                };
            }
            std::mem::swap(&mut reached, &mut next);
        }
        reached
    }
}

impl Token {
    /// Whether it stands for this one letter.
    fn takes(&self, letter: char) -> bool {
        match self {
            Self::Letter(own) => *own == letter,
            Self::One => letter != '/',
            Self::Class { not, ranges } => ranges.iter().any(|(low, high)| (*low..=*high).contains(&letter)) != *not,
            Self::Many | Self::Anything | Self::Folders => false,
        }
    }
}

fn take(rest: &mut &str) -> Option<char> {
    let letter = rest.chars().next()?;
    *rest = &rest[letter.len_utf8()..];
    Some(letter)
}

/// One end of a range. Source: `getEsc` of Go's `path`.
fn end(rest: &mut &str) -> Option<char> {
    match take(rest)? {
        '-' | ']' => None,
        '\\' => take(rest),
        letter => Some(letter),
    }
}

/// What follows `[`, the closing bracket included; `None` when it is malformed.
fn class(rest: &mut &str) -> Option<Token> {
    let not = rest.starts_with('^');
    if not {
        *rest = &rest[1..];
    }
    let mut ranges = Vec::new();
    loop {
        if !ranges.is_empty()
            && let Some(behind) = rest.strip_prefix(']')
        {
            *rest = behind;
            return Some(Token::Class { not, ranges });
        }
        let low = end(rest)?;
        let high = match rest.strip_prefix('-') {
            Some(behind) => {
                *rest = behind;
                end(rest)?
            }
            None => low,
        };
        ranges.push((low, high));
    }
}

/// Whether a path is a pattern at all, and not only the name of itself.
pub fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?', '['])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn patterns_are_gos() {
        for (pattern, path, fits) in [
            ("", "", true),
            ("", "a", false),
            ("abc", "abc", true),
            ("*", "", true),
            ("*", "abc", true),
            ("*", "a/b", false),
            ("*c", "abc", true),
            ("*.txt", "a.txt", true),
            ("*.txt", "b/a.txt", false),
            ("a*", "a", true),
            ("*/b", "a/b", true),
            ("a*/b", "a/c/b", false),
            ("a*b*c*d*e*/f", "axbxcxdxexxx/f", true),
            ("a*b?c*x", "abxbbxdbxebxczzx", true),
            ("a*b?c*x", "abxbbxdbxebxczzy", false),
            ("*x", "xxx", true),
            ("a**c", "abc", true),
            ("a**c", "a/c", false),
            ("a?b", "a☺b", true),
            ("a?b", "a/b", false),
            ("[a-c]x", "bx", true),
            ("[^a-c]x", "bx", false),
            ("\\*", "*", true),
            ("ab[b-d]", "abc", true),
            ("ab[^b-d]", "abc", false),
            ("busybox:[^0-9]", "busybox:1", false),
            ("a[^a]b", "a☺b", true),
            ("a[^b]c", "a/c", true),
            ("[a-ζ]*", "α", true),
            ("[\\]a]", "]", true),
            ("[x\\-]", "-", true),
            ("a\\*b", "a*b", true),
            ("a\\*b", "axb", false),
            ("a]", "a]", true),
        ] {
            assert_eq!(Pattern::new(pattern).unwrap().matches(path), fits, "{pattern} on {path}");
        }
        for malformed in ["[", "[a", "[^", "[^bc", "a[", "[]a]", "[-]", "[x-]", "[-x]", "[a-b-c]", "\\", "a\\", "[\\"] {
            let refused = Pattern::new(malformed).unwrap_err();
            assert_eq!(refused.to_string(), format!("\"{malformed}\" is a malformed pattern"));
        }
        assert!(Pattern::new(&"a".repeat(LONGEST)).is_ok());
        let refused = Pattern::new(&"a".repeat(LONGEST + 1)).unwrap_err().to_string();
        assert!(refused.contains("has more than 4096 bytes"), "{refused}");
    }

    #[test]
    fn deep_patterns_are_mobys() {
        for (pattern, path, fits) in [
            ("**", "a/b", true),
            ("**", "", true),
            ("**/x", "x", true),
            ("**/x", "ax", false),
            ("**/x", "a/b/x", true),
            ("**/*.md", "docs/a.md", true),
            ("**/*.md", "a.md", true),
            ("a/**", "a/b/c", true),
            ("a/**", "a", false),
            ("a/**/z", "a/z", true),
            ("a/**/z", "a/b/c/z", true),
            ("a/**/z", "a/bz", false),
            // Nothing but letters behind it: ends are compared.
            ("**x", "ax", true),
            ("**x", "b/ax", true),
            ("**x?", "axy", false),
            ("**x?", "a/xy", true),
            ("a**z", "az", true),
            ("a**z", "ab/z", true),
            ("a**z", "abz", false),
            ("***/x", "a/x", true),
        ] {
            assert_eq!(Pattern::deep(pattern).unwrap().matches(path), fits, "{pattern} on {path}");
        }
    }

    #[test]
    fn what_fits_a_folder_fits_what_is_in_it() {
        let pattern = Pattern::deep("**/target").unwrap();
        assert!(pattern.matches_or_parent("target") && pattern.matches_or_parent("sub/target/debug/x"));
        assert!(!pattern.matches_or_parent("sub/targets/x") && !pattern.matches("sub/target/x"));
    }

    /// The plain way, by trying: slow, and easily seen to be right.
    fn tried(tokens: &[Token], path: &[char]) -> bool {
        let Some((token, behind)) = tokens.split_first() else { return path.is_empty() };
        let skips = |fits: &dyn Fn(&[char]) -> bool| {
            (0..=path.len()).any(|count| fits(&path[..count]) && tried(behind, &path[count..]))
        };
        match token {
            Token::Anything => skips(&|_| true),
            Token::Many => skips(&|skipped| !skipped.contains(&'/')),
            Token::Folders => skips(&|skipped| skipped.is_empty() || skipped.ends_with(&['/'])),
            single => path.split_first().is_some_and(|(first, more)| single.takes(*first) && tried(behind, more)),
        }
    }

    proptest! {
        #[test]
        fn an_escaped_text_fits_itself_alone(text in "\\PC{0,20}", other in "\\PC{0,20}") {
            let escaped: String = text.chars().flat_map(|letter| ['\\', letter]).collect();
            for pattern in [Pattern::new(&escaped).unwrap(), Pattern::deep(&escaped).unwrap()] {
                prop_assert!(pattern.matches(&text));
                prop_assert_eq!(pattern.matches(&other), text == other);
            }
        }

        #[test]
        fn the_answer_is_that_of_trying(pattern in "[*?\\[\\]ab/\\\\^-]{0,9}", path in "[ab/*]{0,9}") {
            for read in [Pattern::new(&pattern), Pattern::deep(&pattern)].into_iter().flatten() {
                let letters: Vec<char> = path.chars().collect();
                prop_assert_eq!(read.matches(&path), tried(&read.tokens, &letters));
                let above = path.match_indices('/').any(|(at, _)| read.matches(&path[..at]));
                prop_assert_eq!(read.matches_or_parent(&path), read.matches(&path) || above);
            }
        }
    }
}

//! Patterns of a shell in substitutions, as `${V##*/}`: `*`, `?`, and a backslash before what stands for itself.
//!
//! Source: `convertShellPatternToRegex` of github.com/moby/buildkit, `frontend/dockerfile/shell/lex.go`. A regular expression
//! would do, but one of a thousand question marks takes minutes for a value of some hundred kilobytes.

/// Letters of the value, times those of the pattern, that one substitution may come to: some milliseconds.
const MOST_WORK: usize = 1 << 22;

/// `value` without the shortest or longest beginning that `pattern` matches.
pub(super) fn without_prefix(value: &str, pattern: &str, longest: bool) -> Result<String, String> {
    let value: Vec<char> = value.chars().collect();
    let pattern = Pattern::new(pattern, value.len())?;
    let end = pattern.end(&value, longest).unwrap_or(0);
    Ok(value[end..].iter().collect())
}

/// `value` without the shortest or longest end that `pattern` matches.
pub(super) fn without_suffix(value: &str, pattern: &str, longest: bool) -> Result<String, String> {
    let value: Vec<char> = value.chars().rev().collect();
    let pattern = Pattern::new(pattern, value.len())?.reversed();
    let end = pattern.end(&value, longest).unwrap_or(0);
    Ok(value[end..].iter().rev().collect())
}

/// Appends `value` to `out`, with `with` in place of the first match of `pattern`, or of all. At most `most` bytes.
pub(super) fn replace(
    value: &str,
    pattern: &str,
    with: &str,
    all: bool,
    most: usize,
    out: &mut String,
) -> Result<(), String> {
    let with = unescaped(with);
    let value: Vec<char> = value.chars().collect();
    let pattern = Pattern::new(pattern, value.len())?;
    let mut at = 0;
    let mut done = false;
    while at <= value.len() {
        let rest = &value[at..];
        let found = if done { None } else { pattern.find(rest) };
        let Some((start, end)) = found else {
            out.extend(rest);
            break;
        };
        out.extend(&rest[..start]);
        out.push_str(&with);
        done = !all;
        at += end;
        if start == end {
            // Nothing was matched: the search goes on behind the next letter.
            out.extend(value.get(at));
            at += 1;
        } else if at == value.len() {
            // No empty match follows another.
            break;
        }
        if out.len() > most {
            return Err(format!("it comes to more than {most} bytes"));
        }
    }
    Ok(())
}

/// What lies between the stars of a pattern; `None` is any letter.
struct Pattern(Vec<Vec<Option<char>>>);

impl Pattern {
    /// # Errors
    /// When matching it with a value of `letters` would take long.
    fn new(text: &str, letters: usize) -> Result<Self, String> {
        let mut pieces = vec![Vec::new()];
        let mut rest = text.chars();
        let mut length = 0;
        while let Some(letter) = rest.next() {
            length += 1;
            let piece = match letter {
                '*' => {
                    pieces.push(Vec::new());
                    continue;
                }
                '?' => None,
                '\\' => Some(rest.next().unwrap_or('\\')),
                other => Some(other),
            };
            if let Some(last) = pieces.last_mut() {
                last.push(piece);
            }
        }
        if letters.saturating_mul(length) > MOST_WORK {
            return Err("the pattern of a substitution and its value are too long together".to_owned());
        }
        Ok(Self(pieces))
    }

    fn reversed(mut self) -> Self {
        self.0.reverse();
        for piece in &mut self.0 {
            piece.reverse();
        }
        self
    }

    /// Where the shortest or longest match ends that begins with the value.
    fn end(&self, value: &[char], longest: bool) -> Option<usize> {
        let (first, rest) = self.0.split_first()?;
        if !matches(first, value) {
            return None;
        }
        let mut end = first.len();
        for (number, piece) in rest.iter().enumerate() {
            // The nearest place of each leaves most room for those behind it.
            let mut places = 0..(value.len() + 1).checked_sub(end + piece.len())?;
            let fits = |place: &usize| matches(piece, &value[end + place..]);
            let last = number + 1 == rest.len();
            let place = if longest && last { places.rev().find(fits) } else { places.find(fits) };
            end += place? + piece.len();
        }
        Some(end)
    }

    /// The first match, at its longest.
    fn find(&self, value: &[char]) -> Option<(usize, usize)> {
        let first = self.0.first()?;
        let start = (0..=value.len()).find(|start| matches(first, &value[*start..]))?;
        // Where the rest does not follow the first piece here, it does not further on either.
        Some((start, start + self.end(&value[start..], true)?))
    }
}

fn matches(piece: &[Option<char>], value: &[char]) -> bool {
    piece.len() <= value.len() && piece.iter().zip(value).all(|(want, letter)| want.is_none_or(|want| want == *letter))
}

fn unescaped(text: &str) -> String {
    let mut out = String::new();
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        out.push(if letter == '\\' { letters.next().unwrap_or('\\') } else { letter });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The same pattern as a regular expression, which is what BuildKit makes of it.
    fn expression(pattern: &str, longest: bool, reversed: bool) -> regex::Regex {
        let mut pieces = Vec::new();
        let mut letters = pattern.chars();
        while let Some(letter) = letters.next() {
            pieces.push(match letter {
                '*' if longest => ".*".to_owned(),
                '*' => ".*?".to_owned(),
                '?' => ".".to_owned(),
                '\\' => regex::escape(&letters.next().unwrap_or('\\').to_string()),
                other => regex::escape(&other.to_string()),
            });
        }
        if reversed {
            pieces.reverse();
        }
        regex::RegexBuilder::new(&pieces.concat()).dot_matches_new_line(true).build().unwrap()
    }

    proptest! {
        #[test]
        fn patterns_match_what_buildkits_expressions_match(
            value in "[ab\n]{0,12}", pattern in r"([ab*?]|\\[a*]){0,6}", longest: bool, all: bool,
        ) {
            let anchored = |reversed: bool| {
                let text = format!("^(?:{})", expression(&pattern, longest, reversed));
                regex::RegexBuilder::new(&text).dot_matches_new_line(true).build().unwrap()
            };
            let cut = anchored(false).find(&value).map_or(0, |found| found.end());
            prop_assert_eq!(without_prefix(&value, &pattern, longest).unwrap(), &value[cut..]);

            let reversed: String = value.chars().rev().collect();
            let cut = anchored(true).find(&reversed).map_or(0, |found| found.end());
            prop_assert_eq!(without_suffix(&value, &pattern, longest).unwrap(), &value[..value.len() - cut]);

            let greedy = expression(&pattern, true, false);
            let expected = if all { greedy.replace_all(&value, "-") } else { greedy.replace(&value, "-") };
            let mut out = String::new();
            replace(&value, &pattern, "-", all, 1000, &mut out).unwrap();
            prop_assert_eq!(out, expected);
        }
    }

    #[test]
    fn what_would_take_long_is_refused() {
        let value = "a".repeat(512 << 10);
        let pattern = format!("*a{}b", "?".repeat(900));
        let refused = without_prefix(&value, &pattern, true).unwrap_err();
        assert!(refused.contains("too long together"), "{refused}");
        assert_eq!(without_prefix(&value, "*a", false).unwrap().len(), value.len() - 1);
    }
}

//! Patterns of a shell in substitutions, as `${V##*/}`: `*`, `?`, and a backslash before what stands for itself.
//!
//! Source: `convertShellPatternToRegex` of github.com/moby/buildkit, `frontend/dockerfile/shell/lex.go`.

use regex::{Regex, RegexBuilder};

/// `value` without the shortest or longest beginning that `pattern` matches.
pub(super) fn without_prefix<'a>(value: &'a str, pattern: &str, longest: bool) -> Result<&'a str, String> {
    let pieces: Vec<String> = pieces(pattern, longest);
    let pattern = compiled(&format!("^(?:{})", pieces.concat()))?;
    Ok(pattern.find(value).map_or(value, |found| &value[found.end()..]))
}

/// `value` without the shortest or longest end that `pattern` matches.
pub(super) fn without_suffix<'a>(value: &'a str, pattern: &str, longest: bool) -> Result<&'a str, String> {
    // Searches begin at the left: what is nearest to the right's end is found in the reversed text.
    let pieces: Vec<String> = pieces(pattern, longest).into_iter().rev().collect();
    let pattern = compiled(&format!("^(?:{})", pieces.concat()))?;
    let reversed: String = value.chars().rev().collect();
    let cut = pattern.find(&reversed).map_or(0, |found| found.end());
    Ok(&value[..value.len() - cut])
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
    let pattern = compiled(&pieces(pattern, true).concat())?;
    let mut rest = 0;
    for found in pattern.find_iter(value).take(if all { usize::MAX } else { 1 }) {
        out.push_str(&value[rest..found.start()]);
        out.push_str(&with);
        rest = found.end();
        if out.len() > most {
            return Err(format!("it comes to more than {most} bytes"));
        }
    }
    out.push_str(&value[rest..]);
    Ok(())
}

/// Each letter of a pattern as a regular expression.
fn pieces(pattern: &str, longest: bool) -> Vec<String> {
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
    pieces
}

fn compiled(text: &str) -> Result<Regex, String> {
    let compiled = RegexBuilder::new(text).dot_matches_new_line(true).size_limit(1 << 20).build();
    compiled.map_err(|_| "the pattern of a substitution is too long".to_owned())
}

fn unescaped(text: &str) -> String {
    let mut out = String::new();
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        out.push(if letter == '\\' { letters.next().unwrap_or('\\') } else { letter });
    }
    out
}

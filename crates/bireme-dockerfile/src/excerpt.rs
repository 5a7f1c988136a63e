//! The lines of a file that something is said about, as a client shows them.
//!
//! Source: github.com/moby/buildkit, `solver/errdefs/source.go`, `Source.Print`.

use std::fmt::Write;

use crate::error::Lines;

const RULE: &str = "--------------------";

/// The lines, marked, with some around them; empty where there are none.
pub fn excerpt(filename: &str, text: &str, marked: &[Lines]) -> String {
    let lines: Vec<&str> = text.split('\n').collect();
    let (Some(first), Some(last)) =
        (marked.iter().map(|lines| lines.first).min(), marked.iter().map(|lines| lines.last).max())
    else {
        return String::new();
    };
    if first == 0 || first > lines.len() {
        return String::new();
    }
    let (mut start, mut end) = (first, last.min(lines.len()));
    // At least as many lines around as these, wherever they are to be had.
    let around = if start == end { 4 } else { 2 };
    let mut taken = 0;
    while taken < around {
        if start > 1 {
            start -= 1;
            taken += 1;
        }
        if end < lines.len() {
            end += 1;
            taken += 1;
        }
        taken += 1;
    }
    let mut out = format!("{filename}:{first}\n{RULE}\n");
    for (number, line) in (start..=end).zip(&lines[start - 1..]) {
        let mark = if marked.iter().any(|lines| (lines.first..=lines.last).contains(&number)) { ">>>" } else { "   " };
        // Writing to a string does not fail.
        let _ = writeln!(out, " {number:3} | {mark} {line}");
    }
    out.push_str(RULE);
    out.push('\n');
    out
}

//! What is wrong with a Dockerfile, and where.

use std::fmt;

/// Lines of the text that belong together, both included, counted from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lines {
    /// The first.
    pub first: usize,
    /// The last; never before the first.
    pub last: usize,
}

impl Lines {
    /// A single line.
    pub fn single(line: usize) -> Self {
        Self { first: line, last: line }
    }

    /// Each line by itself, as BuildKit's messages name ranges of the source.
    pub fn each(self) -> impl Iterator<Item = usize> {
        self.first..=self.last
    }
}

impl fmt::Display for Lines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.first)
    }
}

/// A refusal in BuildKit's words, with the lines that a client shows beside it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ParseError {
    /// The whole sentence, as `dockerfile parse error on line 3: unknown instruction: FRM (did you mean FROM?)`.
    pub message: String,
    /// What it is about: one entry an instruction; empty when it is about no place.
    pub lines: Vec<Lines>,
}

impl ParseError {
    /// About the file as a whole.
    pub fn of_file(message: impl Into<String>) -> Self {
        Self { message: clipped(message.into()), lines: Vec::new() }
    }

    /// About one instruction.
    pub fn at(lines: Lines, message: impl Into<String>) -> Self {
        Self { message: clipped(message.into()), lines: vec![lines] }
    }

    /// The same, found while the file was read and not while it was built: BuildKit says where in the sentence itself.
    pub(crate) fn while_parsing(mut self) -> Self {
        if let Some(lines) = self.lines.first() {
            self.message = format!("dockerfile parse error on line {}: {}", lines.first, self.message);
        }
        self
    }

    /// The first line that it is about.
    pub fn line(&self) -> Option<usize> {
        self.lines.first().map(|lines| lines.first)
    }
}

/// Bytes of a sentence, about: a word of a Dockerfile may be a megabyte long.
const LONGEST: usize = 2 << 10;

fn clipped(mut message: String) -> String {
    if message.len() > LONGEST {
        let end = (0..=LONGEST).rev().find(|at| message.is_char_boundary(*at)).unwrap_or(0);
        message.truncate(end);
        message.push('…');
    }
    message
}

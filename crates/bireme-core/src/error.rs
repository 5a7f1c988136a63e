//! The kinds of failure, and the error executors answer with.

use std::error::Error as StdError;
use std::fmt;

/// What went wrong, from the point of view of whoever asked.
///
/// Each library error answers `kind()`; three tables turn kinds into HTTP status (`biremed`), ttrpc codes
/// (`bireme-shim`) and exit codes (`bireme`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// What was named does not exist.
    NotFound,
    /// It exists, but its state or something else that exists forbids the request.
    Conflict,
    /// The request itself is malformed or contradicts itself.
    Invalid,
    /// The request is understood and not permitted.
    Denied,
    /// Something needed for it is away or exhausted; the same request may work later.
    Unavailable,
    /// Understood, and not offered by this engine or by this kind of workload.
    Unsupported,
    /// A defect of ours or of the system below us.
    Internal,
}

/// An executor's answer when it could not do what was asked.
///
/// `Display` gives the message alone; the cause is in [`StdError::source`].
pub struct ExecError {
    kind: ErrorKind,
    message: String,
    exit_code: Option<i32>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl ExecError {
    /// `message` names what was refused, why, and the next step; lower case, no full stop.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), exit_code: None, source: None }
    }

    /// The same error with its cause attached.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The same error with the exit code a failed start is recorded with: 126 for a command that cannot be executed,
    /// 127 for one that is not there, 128 otherwise.
    #[must_use]
    pub fn with_exit_code(mut self, code: i32) -> Self {
        self.exit_code = Some(code);
        self
    }

    /// What went wrong, from the point of view of whoever asked.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The exit code a failed start is recorded with, if the failure is one of the command itself.
    pub fn exit_code(&self) -> Option<i32> {
        self.exit_code
    }

    /// The message alone, as `Display` gives it: what was refused, why, and the next step.
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for ExecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl fmt::Debug for ExecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExecError")
            .field("kind", &self.kind)
            .field("message", &self.message)
            .field("exit_code", &self.exit_code)
            .field("source", &self.source)
            .finish()
    }
}

impl StdError for ExecError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

/// The text of an error with those of the causes below it, from the outermost inwards with `: ` between, for logs and for
/// clients where the fault is ours. A cause whose text stands in what is written already is passed over.
pub fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let part = cause.to_string();
        if !text.contains(&part) {
            text.push_str(": ");
            text.push_str(&part);
        }
        next = cause.source();
    }
    text
}

/// The first `most` bytes of `text` as one line that can be logged and shown.
pub fn one_line(text: &str, most: usize) -> String {
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    text[..text.floor_char_boundary(most)].chars().map(plain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_names_each_cause_once() {
        let failed = |message: &str| ExecError::new(ErrorKind::Internal, message);
        for (error, expected) in [
            (failed("cannot start"), "cannot start"),
            (failed("cannot start").caused_by(failed("no memory")), "cannot start: no memory"),
            (failed("cannot start: no memory").caused_by(failed("no memory")), "cannot start: no memory"),
            (failed("a").caused_by(failed("b").caused_by(failed("c"))), "a: b: c"),
            (failed("a: b").caused_by(failed("b").caused_by(failed("c"))), "a: b: c"),
        ] {
            assert_eq!(chain(&error), expected);
        }
    }
}

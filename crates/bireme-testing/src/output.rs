//! What a client printed, with assertions that show all of it when they fail.

/// The end of one client command.
#[derive(Debug)]
pub struct Output {
    /// The program and its arguments, for messages.
    pub command: String,
    /// The exit code; 128 and the number of the signal that ended it, as shells have it.
    pub code: i32,
    out: String,
    err: String,
}

impl Output {
    /// Runs a command to its end.
    pub(crate) fn of(mut command: std::process::Command) -> Self {
        use std::os::unix::process::ExitStatusExt as _;
        let name = format!("{command:?}");
        let output = command.output().unwrap_or_else(|error| panic!("{name} cannot be run: {error}"));
        let code = output.status.code().unwrap_or_else(|| 128 + output.status.signal().unwrap_or(0));
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self { command: name, code, out: text(&output.stdout), err: text(&output.stderr) }
    }

    /// Standard output of a command that succeeded.
    ///
    /// # Panics
    /// When it did not.
    #[track_caller]
    pub fn stdout(&self) -> &str {
        assert_eq!(self.code, 0, "{self}");
        &self.out
    }

    /// Standard output whatever the exit code.
    pub fn raw_stdout(&self) -> &str {
        &self.out
    }

    /// Standard error whatever the exit code.
    pub fn stderr(&self) -> &str {
        &self.err
    }

    /// Asserts that it failed with `code` and said `words` on standard error or output.
    ///
    /// # Panics
    /// When it did not, with all that it printed.
    #[track_caller]
    pub fn fails(&self, code: i32, words: &str) {
        assert_eq!(self.code, code, "{self}");
        assert!(self.err.contains(words) || self.out.contains(words), "expected the words {words:?}: {self}");
    }
}

impl std::fmt::Display for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "`{}` ended with {}\n--- stdout\n{}\n--- stderr\n{}", self.command, self.code, self.out, self.err)
    }
}

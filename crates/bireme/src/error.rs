//! How a command fails: a message, perhaps a hint, and Docker's exit code.

use std::process::ExitCode;

use bireme_api::ClientError;
use bireme_core::ErrorKind;

/// What a command answers: the exit code of the process.
pub type Outcome = anyhow::Result<u8>;

/// A failure of our own making, with the exit code it ends the process with.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    message: String,
    hint: Option<String>,
    code: u8,
}

impl Failure {
    /// A failure with exit code 1.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None, code: 1 }
    }

    /// What to do next, shown on a line of its own.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The exit code of the process.
    #[must_use]
    pub fn code(mut self, code: u8) -> Self {
        self.code = code;
        self
    }

    /// Ends the process with `code`; what there is to say has been said.
    pub fn silent(code: u8) -> Self {
        Self { message: String::new(), hint: None, code }
    }
}

/// Prints `error` and answers the exit code. A broken pipe is silence: whoever read us has gone, as `head` does.
#[expect(clippy::print_stderr, reason = "the last word of the process, after every printer is gone")]
pub fn report(error: &anyhow::Error, command: Option<&str>) -> ExitCode {
    if is_broken_pipe(error) {
        return ExitCode::SUCCESS;
    }
    let failure = error.downcast_ref::<Failure>();
    let client = error.downcast_ref::<ClientError>();
    let own = failure.map(|failure| failure.code).filter(|code| *code != 1);
    let code = own.unwrap_or_else(|| exit_code(error, command));
    let text = for_our_user(&format!("{error:#}"));
    if !text.is_empty() {
        match client {
            Some(ClientError::Refused { .. }) if matches!(command, Some("run" | "create")) => {
                eprintln!("bireme: {text}")
            }
            Some(ClientError::Refused { .. }) => eprintln!("{text}"),
            _ if text.starts_with("Error response from daemon") => eprintln!("{text}"),
            _ => eprintln!("bireme: {text}"),
        }
    }
    let hint = failure.and_then(|failure| failure.hint.clone()).or_else(|| client.and_then(hint_for));
    if let Some(hint) = hint {
        eprintln!("hint: {hint}");
    }
    ExitCode::from(code)
}

/// A message as our user should read it: the engine speaks to users of Docker's client, whose commands have another
/// name here; and what it quotes may come from an image or a container, so that nothing of it speaks to the terminal.
fn for_our_user(text: &str) -> String {
    text.replace("`docker ", "`bireme ")
        .replace("'docker login'", "'bireme login'")
        .replace(|c: char| c.is_control() && c != '\n' && c != '\t', "\u{fffd}")
}

/// Prints clap's own message: help and version succeed, everything else is Docker's 125.
pub fn usage(error: &clap::Error) -> ExitCode {
    // Nothing is left to do when the terminal is gone.
    let _ = error.print();
    ExitCode::from(if error.use_stderr() { 125 } else { 0 })
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
        .any(|cause| cause.kind() == std::io::ErrorKind::BrokenPipe)
        && error.downcast_ref::<ClientError>().is_none()
}

/// Docker's exit code of a failure to run something: 126 when the command cannot be executed, 127 when it is not
/// there, 125 when the engine failed; 1 for every other command.
fn exit_code(error: &anyhow::Error, command: Option<&str>) -> u8 {
    if !matches!(command, Some("run" | "start" | "create" | "container" | "exec")) {
        return 1;
    }
    let text = format!("{error:#}");
    let has = |needles: &[&str]| needles.iter().any(|needle| text.contains(needle));
    if has(&["executable file not found", "no such file or directory", "command not found"]) {
        127
    } else if has(&["permission denied", "is a directory", "exec format error", "not executable"]) {
        126
    } else if command == Some("run") {
        125
    } else {
        1
    }
}

fn hint_for(error: &ClientError) -> Option<String> {
    match error {
        ClientError::Connect { host: bireme_api::Host::Unix(path), source } => Some(match source.kind() {
            std::io::ErrorKind::PermissionDenied => {
                format!("your user may not open {}; join the group that owns it, or run as root", path.display())
            }
            _ => "is the engine running? start it with `bireme daemon`, or name another with --host".to_owned(),
        }),
        ClientError::Connect { .. } => Some("check the address given by --host, BIREME_HOST or DOCKER_HOST".to_owned()),
        ClientError::Refused { message, .. } if error.kind() == ErrorKind::NotFound => {
            if message.contains("container") { Some("`bireme ps -a` lists every container".to_owned()) } else { None }
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(command: &str, message: &str, expected: u8) {
        let error = anyhow::anyhow!(message.to_owned());
        assert_eq!(exit_code(&error, Some(command)), expected, "{command}: {message}");
    }

    #[test]
    fn messages_speak_to_our_user() {
        let engines = "web has no shell: read its output with `docker logs`";
        assert_eq!(for_our_user(engines), "web has no shell: read its output with `bireme logs`");
        assert_eq!(for_our_user("may require 'docker login': x"), "may require 'bireme login': x");
        assert_eq!(for_our_user("a\u{1b}[2J\tb\n"), "a\u{fffd}[2J\tb\n");
    }

    #[test]
    fn exit_codes_are_dockers() {
        check("run", "exec: \"nope\": executable file not found in $PATH", 127);
        check("run", "exec: \"/etc/passwd\": permission denied", 126);
        check("run", "exec: \"/etc\": is a directory", 126);
        check("run", "port is already allocated", 125);
        check("ps", "no such file or directory", 1);
        check("start", "something else", 1);
    }
}

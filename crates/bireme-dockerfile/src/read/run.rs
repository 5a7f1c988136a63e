//! RUN.

use crate::error::ParseError;
use crate::heredoc;
use crate::instruction::Instruction;
use crate::words::Expander;

use super::command::Command;
use super::mount::{self, Mount};

/// What RUN says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunFlags {
    /// The values of `--mount`, as written; [`mounts`] reads them.
    pub mounts: Vec<String>,
    /// Of `--network`.
    pub network: Network,
    /// Of `--security`.
    pub security: Security,
    /// What is run.
    pub command: RunCommand,
}

/// The network that a step sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Network {
    /// The build's.
    #[default]
    Default,
    /// None but its own loopback.
    None,
    /// The host's.
    Host,
}

/// How a step is confined.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Security {
    /// As every container is.
    #[default]
    Sandbox,
    /// Not at all.
    Insecure,
}

/// What a step runs. No variables are expanded in it: they are in the step's environment, and its shell expands them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunCommand {
    /// The program and its arguments.
    Exec(Vec<String>),
    /// For the shell to read, heredocs included.
    Shell(String),
    /// A file with a `#!` line, which is run as a program under that name.
    Script {
        /// The heredoc's delimiter.
        name: String,
        /// The whole file.
        content: String,
    },
}

/// Reads RUN, words as they are written.
///
/// # Errors
/// When a flag is not known, or its value.
pub fn run(at: &Instruction) -> Result<RunFlags, ParseError> {
    at.check_flags()?;
    if at.flag("device").is_some() {
        return Err(at.fault("RUN --device is not offered: devices of the host do not take part in builds"));
    }
    let network = match at.flag("network") {
        None | Some("default") => Network::Default,
        Some("none") => Network::None,
        Some("host") => Network::Host,
        Some(other) => return Err(at.fault(format!("invalid network mode {other:?}"))),
    };
    let security = match at.flag("security") {
        None | Some("sandbox") => Security::Sandbox,
        Some("insecure") => Security::Insecure,
        Some(other) => return Err(at.fault(format!("security {other:?} is not valid"))),
    };
    let mounts = at.flag_values("mount");
    for value in &mounts {
        mount::check(at, value)?;
    }
    Ok(RunFlags { mounts, network, security, command: command(at) })
}

/// The mounts of RUN.
///
/// # Errors
/// What is wrong with one, in BuildKit's words.
pub fn mounts(at: &Instruction, run: &RunFlags, expander: &mut Expander<'_>) -> Result<Vec<Mount>, ParseError> {
    run.mounts.iter().map(|value| mount::mount(at, value, expander)).collect()
}

fn command(at: &Instruction) -> RunCommand {
    let line = match super::command::command(at) {
        Command::Exec(list) => return RunCommand::Exec(list),
        Command::Shell(line) => line,
    };
    let Some(first) = at.heredocs.first() else { return RunCommand::Shell(line) };
    if !matches!(heredoc::begun_by(&line), Ok(Some(_))) {
        // The shell reads heredocs by itself.
        let mut line = line;
        for heredoc in &at.heredocs {
            line.push('\n');
            line.push_str(&heredoc.content);
            line.push_str(&heredoc.name);
        }
        return RunCommand::Shell(line);
    }
    let content = first.text();
    if first.content.starts_with("#!") {
        return RunCommand::Script { name: first.name.clone(), content };
    }
    RunCommand::Shell(content)
}

impl RunFlags {
    /// What progress shows behind the instruction, so that one heredoc is told from another: its first line.
    ///
    /// Source: github.com/moby/buildkit, `frontend/dockerfile/dockerfile2llb`, `summarizeHeredoc`.
    pub fn summary(at: &Instruction) -> Option<String> {
        let heredoc = at.heredocs.first().filter(|_| matches!(heredoc::begun_by(&at.rest), Ok(Some(_))))?;
        let mut lines = heredoc.content.lines().map(str::trim).filter(|line| !line.is_empty());
        let first = lines.next()?;
        let more = if lines.next().is_some() { "..." } else { "" };
        Some(format!("({first}{more})"))
    }
}

//! CMD and ENTRYPOINT: a command line in one of two forms.

use crate::instruction::Instruction;

/// A command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// The program and its arguments.
    Exec(Vec<String>),
    /// For a shell to read.
    Shell(String),
}

/// Reads what follows CMD or ENTRYPOINT. No variables are expanded in it: the shell does that when it runs.
pub fn command(at: &Instruction) -> Command {
    match &at.json {
        Some(list) => Command::Exec(list.clone()),
        None => Command::Shell(at.rest.clone()),
    }
}

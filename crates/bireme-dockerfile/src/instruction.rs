//! One instruction: its word, flags and what follows them, read but not understood yet.

use crate::error::{Lines, ParseError};
use crate::heredoc::Heredoc;
use crate::keyword::{FlagKind, Keyword};
use crate::suggest;

/// One instruction on however many lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// Its lines, those of its heredocs included.
    pub lines: Lines,
    /// What it does.
    pub keyword: Keyword,
    /// The keyword in the case in which it is written.
    pub written: String,
    /// All of it but the heredocs' lines, on one line: as history and progress show it.
    pub text: String,
    /// In their order, as written.
    pub flags: Vec<Flag>,
    /// What follows the flags, on one line.
    pub rest: String,
    /// What follows the flags where that is a JSON array of strings: the exec form. For HEALTHCHECK, the command's.
    pub json: Option<Vec<String>>,
    /// Of RUN, COPY and ADD, and of ONBUILD before one of them.
    pub heredocs: Vec<Heredoc>,
    /// The comments right before it, without their signs.
    pub comments: Vec<String>,
    /// The file's escape: `\` or a backtick.
    pub escape: char,
    /// The line on which it ends, where empty lines stand between its own.
    pub(crate) empty_continuation: Option<usize>,
}

/// `--name` or `--name=value`, without quotes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flag {
    /// Without the dashes.
    pub name: String,
    /// What follows the sign, unexpanded.
    pub value: Option<String>,
}

impl Instruction {
    /// A refusal about this instruction.
    pub fn fault(&self, message: impl Into<String>) -> ParseError {
        ParseError::at(self.lines, message)
    }

    /// The value of the last flag of that name.
    pub fn flag(&self, name: &str) -> Option<&str> {
        self.flags.iter().rev().find(|flag| flag.name == name)?.value.as_deref()
    }

    /// Whether a switch is given and not turned off.
    pub(crate) fn switch(&self, name: &str) -> bool {
        self.flags
            .iter()
            .rev()
            .find(|flag| flag.name == name)
            .is_some_and(|flag| flag.value.as_deref().is_none_or(|value| value.eq_ignore_ascii_case("true")))
    }

    /// The values of all flags of that name.
    pub(crate) fn flag_values(&self, name: &str) -> Vec<String> {
        self.flags.iter().filter(|flag| flag.name == name).filter_map(|flag| flag.value.clone()).collect()
    }

    /// The arguments: of the JSON form, or divided at white space. No quotes are read in the second.
    pub fn arguments(&self) -> Vec<String> {
        match &self.json {
            Some(list) => list.clone(),
            None => self.rest.split(is_separator).filter(|word| !word.is_empty()).map(str::to_owned).collect(),
        }
    }

    /// Checks that there are only flags that it takes, each once but for lists.
    pub(crate) fn check_flags(&self) -> Result<(), ParseError> {
        let Some(known) = self.keyword.flags() else { return Ok(()) };
        let mut seen: Vec<&str> = Vec::new();
        for Flag { name, value } in &self.flags {
            let Some((_, kind)) = known.iter().find(|(known, _)| known == name) else {
                let names = known.iter().map(|(name, _)| *name);
                return Err(self.fault(suggest::with_nearest(format!("unknown flag: --{name}"), name, names, true)));
            };
            if *kind != FlagKind::Values && seen.contains(&name.as_str()) {
                return Err(self.fault(format!("duplicate flag specified: --{name}")));
            }
            seen.push(name);
            match (kind, value.as_deref()) {
                (FlagKind::Switch, Some("")) | (FlagKind::Value | FlagKind::Values, None) => {
                    return Err(self.fault(format!("missing a value on flag: --{name}")));
                }
                (FlagKind::Switch, Some(value))
                    if !value.eq_ignore_ascii_case("true") && !value.eq_ignore_ascii_case("false") =>
                {
                    return Err(self.fault(format!("expecting boolean value for flag --{name}, not: {value}")));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// White space between the words of an instruction. Others, as the no-break space, are letters.
pub(crate) fn is_separator(letter: char) -> bool {
    matches!(letter, '\t' | '\u{b}' | '\u{c}' | '\r' | ' ')
}

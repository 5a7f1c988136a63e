//! COPY and ADD.

use crate::error::ParseError;
use crate::heredoc;
use crate::instruction::Instruction;
use crate::words::Expander;

/// Why `--from=$STAGE` is refused.
pub(crate) const NO_VARIABLES_IN_FROM: &str = "variable expansion is not supported for --from, define a new stage with FROM \
                                               using ARG from global scope as a workaround";

/// What COPY or ADD says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CopyFlags {
    /// Of COPY: the stage, image or named context. Variables are not allowed in it.
    pub from: Option<String>,
    /// `user[:group]`; variables may stand in it.
    pub chown: Option<String>,
    /// Octal digits, or symbols such as `u+x`; variables may stand in it. See [`Self::mode`].
    pub chmod: Option<String>,
    /// The layer stands by itself.
    pub link: bool,
    /// Of COPY: folders of the sources are made at the destination too.
    pub parents: bool,
    /// Patterns that are left out. Variables may stand in them.
    pub exclude: Vec<String>,
    /// Of ADD: the digest that a file from elsewhere must have; variables may stand in it.
    pub checksum: Option<String>,
    /// Of ADD: `.git` is kept.
    pub keep_git_dir: bool,
    /// Of ADD: whether archives are unpacked. `None` is for local ones alone.
    pub unpack: Option<bool>,
    /// Paths, patterns and addresses.
    pub sources: Vec<String>,
    /// Files whose text stands in the Dockerfile, in their order.
    pub heredocs: Vec<HeredocFile>,
    /// Where to.
    pub dest: String,
}

/// A file whose text stands in the Dockerfile.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeredocFile {
    /// The delimiter.
    pub name: String,
    /// The text.
    pub content: String,
    /// Variables are expanded in it.
    pub expand: bool,
}

/// Reads COPY or ADD, words as they are written.
///
/// # Errors
/// When a flag is not of the instruction, or source or destination are missing.
pub fn copy(at: &Instruction) -> Result<CopyFlags, ParseError> {
    let mut words = at.arguments();
    let dest = match words.pop() {
        Some(dest) if !words.is_empty() => dest,
        _ => {
            return Err(at.fault(format!(
                "{} requires at least two arguments, but only one was provided. Destination could not be determined",
                at.keyword
            )));
        }
    };
    at.check_flags()?;
    if is_heredoc(&dest) {
        return Err(at.fault(format!("{} cannot accept a heredoc as a destination", at.keyword)));
    }
    let mut sources = Vec::new();
    let mut heredocs = Vec::new();
    for word in words {
        let Some(begun) = heredoc::begun_by(&word).ok().flatten().filter(|_| at.json.is_none()) else {
            sources.push(word);
            continue;
        };
        // Of two with one name, the second's text is meant by both.
        let read = at.heredocs.iter().rev().find(|read| read.name == begun.name);
        let content = read.map(heredoc::Heredoc::text).unwrap_or_default();
        heredocs.push(HeredocFile { name: begun.name, content, expand: begun.expand });
    }
    let given = |name: &str| at.flag(name).filter(|value| !value.is_empty()).map(str::to_owned);
    let from = given("from");
    Ok(CopyFlags {
        from,
        chown: given("chown"),
        chmod: given("chmod"),
        link: at.switch("link"),
        parents: at.switch("parents"),
        exclude: at.flag_values("exclude"),
        checksum: given("checksum"),
        keep_git_dir: at.switch("keep-git-dir"),
        unpack: at.flags.iter().any(|flag| flag.name == "unpack").then(|| at.switch("unpack")),
        sources,
        heredocs,
        dest,
    })
}

fn is_heredoc(word: &str) -> bool {
    matches!(heredoc::begun_by(word), Ok(Some(_)))
}

impl CopyFlags {
    /// The same with variables expanded.
    ///
    /// # Errors
    /// When a word cannot be expanded, or variables stand where they must not.
    pub fn expanded(mut self, at: &Instruction, expander: &mut Expander<'_>) -> Result<Self, ParseError> {
        let fault = |reason: String| at.fault(reason);
        if self.from.as_deref().is_some_and(|from| from.contains('$')) {
            return Err(at.fault(NO_VARIABLES_IN_FROM));
        }
        for word in [&mut self.chown, &mut self.chmod, &mut self.checksum].into_iter().flatten() {
            *word = expander.word(word).map_err(fault)?;
        }
        for word in self.exclude.iter_mut().chain(&mut self.sources).chain([&mut self.dest]) {
            *word = expander.word(word).map_err(fault)?;
        }
        for file in self.heredocs.iter_mut().filter(|file| file.expand) {
            file.content = expander.heredoc(&file.content).map_err(fault)?;
        }
        Ok(self)
    }

    /// The mode that `chmod` names where it is octal. `Ok(None)` where it is symbolic or not given.
    ///
    /// # Errors
    /// When it is a number beyond the octal ones.
    pub fn mode(&self) -> Result<Option<u32>, String> {
        let Some(chmod) = self.chmod.as_deref().filter(|word| word.starts_with(|c: char| c.is_ascii_digit())) else {
            return Ok(None);
        };
        u32::from_str_radix(chmod, 8).ok().filter(|mode| *mode <= 0o7777).map(Some).ok_or_else(|| {
            format!("invalid chmod parameter: '{chmod}'. it should be octal string and between 0 and 07777")
        })
    }
}

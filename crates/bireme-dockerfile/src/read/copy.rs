//! COPY and ADD.

use crate::error::ParseError;
use crate::heredoc;
use crate::instruction::Instruction;
use crate::words::Expander;

use super::chmod::Chmod;

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
    /// Patterns that are left out. No variables are expanded in them.
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

/// Source: github.com/opencontainers/go-digest, `Validate`.
fn digest(text: &str) -> Result<(), String> {
    let good =
        |hex: &str| !hex.is_empty() && hex.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"=_-".contains(&byte));
    let Some((algorithm, hex)) = text.split_once(':').filter(|(algorithm, hex)| good(algorithm) && good(hex)) else {
        return Err("invalid checksum digest format".to_owned());
    };
    let length = match algorithm {
        "sha256" => 64,
        "sha384" => 96,
        "sha512" => 128,
        _ => return Err("unsupported digest algorithm".to_owned()),
    };
    if hex.len() != length {
        return Err("invalid checksum digest length".to_owned());
    }
    if !hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
        return Err("invalid checksum digest format".to_owned());
    }
    Ok(())
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
        for word in self.sources.iter_mut().chain([&mut self.dest]) {
            *word = expander.word(word).map_err(fault)?;
        }
        self.check_checksum().map_err(fault)?;
        for file in self.heredocs.iter_mut().filter(|file| file.expand) {
            file.content = expander.heredoc(&file.content).map_err(fault)?;
        }
        Ok(self)
    }

    /// The mode that `chmod` names where it is octal. `Ok(None)` where it is symbolic or not given.
    ///
    /// # Errors
    /// As [`Self::permissions`].
    pub fn mode(&self) -> Result<Option<u32>, String> {
        Ok(match self.permissions()? {
            Some(Chmod::Octal(mode)) => Some(mode),
            _ => None,
        })
    }

    /// What `chmod` says, once it is expanded.
    ///
    /// # Errors
    /// When it is neither octal digits nor symbols.
    pub fn permissions(&self) -> Result<Option<Chmod>, String> {
        self.chmod.as_deref().filter(|word| !word.is_empty()).map(Chmod::read).transpose()
    }

    /// A digest is for one file from elsewhere.
    fn check_checksum(&self) -> Result<(), String> {
        let Some(checksum) = self.checksum.as_deref().filter(|word| !word.is_empty()) else { return Ok(()) };
        let [source] = &self.sources[..] else {
            return Err("checksum can't be specified for multiple sources".to_owned());
        };
        let http = source.starts_with("http://") || source.starts_with("https://");
        let path = source.split(['#', '?']).next().unwrap_or_default();
        let git = source.starts_with("git://") || source.starts_with("ssh://") || source.starts_with("git@");
        match (git || (http && path.ends_with(".git")), http) {
            // A commit.
            (true, _) => Ok(()),
            (false, true) => digest(checksum),
            _ => Err("checksum requires HTTP(S) or Git sources".to_owned()),
        }
    }
}

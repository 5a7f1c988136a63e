//! The instructions there are, and the flags that each of them takes.
//!
//! Source: github.com/moby/buildkit, `frontend/dockerfile/command` and `frontend/dockerfile/instructions/parse.go`.

use std::fmt;

/// What an instruction does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "each is the word itself, and the reference of Dockerfiles says what it does")]
pub enum Keyword {
    Add,
    Arg,
    Cmd,
    Copy,
    Entrypoint,
    Env,
    Expose,
    From,
    Healthcheck,
    Label,
    Maintainer,
    Onbuild,
    Run,
    Shell,
    Stopsignal,
    User,
    Volume,
    Workdir,
}

/// What a flag takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FlagKind {
    /// `--name`, `--name=true`, `--name=false`.
    Switch,
    /// `--name=value`, once.
    Value,
    /// `--name=value`, any number of times.
    Values,
}

use FlagKind::{Switch, Value, Values};

impl Keyword {
    /// All of them, in the order of the alphabet.
    pub const ALL: [Self; 18] = [
        Self::Add,
        Self::Arg,
        Self::Cmd,
        Self::Copy,
        Self::Entrypoint,
        Self::Env,
        Self::Expose,
        Self::From,
        Self::Healthcheck,
        Self::Label,
        Self::Maintainer,
        Self::Onbuild,
        Self::Run,
        Self::Shell,
        Self::Stopsignal,
        Self::User,
        Self::Volume,
        Self::Workdir,
    ];

    /// In upper case.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Arg => "ARG",
            Self::Cmd => "CMD",
            Self::Copy => "COPY",
            Self::Entrypoint => "ENTRYPOINT",
            Self::Env => "ENV",
            Self::Expose => "EXPOSE",
            Self::From => "FROM",
            Self::Healthcheck => "HEALTHCHECK",
            Self::Label => "LABEL",
            Self::Maintainer => "MAINTAINER",
            Self::Onbuild => "ONBUILD",
            Self::Run => "RUN",
            Self::Shell => "SHELL",
            Self::Stopsignal => "STOPSIGNAL",
            Self::User => "USER",
            Self::Volume => "VOLUME",
            Self::Workdir => "WORKDIR",
        }
    }

    /// Reads it in any case.
    pub fn read(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|keyword| keyword.as_str().eq_ignore_ascii_case(word))
    }

    /// The flags it takes. `None` where flags are passed over unread, as BuildKit does.
    pub(crate) fn flags(self) -> Option<&'static [(&'static str, FlagKind)]> {
        Some(match self {
            Self::Add => &[
                ("chmod", Value),
                ("chown", Value),
                ("link", Switch),
                ("keep-git-dir", Switch),
                ("checksum", Value),
                ("unpack", Switch),
                ("exclude", Values),
            ],
            Self::Copy => &[
                ("chmod", Value),
                ("chown", Value),
                ("from", Value),
                ("link", Switch),
                ("parents", Switch),
                ("exclude", Values),
            ],
            Self::From => &[("platform", Value)],
            Self::Run => &[("mount", Values), ("network", Value), ("security", Value), ("device", Values)],
            Self::Healthcheck => &[
                ("interval", Value),
                ("timeout", Value),
                ("start-period", Value),
                ("start-interval", Value),
                ("retries", Value),
            ],
            Self::Arg | Self::Stopsignal => return None,
            _ => &[],
        })
    }

    /// Whether what follows may be a JSON array.
    pub(crate) fn takes_json(self) -> bool {
        matches!(self, Self::Add | Self::Cmd | Self::Copy | Self::Entrypoint | Self::Run | Self::Shell | Self::Volume)
    }

    /// Whether heredocs may follow it.
    pub(crate) fn takes_heredocs(self) -> bool {
        matches!(self, Self::Add | Self::Copy | Self::Run)
    }
}

impl fmt::Display for Keyword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

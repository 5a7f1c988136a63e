//! The language of Dockerfiles: its grammar, its words and variables, its stages, and checks.
//!
//! Pure: a text goes in, what it says comes out. Nothing is built here, no file opened, no registry asked. The language is
//! that of BuildKit's front end `dockerfile.v0` (docker/dockerfile 1.17 and later), in its words where something is refused.
//!
//! - [`Dockerfile::parse`] reads a file; every instruction in it is well-formed then.
//! - [`read`] has a reading for each instruction: flags, mounts, pairs, ports.
//! - [`Expander`] expands the words in which variables may stand.
//! - [`graph`] says which stages a target needs, [`scope`] which arguments hold before the first FROM.
//! - [`lint`] warns of what is better written otherwise.
//! - [`subrequest`] answers what is asked of a front end that is not to build.
//!
//! Source: docs.docker.com/reference/dockerfile; github.com/moby/buildkit, `frontend/dockerfile`.
#![warn(missing_docs)]

mod check;
mod comment;
mod directives;
mod dockerfile;
mod error;
mod excerpt;
#[doc(hidden)]
pub mod fuzz;
pub mod graph;
mod heredoc;
mod instruction;
mod keyword;
mod line;
pub mod lint;
pub mod read;
pub mod scope;
pub mod subrequest;
mod suggest;
mod words;

pub use directives::{CheckOptions, Directives, detect_syntax};
pub use dockerfile::{Dockerfile, From, Stage};
pub use error::{Lines, ParseError};
pub use excerpt::excerpt;
pub use heredoc::Heredoc;
pub use instruction::{Flag, Instruction};
pub use keyword::Keyword;
pub use words::{Expander, LONGEST, LexError, Lexed, Lexer, split};

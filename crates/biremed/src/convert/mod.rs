//! Between Docker's wire and the engine's own types: pure, and nowhere else.
//!
//! Requests are read as the generated types of `bireme_api::models`. Answers are written as JSON by hand where dockerd's
//! differs from what those types can say: they leave out what is empty, dockerd sends `null`, `""` or `[]`, and
//! clients tell these apart.
//!
//! Whatever a request asks for that is not offered is refused by its name, never ignored. Fields that nobody knows are
//! ignored as dockerd ignores them, since newer clients send more of them.

pub mod component;
pub mod create;
pub mod event;
pub mod filters;
pub mod image;
pub mod inspect;
pub mod list;
pub mod mounts;
pub mod network;
pub mod ports;
pub mod stats;
pub mod time;
pub mod update;
pub mod volume;

use bireme_core::ErrorKind;
pub use filters::Filters;

/// Why a request cannot be put into the engine's terms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// `Invalid` or `Unsupported`.
    pub kind: ErrorKind,
    /// What is refused, why, and what to do instead; in Docker's words where it has them.
    pub message: String,
}

impl Refusal {
    pub fn invalid(message: impl Into<String>) -> Self {
        Self { kind: ErrorKind::Invalid, message: message.into() }
    }

    pub fn unsupported(message: impl Into<String>) -> Self {
        Self { kind: ErrorKind::Unsupported, message: message.into() }
    }
}

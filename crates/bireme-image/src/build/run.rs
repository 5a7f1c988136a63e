//! RUN: commands of a build. Nothing is run here: whoever asks for a build brings what runs them.

use std::path::PathBuf;

use bireme_core::BoxFuture;

use crate::error::ImageError;
use crate::events::OnBuildEvent;
use crate::model::Image;

pub use crate::made::Changes;
pub use crate::model::CachedLayer;

/// Runs the commands of builds.
pub trait RunSteps: Send + Sync {
    /// Runs one command to its end, its output told to `log`, and answers what it changed.
    ///
    /// # Errors
    /// `Run` when it ended with another code than 0; `RunRefused` when it could not be run.
    /// # Cancel safety
    /// Dropping the future, or the answer, ends the command and leaves nothing of it.
    fn run<'a>(&'a self, step: RunStep, log: OnBuildEvent<'a>) -> BoxFuture<'a, Result<Changes, ImageError>>;
}

/// One command of a build.
#[derive(Clone, Debug)]
pub struct RunStep {
    /// What was built so far. It is no stored image.
    pub image: Image,
    /// The folders of its layers, lowest first; they stay while the command runs.
    pub layers: Vec<PathBuf>,
    /// Program and arguments.
    pub command: Vec<String>,
    /// `NAME=value` of the build's arguments, to be added to the image's environment.
    pub env: Vec<String>,
}

//! What long work reports while it runs, in the words of Docker's JSON lines.

use std::ops::RangeInclusive;

use crate::digest::{Digest, ImageId};

/// One line of progress of a pull or load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The short ID of the layer, or the tag in the first line; `None` for lines about the whole.
    pub id: Option<String>,
    /// `Pulling fs layer`, `Downloading`, `Verifying Checksum`, `Download complete`, `Extracting`, `Pull complete`,
    /// `Already exists`, or a sentence about the whole.
    pub status: String,
    /// Bytes done, where they are counted.
    pub current: Option<u64>,
    /// Bytes in all, where they are known.
    pub total: Option<u64>,
}

impl Progress {
    pub(crate) fn whole(status: impl Into<String>) -> Self {
        Self { id: None, status: status.into(), current: None, total: None }
    }

    pub(crate) fn of(id: &str, status: &str) -> Self {
        Self { id: Some(id.to_owned()), status: status.to_owned(), current: None, total: None }
    }

    /// Bytes of which nobody knows how many there will be.
    pub(crate) fn counted_alone(status: &str, current: u64) -> Self {
        Self { id: None, status: status.to_owned(), current: Some(current), total: None }
    }

    pub(crate) fn counted(id: &str, status: &str, current: u64, total: u64) -> Self {
        Self { id: Some(id.to_owned()), status: status.to_owned(), current: Some(current), total: Some(total) }
    }
}

/// What a build reports while it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BuildEvent {
    /// Text for the user with its line end: `Step 1/3 : FROM alpine`, ` ---> 1234567890ab`, `Successfully built …`. Of a
    /// build that tells its story as text alone.
    Stream(String),
    /// Progress of pulling a base image, where no step has it.
    Progress(Progress),
    /// The image that was built; Docker's `aux` line.
    Built(ImageId),
    /// The Dockerfile, before anything is done with it.
    Dockerfile {
        /// As it was asked for.
        name: String,
        /// All of it.
        text: String,
    },
    /// Something that is allowed and unwise.
    Warning(Warning),
    /// A step began, went on or ended. Of a build that tells its steps.
    Step {
        /// Which.
        id: StepId,
        /// What it did.
        event: StepEvent,
    },
}

/// Names a step among those of one build.
pub type StepId = Digest;

/// A part of a build of which a client shows one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StepEvent {
    /// It is to be done.
    Started {
        /// As `[build 2/5] RUN make`.
        name: String,
        /// The steps that it builds on.
        inputs: Vec<StepId>,
    },
    /// Part of it takes long.
    Progress(Progress),
    /// A command printed this.
    Output {
        /// As complaint.
        stderr: bool,
        /// Any bytes.
        bytes: Vec<u8>,
    },
    /// It is over.
    Ended {
        /// An earlier build did it.
        cached: bool,
        /// Why it failed.
        error: Option<String>,
        /// Where it stands in the Dockerfile, counted from 1.
        lines: Option<RangeInclusive<usize>>,
    },
}

/// Something in a Dockerfile that is allowed and unwise.
///
/// Source: docs.docker.com/reference/build-checks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// Such as `StageNameCasing`.
    pub rule: String,
    /// What the rule says.
    pub description: String,
    /// Where more is said of it.
    pub url: String,
    /// What is wrong here.
    pub detail: String,
    /// Where it stands in the Dockerfile, counted from 1.
    pub lines: Option<RangeInclusive<usize>>,
}

/// Takes progress lines; called from several threads.
pub type OnProgress<'a> = &'a (dyn Fn(Progress) + Send + Sync);

/// Takes build events, in order.
pub type OnBuildEvent<'a> = &'a (dyn Fn(BuildEvent) + Send + Sync);

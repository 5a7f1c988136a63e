//! What long work reports while it runs, in the words of Docker's JSON lines.

use crate::digest::ImageId;

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

    pub(crate) fn counted(id: &str, status: &str, current: u64, total: u64) -> Self {
        Self { id: Some(id.to_owned()), status: status.to_owned(), current: Some(current), total: Some(total) }
    }
}

/// What a build reports while it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BuildEvent {
    /// Text for the user with its line end: `Step 1/3 : FROM alpine`, ` ---> 1234567890ab`, `Successfully built …`.
    Stream(String),
    /// Progress of pulling a base image.
    Progress(Progress),
    /// The image that was built; Docker's `aux` line.
    Built(ImageId),
}

/// Takes progress lines; called from several threads.
pub type OnProgress<'a> = &'a (dyn Fn(Progress) + Send + Sync);

/// Takes build events, in order.
pub type OnBuildEvent<'a> = &'a (dyn Fn(BuildEvent) + Send + Sync);

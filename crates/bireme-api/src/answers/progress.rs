//! The messages of requests that take long: pulls, pushes, loads, imports and builds, one JSON object after another.
//!
//! A failure after the head of the answer comes as a message too.

use super::answers;

answers! {
    /// One message.
    ///
    /// Source: Docker Engine API, `CreateImageInfo`, `PushImageInfo` and `BuildInfo`; moby's `jsonmessage.JSONMessage`.
    #[serde(rename_all = "camelCase")]
    pub struct Message {
        /// Output of a build or a load, newlines included.
        stream: Option<String>,
        /// What is being done.
        status: Option<String>,
        /// The layer or the tag that `status` is about.
        id: Option<String>,
        /// How far it is.
        progress_detail: ProgressDetail,
        /// The same in words, for whoever prints it as it is.
        progress: Option<String>,
        /// The failure in the words of older engines.
        error: Option<String>,
        /// The failure.
        error_detail: ErrorDetail,
        /// What a build made.
        aux: Aux,
    }

    /// How far a transfer is.
    #[serde(rename_all = "camelCase")]
    pub struct ProgressDetail {
        /// Bytes so far; `None` when the message is no progress.
        current: Option<u64>,
        /// Bytes in all; `None` when it is not known.
        total: Option<u64>,
        /// What is counted; `None` for bytes.
        units: Option<String>,
    }

    /// Why a request failed after the head of its answer.
    #[serde(rename_all = "camelCase")]
    pub struct ErrorDetail {
        /// Of a command in a build: its exit code.
        code: Option<u64>,
        /// A sentence; `None` when the message is no failure.
        message: Option<String>,
    }

    /// What stands beside the output of a build.
    pub struct Aux {
        /// The image that was built, `sha256:…`.
        #[serde(rename = "ID")]
        id: Option<String>,
    }
}

impl Message {
    /// The sentence about a failure, when the message tells one.
    pub fn failure(&self) -> Option<&str> {
        self.error_detail.message.as_deref().or(self.error.as_deref())
    }
}

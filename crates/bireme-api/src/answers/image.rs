//! Images: listed, inspected, removed, searched for.

use std::collections::BTreeMap;

use super::answers;
use crate::v1::Component;

answers! {
    /// One entry of the list of images.
    ///
    /// Source: Docker Engine API, `ImageList`.
    #[serde(rename_all = "PascalCase")]
    pub struct ImageSummary {
        /// `sha256:…`, the digest of its configuration or of its index.
        id: String,
        /// `NAME:TAG`; `<none>:<none>` from older engines when it has no name.
        repo_tags: Vec<String>,
        /// `NAME@sha256:…`.
        repo_digests: Vec<String>,
        /// Seconds since 1970; zero or less when it is not known.
        created: i64,
        /// Bytes, unpacked.
        size: i64,
        /// Bytes that other images have too; -1 when it was not looked for.
        shared_size: i64,
        /// Of its configuration.
        labels: BTreeMap<String, String>,
        /// How many containers are made from it; -1 when it was not looked for.
        containers: i64,
    }

    /// An image in full, as far as it is read.
    ///
    /// Source: Docker Engine API, `ImageInspect`.
    #[serde(rename_all = "PascalCase")]
    pub struct Image {
        /// As [`ImageSummary::id`].
        id: String,
        /// Of an image of a component, from Bireme's own engine.
        bireme: Option<Component>,
    }

    /// One step of an image's history.
    ///
    /// Source: Docker Engine API, `ImageHistory`.
    #[serde(rename_all = "PascalCase")]
    pub struct HistoryStep {
        /// `sha256:…` of the image that it ended with, or `<missing>`.
        id: String,
        /// Seconds since 1970; zero or less when it is not known.
        created: i64,
        /// The instruction or the command.
        created_by: String,
        /// Bytes that it added.
        size: i64,
        /// What its author said of it.
        comment: String,
    }

    /// What became of one name or one image at a removal.
    ///
    /// Source: Docker Engine API, `ImageDelete`.
    #[serde(rename_all = "PascalCase")]
    pub struct Removed {
        /// A name that was taken away.
        untagged: Option<String>,
        /// An image or a layer that went, `sha256:…`.
        deleted: Option<String>,
    }

    /// A repository that a registry has found.
    ///
    /// Source: Docker Engine API, `ImageSearch`.
    pub struct Found {
        /// Of the repository.
        name: String,
        /// In its owner's words; may have several lines.
        description: String,
        /// How many users marked it.
        star_count: i64,
        /// It is one of Docker's own.
        is_official: bool,
        /// It is built by the registry.
        is_automated: bool,
    }
}

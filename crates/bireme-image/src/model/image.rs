//! What is told of stored images.

use std::collections::BTreeMap;

use bireme_core::WorkloadKind;
use chrono::{DateTime, Utc};

use super::config::{History, ImageConfig};
use crate::digest::{Digest, ImageId};
use crate::platform::Platform;

/// A stored image of one platform.
#[derive(Clone, Debug)]
pub struct Image {
    /// By which workloads are bound to it, whatever becomes of its names.
    pub id: ImageId,
    /// Familiar names with tag, sorted: `alpine:3`.
    pub references: Vec<String>,
    /// Familiar names with the digest a registry knows them by: `alpine@sha256:…`.
    pub repo_digests: Vec<String>,
    /// As its maker says; `None` if it does not.
    pub created: Option<DateTime<Utc>>,
    /// Bytes of all layers, unpacked where they are unpacked.
    pub size: u64,
    /// What it runs on.
    pub platform: Platform,
    /// What a workload of it starts with.
    pub config: ImageConfig,
    /// As its maker says.
    pub author: Option<String>,
    /// As its maker says.
    pub comment: Option<String>,
    /// How it was made, first step first.
    pub history: Vec<History>,
    /// Bytes of each layer, lowest first, as `size`; `history` entries that made a layer correspond in order.
    pub layer_sizes: Vec<u64>,
    /// Digests of the unpacked layers, lowest first; of a Wasm artifact, of the component itself.
    pub diff_ids: Vec<Digest>,
    /// Set for Wasm artifacts: the type the manifest declares, else that of its configuration.
    pub artifact_type: Option<String>,
    /// When a name was last given to it.
    pub last_tagged: Option<DateTime<Utc>>,
}

impl Image {
    /// What kind of workload it makes, decided from platform or media type alone.
    pub fn kind(&self) -> WorkloadKind {
        if self.artifact_type.is_some() { WorkloadKind::Component } else { self.platform.kind() }
    }
}

/// One line of a list of images.
#[derive(Clone, Debug)]
pub struct ImageSummary {
    /// As in [`Image::id`].
    pub id: ImageId,
    /// Familiar names with tag; empty for a dangling image.
    pub references: Vec<String>,
    /// As in [`Image::repo_digests`].
    pub repo_digests: Vec<String>,
    /// As in [`Image::created`].
    pub created: Option<DateTime<Utc>>,
    /// Bytes, as in [`Image::size`].
    pub size: u64,
    /// What it runs on.
    pub platform: Platform,
    /// Of its configuration, by name.
    pub labels: BTreeMap<String, String>,
    /// As in [`Image::kind`].
    pub kind: WorkloadKind,
}

/// Something that the cache of builds holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheRecord {
    /// The digits of the layer's digest, unpacked; of a folder its name.
    pub id: String,
    /// What it is.
    pub kind: CacheKind,
    /// Bytes, unpacked.
    pub size: u64,
    /// An image has it too, so that clearing the cache frees nothing of it.
    pub shared: bool,
    /// A build has it in its hands now.
    pub in_use: bool,
    /// Milliseconds since the Unix epoch; 0 where that is not known.
    pub created: i64,
    /// Milliseconds since the Unix epoch.
    pub last_used: i64,
    /// How many builds used it, the one that made it among them.
    pub uses: u64,
    /// What made it, for people.
    pub description: String,
}

/// What the cache of builds holds things of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheKind {
    /// What a step made.
    Layer,
    /// A mount of type cache.
    Mount,
    /// A context as it was sent last.
    Context,
}

impl CacheKind {
    /// In BuildKit's words.
    ///
    /// Source: BuildKit, `client/diskusage.go`, `UsageRecordType`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Layer => "regular",
            Self::Mount => "exec.cachemount",
            Self::Context => "source.local",
        }
    }
}

//! What is known of steps that were carried out: here, and in the caches of builds elsewhere.

use std::sync::Arc;

use crate::content_store::ContentStore;
use crate::digest::Digest;
use crate::pull::Origin;
use crate::record::Layer;

/// A cache that steps are taken from: `--cache-from`.
#[derive(Clone)]
pub enum CacheImport {
    /// A cache, or an image with an inline cache, of that name: `type=registry`.
    Registry(String),
    /// A cache in a client's content store: `type=local`.
    Client {
        /// What it is called where something is said of it.
        name: String,
        /// Where it is.
        store: Arc<dyn ContentStore>,
        /// Of its manifest.
        digest: String,
    },
}

/// A step with what it made: nothing, or a layer.
pub(super) type Made = (Digest, Option<Layer>);

/// What a step made in a build elsewhere.
#[derive(Clone)]
pub(super) struct Imported {
    pub(super) layer: Option<Layer>,
    /// Where the layer is; `None` is here.
    pub(super) origin: Option<Arc<Origin>>,
}

//! Manifests and configurations as they stand in registries, and [`Image`] as the engine sees it.

mod config;
mod counts;
mod document;
mod first;
mod go_json;
mod image;
mod index;
mod media_type;
mod spin;

pub use config::{Healthcheck, History, ImageConfig};
pub use go_json::Empty;
pub use image::{CacheKind, CacheRecord, Image, ImageSummary};

pub(crate) use config::ConfigFile;
pub(crate) use counts::Counts;
pub(crate) use document::{DOCUMENT_LIMIT, Descriptor, Document, Manifest};
pub(crate) use first::First;
pub(crate) use go_json::null_default;
pub(crate) use index::{index_entry, index_of};
pub(crate) use media_type::{ACCEPT, DOCKER_LIST, LayerForm, OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_MANIFEST};
pub(crate) use spin::{SPIN_CONFIG, config as spin_config};

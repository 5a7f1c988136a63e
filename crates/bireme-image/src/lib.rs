//! The image library: references, registries, the content store, unpacking, and builds.
//!
//! [`ImageStore`] is the one door: it pulls, loads, builds, lists and removes images, hands out the unpacked layers of a
//! Linux image and the component of a Wasm one. What it keeps lies under one folder (see [`store`]); what it reads was
//! written by strangers and is checked before it is kept: digests, sizes, media types, paths, and how much it unpacks to.

#![warn(missing_docs)]

mod admit;
mod apart;
pub mod archive;
mod auth;
mod blob;
mod blocking;
mod boot;
pub mod build;
mod commit;
mod component;
pub mod content;
mod content_store;
pub mod database;
mod db;
pub mod digest;
pub mod distribution;
mod durable;
mod error;
pub mod events;
mod fetch;
mod folders;
#[doc(hidden)]
pub mod fuzz;
mod generation;
mod guard;
mod layers;
mod login;
mod made;
mod mend;
pub mod model;
mod open;
pub mod platform;
pub mod pull;
mod push;
mod record;
pub mod reference;
mod refetch;
mod registry;
mod settings;
pub mod store;
pub mod tar_bounds;
mod tar_records;
mod unpack;
mod verify;
mod view;
mod wanted;
pub mod world;

pub use apart::place_apart;
pub use archive::Loaded;
pub use build::run::{
    Access, Changes, Hidden, Keep, OnRunOutput, RunOutput, RunStep, RunSteps, StepMount, StepMountSource, StepNetwork,
    Stub,
};
pub use build::source::{
    AgentSocket, BuildSources, Definition, FileFilter, Files, MAIN_CONTEXT, OnArrival, SECRET_LIMIT,
};
pub use build::{
    Allowed, Annotations, ArchiveFor, BuildContext, BuildOutput, BuildRequest, BuildStyle, BuiltImage, CacheImport,
    CacheMode, CachePolicy, ExportedCache, KeepContainers, LocalSources, NamedContext, PackedOutput, TEXT_LIMIT, Tree,
    TreeEntry, read_definition, read_text,
};
pub use commit::Commit;
pub use component::is_wasm;
pub use content_store::{BlobReader, ContentStore};
pub use digest::{Digest, ImageId};
pub use distribution::Distribution;
pub use error::ImageError;
pub use events::{BuildEvent, OnBuildEvent, OnProgress, Progress, StepEvent, StepId, Warning};
pub use fetch::fetch;
pub use folders::{FillFolder, HeldFolder, Sharing};
pub use login::Found as FoundImage;
pub use model::{CacheKind, CacheRecord, Healthcheck, History, Image, ImageConfig, ImageSummary};
pub use platform::{Platform, PlatformError};
pub use pull::{Pulled, RegistryAuth};
pub use push::{Packing, PushRequest, Pushed};
pub use reference::{Reference, ReferenceError};
pub use settings::{Limits, RegistrySettings};
pub use store::{ImageStore, Removed};
pub use unpack::{blank, header_is_oldest, open_bounded};
pub use verify::{Damaged, Verified};
pub use wanted::{Waiting, Wanted};

//! BuildKit's protocol, as its clients speak it to Docker's engine, with a seam to whatever builds.
//!
//! Clients (buildx, Compose, buildctl) reach the engine in two ways, both HTTP/2 on a connection that was an HTTP/1.1 request:
//!
//! - `POST /grpc`: the client calls the engine. [`Server::serve`] answers `moby.buildkit.v1.Control` and
//!   `moby.buildkit.v1.frontend.LLBBridge`;
//! - `POST /session`: the engine calls the client, for files, secrets, keys. [`Sessions::attach`] takes it; bake carries such a
//!   session within `Control/Session` instead.
//!
//! What builds is a [`Builder`]. It is given a [`Build`], through which it reaches the client's [`Session`]s and tells its
//! [`Progress`], and answers with [`Output`]s that only it understands: no LLB is involved. Where a client hands the result of
//! one build to another, it carries a definition that is a handle of ours.
//!
//! Sources: BuildKit's `api/services/control`, `frontend/gateway/pb`, `session`, `solver/errdefs`; fsutil's `send.go`,
//! `receive.go`.

#![warn(missing_docs)]

mod bridge;
mod build;
mod builder;
mod builds;
mod control;
mod convert;
mod error;
pub mod files;
#[doc(hidden)]
pub mod fuzz;
mod outputs;
mod place;
mod progress;
mod server;
pub mod session;

pub use build::Build;
pub use builder::{
    Builder, CacheOption, Exporter, Exports, Frontend, GcPolicy, Output, Outputs, Platform, Prune, SNAPSHOTTER_LABEL,
    Solved, Usage, UsageQuery, Worker,
};
pub use builds::CANCEL_GRACE;
pub use error::BuildError;
pub use files::{
    Content, Entry, EntryKind, Failure, FewFiles, Folder, FolderSource, InMemory, Limits, Receive, Source,
};
pub use outputs::Results;
pub use place::{Lines, SourceFile};
pub use progress::{LogStream, Progress, Task, Vertex, Warning};
pub use server::{MAX_FILE, Server};
pub use session::{
    Credentials, FilesRequest, Session, SessionError, SessionHeaders, Sessions, SshStream, Token, TokenRequest,
};

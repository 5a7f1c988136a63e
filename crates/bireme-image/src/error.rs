//! What can go wrong with images, one variant per attempt that failed.

use std::io;
use std::path::{Path, PathBuf};

use bireme_core::ErrorKind;

use crate::digest::{Digest, DigestError};
use crate::platform::Platform;
use crate::reference::ReferenceError;

/// A failure of the image store. `Display` is a sentence for the client; causes are in `source()`.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The reference is malformed.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// A digest is malformed.
    #[error(transparent)]
    Digest(#[from] DigestError),
    /// Nothing of that name is stored.
    #[error("No such image: {name}")]
    NotFound {
        /// As it was asked for.
        name: String,
    },
    /// The name is stored or offered, but not for this platform.
    #[error("no matching manifest for {wanted} in the manifest list entries of {name}; it offers {offered}")]
    NoPlatform {
        /// As it was asked for.
        name: String,
        /// The platform asked for.
        wanted: Platform,
        /// What there is, comma-separated.
        offered: String,
    },
    /// A prefix of an ID fits several images.
    #[error("multiple IDs found with provided prefix: {prefix}; give more digits")]
    Ambiguous {
        /// As it was asked for.
        prefix: String,
    },
    /// The registry does not have that tag or digest.
    #[error("manifest for {reference} not found: manifest unknown: {message}")]
    ManifestUnknown {
        /// What was pulled.
        reference: String,
        /// The registry's words.
        message: String,
    },
    /// The registry does not show that repository to this user.
    #[error("pull access denied for {name}, repository does not exist or may require 'docker login': {message}")]
    PullDenied {
        /// The repository in familiar form.
        name: String,
        /// The registry's words.
        message: String,
    },
    /// The registry wants other credentials.
    #[error("registry {registry} refused access to {repository}: authentication required; log in to it and try again")]
    Unauthorized {
        /// Host and port.
        registry: String,
        /// The repository asked for.
        repository: String,
    },
    /// A push of what is not stored.
    #[error("{reason}")]
    NothingToPush {
        /// In Docker's words.
        reason: String,
    },
    /// A registry does not take somebody's credentials.
    #[error("Get \"{url}\": unauthorized: incorrect username or password")]
    Login {
        /// Where they were shown.
        url: String,
    },
    /// An index could not be searched.
    #[error("invalid registry endpoint \"{url}\": {reason}")]
    Index {
        /// Where it is.
        url: String,
        /// What happened, with the causes below it.
        reason: String,
    },
    /// The registry did not answer, or not sensibly, after all retries.
    #[error("cannot {attempt} from registry {registry}: {reason}")]
    Registry {
        /// Host and port.
        registry: String,
        /// What was tried.
        attempt: String,
        /// What happened, with the causes below it.
        reason: String,
    },
    /// The registry did not answer at all, or with nothing.
    #[error("cannot reach registry {registry} for {name}: {reason}")]
    Unreachable {
        /// Host and port.
        registry: String,
        /// What was asked for.
        name: String,
        /// What happened, with the causes below it.
        reason: String,
    },
    /// What the machine's owner wrote about a registry cannot be used.
    #[error("cannot use {}: {reason}; mend it or move it away", path.display())]
    RegistryConfig {
        /// A file of settings or certificates, or their folder.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// An artifact that is more, or less, than a component.
    #[error("cannot run {what} as a component: {reason}")]
    NotOneComponent {
        /// Which artifact.
        what: String,
        /// What it is, and what to do.
        reason: String,
    },
    /// What stands at an address could not be had.
    #[error("cannot fetch {url}: {reason}")]
    Fetch {
        /// As it was given.
        url: String,
        /// What happened, with the causes below it.
        reason: String,
    },
    /// Content is not what its digest says.
    #[error("{what} is not what its digest says: expected {expected}, got {actual}; nothing of it was kept")]
    DigestMismatch {
        /// Which content.
        what: String,
        /// As promised.
        expected: Digest,
        /// As found.
        actual: Digest,
    },
    /// Content is longer or shorter than its descriptor says.
    #[error("{what} is {actual} bytes long where its descriptor says {expected}; nothing of it was kept")]
    SizeMismatch {
        /// Which content.
        what: String,
        /// As promised.
        expected: u64,
        /// As found; for too long content, where reading stopped.
        actual: u64,
    },
    /// A manifest, index or configuration is too large.
    #[error("{what} is larger than {limit} bytes, the most this engine reads")]
    TooLarge {
        /// Which document.
        what: String,
        /// Bytes.
        limit: u64,
    },
    /// A manifest, index or configuration cannot be read.
    #[error("malformed {what}: {reason}")]
    Malformed {
        /// Which document.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A media type this engine has no use for.
    #[error("{what} has the media type \"{media_type}\", which this engine does not know")]
    MediaType {
        /// Which content.
        what: String,
        /// Its type.
        media_type: String,
    },
    /// A blob that a manifest names is not there.
    #[error("{what} {digest} is missing")]
    MissingBlob {
        /// Its role, such as `layer`.
        what: String,
        /// Its name.
        digest: String,
    },
    /// A layer unpacks to far more than it should.
    #[error("layer {layer} unpacks to more than {limit} bytes, refused as a decompression bomb")]
    Bomb {
        /// The layer.
        layer: String,
        /// Bytes.
        limit: u64,
    },
    /// A layer or context has too many files.
    #[error("layer {layer} has more than {limit} entries")]
    TooManyEntries {
        /// The layer.
        layer: String,
        /// The most allowed.
        limit: u64,
    },
    /// A path in a layer that would lead out of its folder, or that no file can have.
    #[error("refused the path \"{path}\" in layer {layer}: {reason}")]
    UnsafePath {
        /// The layer.
        layer: String,
        /// As it stands there.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A layer is not a tar archive, is cut off, or is compressed wrongly.
    #[error("layer {layer} cannot be read: {reason}")]
    BadLayer {
        /// The layer.
        layer: String,
        /// What is wrong with it.
        reason: String,
    },
    /// What was loaded is no image archive.
    #[error("the archive is no image that can be loaded: {reason}")]
    BadArchive {
        /// What is wrong with it.
        reason: String,
    },
    /// A Wasm artifact or image without a component in the usual place.
    #[error("image {image} has no component to run: {reason}")]
    NoComponent {
        /// Name or ID.
        image: String,
        /// What is missing.
        reason: String,
    },
    /// The context has no Dockerfile of that name.
    #[error("Cannot locate specified Dockerfile: {name}")]
    NoDockerfile {
        /// Its path in the context.
        name: String,
    },
    /// A Dockerfile or build request that is wrong.
    #[error(transparent)]
    Dockerfile(#[from] bireme_dockerfile::ParseError),
    /// An instruction or flag that this builder does not do.
    #[error("line {line}: {instruction} is not offered by this builder: {reason}")]
    Instruction {
        /// Counted from 1.
        line: usize,
        /// The instruction, in upper case, with the flag if it is one.
        instruction: String,
        /// Why, and what to do instead.
        reason: String,
    },
    /// A command of a build that ended badly.
    #[error("The command '{command}' returned a non-zero code: {code}")]
    Run {
        /// Program and arguments.
        command: String,
        /// Its exit code.
        code: i32,
    },
    /// A command of a build that could not be run.
    #[error("RUN cannot be carried out: {reason}")]
    RunRefused {
        /// What stood against it.
        reason: String,
    },
    /// What was to become a layer could not be read.
    #[error("the files for a new layer cannot be read")]
    Pack {
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A COPY or ADD that cannot be done.
    #[error("{instruction} failed on line {line}: {reason}")]
    Copy {
        /// `COPY` or `ADD`.
        instruction: String,
        /// Counted from 1.
        line: usize,
        /// What is wrong.
        reason: String,
    },
    /// A file tree that was sent and cannot be read.
    #[error("the archive cannot be read: {reason}")]
    Sent {
        /// What is wrong with it.
        reason: String,
    },
    /// There is nothing in the Dockerfile.
    #[error("the Dockerfile ({name}) cannot be empty")]
    EmptyDockerfile {
        /// Its path in the context.
        name: String,
    },
    /// Docker's words.
    #[error("No image was generated. Is your Dockerfile empty?")]
    NothingBuilt,
    /// A build request that contradicts itself.
    #[error("cannot build: {reason}")]
    BuildRequest {
        /// What is wrong.
        reason: String,
    },
    /// Something else that exists forbids it.
    #[error("conflict: {reason}")]
    Conflict {
        /// What stands against it.
        reason: String,
    },
    /// The disk is full.
    #[error("no space left on device while writing {}; free some space and try again", path.display())]
    NoSpace {
        /// Where.
        path: PathBuf,
    },
    /// The store's own files cannot be read or written.
    #[error("cannot {attempt} {}", path.display())]
    Store {
        /// What was tried.
        attempt: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The body being loaded or built from broke off.
    #[error("the data sent by the client broke off")]
    Input {
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A client's content store does not answer as it should.
    #[error("{reason}")]
    Content {
        /// What was wanted of it, and what it said.
        reason: String,
    },
    /// The data could not be handed to the client.
    #[error("the data could not be sent to the client")]
    Output {
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The database of the store failed.
    #[error("cannot {attempt} in the image database")]
    Database {
        /// What was tried.
        attempt: &'static str,
        /// Why not.
        #[source]
        source: rusqlite::Error,
    },
    /// The database of the store cannot be opened, nor a copy of it.
    #[error(transparent)]
    Open(#[from] crate::database::DatabaseError),
    /// The database was written by a newer engine.
    #[error("the image database has schema version {found}, this engine knows up to {known}; use the newer engine")]
    Schema {
        /// As found.
        found: i64,
        /// The newest known.
        known: i64,
    },
    /// A defect of ours: a task ended without an answer.
    #[error("internal error while trying to {attempt}")]
    Task {
        /// What it was doing.
        attempt: &'static str,
        /// How it ended.
        #[source]
        source: tokio::task::JoinError,
    },
}

impl ImageError {
    /// The failure with its causes, that of a command in BuildKit's words, which people and programs look for.
    pub fn of_step(&self) -> String {
        match self {
            Self::Run { command, code } => {
                format!("process {} did not complete successfully: exit code: {code}", bireme_core::go::quote(command))
            }
            other => bireme_core::error::chain(other),
        }
    }

    /// What the failure means to whoever asked.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound { .. }
            | Self::NothingToPush { .. }
            | Self::NoPlatform { .. }
            | Self::ManifestUnknown { .. }
            | Self::PullDenied { .. } => ErrorKind::NotFound,
            Self::Unauthorized { .. } | Self::Login { .. } => ErrorKind::Denied,
            Self::Conflict { .. } => ErrorKind::Conflict,
            Self::Registry { .. } | Self::Unreachable { .. } | Self::Fetch { .. } | Self::NoSpace { .. } | Self::Content { .. } => {
                ErrorKind::Unavailable
            }
            Self::MediaType { .. } | Self::NotOneComponent { .. } | Self::Instruction { .. } => ErrorKind::Unsupported,
            Self::Store { .. }
            | Self::Pack { .. }
            | Self::RegistryConfig { .. }
            // Docker's status for it.
            | Self::NoDockerfile { .. }
            | Self::Output { .. }
            | Self::Database { .. }
            | Self::Open(_)
            | Self::Schema { .. }
            | Self::Task { .. } => ErrorKind::Internal,
            Self::Reference(_)
            | Self::Digest(_)
            | Self::Ambiguous { .. }
            | Self::DigestMismatch { .. }
            | Self::SizeMismatch { .. }
            | Self::TooLarge { .. }
            | Self::Malformed { .. }
            | Self::MissingBlob { .. }
            | Self::Bomb { .. }
            | Self::TooManyEntries { .. }
            | Self::UnsafePath { .. }
            | Self::BadLayer { .. }
            | Self::BadArchive { .. }
            | Self::NoComponent { .. }
            | Self::Dockerfile(_)
            | Self::Run { .. }
            | Self::RunRefused { .. }
            | Self::Copy { .. }
            | Self::BuildRequest { .. }
            | Self::NothingBuilt
            | Self::Sent { .. }
            | Self::EmptyDockerfile { .. }
            | Self::Index { .. }
            | Self::Input { .. } => ErrorKind::Invalid,
        }
    }

    /// A failure of the store's own files; a full disk has its own variant.
    pub(crate) fn store(attempt: &'static str, path: &Path, source: io::Error) -> Self {
        if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
            return Self::NoSpace { path: path.to_owned() };
        }
        Self::Store { attempt, path: path.to_owned(), source }
    }

    pub(crate) fn malformed(what: impl Into<String>, reason: impl ToString) -> Self {
        Self::Malformed { what: what.into(), reason: reason.to_string() }
    }
}

/// Shortens `map_err` for the store's own files.
pub(crate) trait StoreContext<T> {
    fn during(self, attempt: &'static str, path: &Path) -> Result<T, ImageError>;
}

impl<T, E: Into<io::Error>> StoreContext<T> for Result<T, E> {
    fn during(self, attempt: &'static str, path: &Path) -> Result<T, ImageError> {
        self.map_err(|error| ImageError::store(attempt, path, error.into()))
    }
}

//! What exporters of images and of caches have in common.

use std::collections::BTreeMap;

use bireme_buildkit::{BuildError, Vertex};
use bireme_core::ErrorKind;
use bireme_image::{ImageError, Packing, Reference};

use super::failed;

/// Ends a step by how its work ended.
pub(super) fn ended<T>(vertex: &Vertex, outcome: Result<T, BuildError>) -> Result<T, BuildError> {
    match &outcome {
        Ok(_) => vertex.complete(),
        Err(error) if error.is_cancelled() => vertex.cancel(),
        Err(error) => vertex.fail(error.message()),
    }
    outcome
}

/// A name that something is given.
pub(super) fn reference(name: &str) -> Result<Reference, BuildError> {
    let reference = Reference::parse(name)
        .map_err(|error| BuildError::new(ErrorKind::Invalid, format!("invalid reference format: {name}: {error}")))?;
    reference.check_tag().map_err(|error| BuildError::new(ErrorKind::Invalid, error.to_string()))?;
    Ok(reference)
}

/// How layers are packed that go elsewhere.
pub(super) fn packing(options: &BTreeMap<String, String>) -> Result<Packing, BuildError> {
    let Some(word) = options.get("compression") else { return Ok(Packing::default()) };
    let level = options.get("compression-level").and_then(|level| level.parse().ok());
    // The one level that gzip has is what clients ask for by default.
    let level = level.filter(|_| word != "gzip");
    Packing::of(word, level)
        .map_err(|reason| BuildError::new(ErrorKind::Invalid, format!("invalid compression: {reason}")))
}

/// Pushes on a thread of its own: the futures of that borrow in ways that keep them from moving between threads.
pub(super) async fn on_a_thread<T: Send + 'static>(
    push: impl AsyncFnOnce() -> Result<T, ImageError> + Send + 'static,
) -> Result<T, BuildError> {
    let runtime = tokio::runtime::Handle::current();
    tokio::task::spawn_blocking(move || runtime.block_on(push()))
        .await
        .map_err(|_| BuildError::new(ErrorKind::Internal, "the push ended without an answer"))?
        .map_err(|error| failed(&error))
}

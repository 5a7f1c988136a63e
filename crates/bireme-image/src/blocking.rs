//! Blocking work, off the threads of the runtime.

use crate::error::ImageError;

/// Runs blocking work off the runtime's own threads. A panic in it goes on in the caller.
///
/// # Errors
/// Those of `act`; `Task`, with `attempt`, when the runtime ended it.
/// # Cancel safety
/// Dropping the future does not end the work: see [`crate::wanted`] for work that takes long.
pub(crate) async fn blocking<T: Send + 'static>(
    attempt: &'static str,
    act: impl FnOnce() -> Result<T, ImageError> + Send + 'static,
) -> Result<T, ImageError> {
    match tokio::task::spawn_blocking(act).await {
        Ok(answer) => answer,
        Err(source) => match source.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(source) => Err(ImageError::Task { attempt, source }),
        },
    }
}

//! Work on files of the host that may never come back: a bind mount's source may lie on a server that is silent.
//!
//! The kernel lets nobody give up such a call. So each has a thread of its own, of which there are few, and whoever asked
//! is told after a while.

use std::time::Duration;

use tokio::sync::{Semaphore, oneshot};

use crate::EngineError;
use crate::refusal::FilesRefusal;

/// Such threads at once, those that hang among them.
const MOST: usize = 32;
/// How long is waited for one of them, and for an answer.
const LIMIT: Duration = Duration::from_secs(20);

static PLACES: Semaphore = Semaphore::const_new(MOST);

/// Does `work`, which looks at `what` and may hang.
///
/// # Errors
/// Those of `work`; `Unavailable` when it does not come to an end, or when too many of its kind hang.
/// # Cancel safety
/// Once begun, the work goes on when nobody waits any more.
pub(crate) async fn ask<T: Send + 'static>(
    what: &str,
    work: impl FnOnce() -> Result<T, EngineError> + Send + 'static,
) -> Result<T, EngineError> {
    within(&PLACES, LIMIT, what, work).await
}

async fn within<T: Send + 'static>(
    places: &'static Semaphore,
    limit: Duration,
    what: &str,
    work: impl FnOnce() -> Result<T, EngineError> + Send + 'static,
) -> Result<T, EngineError> {
    let silent =
        |asked| EngineError::from(FilesRefusal::Silent { what: what.to_owned(), asked, seconds: limit.as_secs() });
    let Ok(place) = tokio::time::timeout(limit, places.acquire()).await else {
        return Err(silent(false));
    };
    let place = place.map_err(|_| EngineError::Stopping)?;
    let (done, answer) = oneshot::channel();
    // Not of the runtime, which waits for its own at its end.
    let thread = std::thread::Builder::new().name("patience".to_owned()).spawn(move || {
        let _place = place;
        let _ = done.send(work());
    });
    thread.map_err(|source| EngineError::File { path: what.into(), source })?;
    match tokio::time::timeout(limit, answer).await {
        Ok(answer) => answer.map_err(|_| EngineError::Stopping)?,
        Err(_) => Err(silent(true)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_hangs_holds_a_place_and_nobody() {
        static PLACES: Semaphore = Semaphore::const_new(2);
        let ask = |work: Box<dyn FnOnce() -> Result<u8, EngineError> + Send>| {
            within(&PLACES, Duration::from_millis(200), "the source /x of a mount", work)
        };
        assert_eq!(ask(Box::new(|| Ok(1))).await.unwrap(), 1);
        let (go_on, hung) = std::sync::mpsc::channel::<()>();
        let hung = std::sync::Arc::new(std::sync::Mutex::new(hung));
        for said in ["/x of a mount does not answer within", "/x of a mount does not answer within", "too much else"] {
            let hung = hung.clone();
            let refused = ask(Box::new(move || {
                let _ = hung.lock().unwrap().recv();
                Ok(2)
            }));
            let refused = refused.await.unwrap_err();
            assert_eq!(refused.kind(), bireme_core::ErrorKind::Unavailable);
            assert!(refused.to_string().contains(said), "{refused}");
        }
        drop(go_on);
        while PLACES.available_permits() < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(ask(Box::new(|| Ok(3))).await.unwrap(), 3);
    }
}

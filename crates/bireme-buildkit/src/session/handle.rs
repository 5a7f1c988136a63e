//! One session, and how a call over it is made.

use std::collections::HashSet;
use std::future::Future;

use bireme_core::ErrorKind;
use bireme_core::go::query_escape;
use futures::stream::{self, BoxStream};
use futures::{StreamExt as _, TryStreamExt as _};
use http::Uri;
use tokio_util::sync::CancellationToken;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Status};

use super::transport::Transport;
use super::{SessionError, SessionHeaders};
use crate::error::BuildError;

/// A client's session, over which it is asked for what a build needs.
///
/// Every call ends when the session closes, with [`SessionError::Closed`]. Dropping a call's future cancels the call.
#[derive(Debug)]
pub struct Session {
    headers: SessionHeaders,
    /// Lower case, as BuildKit compares them.
    methods: HashSet<String>,
    transport: Transport,
    closed: CancellationToken,
}

impl Session {
    pub(super) fn new(headers: SessionHeaders, transport: Transport) -> Self {
        let methods = headers.methods.iter().map(|method| method.to_ascii_lowercase()).collect();
        Self { headers, methods, transport, closed: CancellationToken::new() }
    }

    /// Its ID.
    pub fn id(&self) -> &str {
        &self.headers.uuid
    }

    /// What the client called it, or empty.
    pub fn name(&self) -> &str {
        &self.headers.name
    }

    /// The client's hint by which contexts of successive builds are known to be the same, or empty.
    pub fn shared_key(&self) -> &str {
        &self.headers.shared_key
    }

    /// Whether the client offers a method (`/moby.filesync.v1.FileSync/DiffCopy`).
    pub fn offers(&self, method: &str) -> bool {
        self.methods.contains(&method.to_ascii_lowercase())
    }

    /// Fires when the session has closed.
    pub fn closed(&self) -> &CancellationToken {
        &self.closed
    }

    /// What calls go through, if the client offers `method`.
    pub(super) fn offered(&self, method: &'static str, what: &'static str) -> Result<(Transport, Uri), SessionError> {
        if !self.offers(method) {
            return Err(SessionError::NotOffered { what, method });
        }
        Ok((self.transport.clone(), Uri::from_static("http://localhost")))
    }

    /// Waits for a call, but not beyond the session.
    pub(super) async fn until_closed<T>(&self, call: impl Future<Output = T>) -> Result<T, SessionError> {
        tokio::select! {
            biased;
            result = call => Ok(result),
            () = self.closed.cancelled() => Err(SessionError::Closed),
        }
    }

    /// Makes one call with one answer.
    pub(super) async fn call<T>(
        &self,
        doing: &str,
        call: impl Future<Output = Result<tonic::Response<T>, Status>>,
    ) -> Result<T, SessionError> {
        let answer = self.until_closed(call).await?;
        answer.map(tonic::Response::into_inner).map_err(|status| self.failed(doing, &status))
    }

    /// What a failed call says.
    pub(super) fn failed(&self, doing: &str, status: &Status) -> SessionError {
        if self.closed.is_cancelled() || is_transport(status) {
            return SessionError::Closed;
        }
        let said: String = status.message().chars().take(1000).collect();
        let kind = match status.code() {
            Code::Unknown | Code::Internal => ErrorKind::Unavailable,
            code => BuildError::from_wire(bollard_buildkit_proto::google::rpc::Status {
                code: code as i32,
                ..Default::default()
            })
            .kind(),
        };
        SessionError::Failed { kind, message: format!("cannot {doing}: {said}") }
    }
}

/// What comes in over a call, which may be answered only after we have sent something: Go's servers send their headers with
/// the first message.
pub(super) fn incoming<T: Send + 'static>(
    call: impl Future<Output = Result<tonic::Response<tonic::Streaming<T>>, Status>> + Send + 'static,
) -> BoxStream<'static, Result<T, Status>> {
    stream::once(async move { call.await.map(tonic::Response::into_inner) }).try_flatten().boxed()
}

/// Whether a call failed by its connection's end and not by an answer.
pub(super) fn is_transport(status: &Status) -> bool {
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        if let Some(error) = error.downcast_ref::<hyper::Error>() {
            return error.is_canceled() || error.is_closed() || error.is_incomplete_message() || is_io(error);
        }
        source = error.source();
    }
    false
}

fn is_io(error: &hyper::Error) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        if error.is::<std::io::Error>() {
            return true;
        }
        source = error.source();
    }
    false
}

/// Adds words to a call's metadata in the form in which BuildKit reads them (`session/filesync/filesync.go`, `encodeOpts`):
/// as they are, or percent-encoded where a header cannot carry them, which `KEY-encoded: 1` says.
pub(super) fn add_words(metadata: &mut MetadataMap, key: &'static str, words: &[String]) {
    let plain = |word: &String| {
        word.bytes().all(|byte| matches!(byte, 0x20..=0x7e)) && !word.starts_with(' ') && !word.ends_with(' ')
    };
    let encode = !words.iter().all(plain);
    for word in words {
        let word = if encode { query_escape(word) } else { word.clone() };
        if let Ok(value) = MetadataValue::try_from(word) {
            metadata.append(key, value);
        }
    }
    if encode && let Ok(key) = format!("{key}-encoded").parse::<tonic::metadata::AsciiMetadataKey>() {
        metadata.insert(key, MetadataValue::from_static("1"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_no_header_carries_are_escaped() {
        let mut metadata = MetadataMap::new();
        add_words(&mut metadata, "followpaths", &["a b%".to_owned(), "x".to_owned()]);
        let words: Vec<_> =
            metadata.get_all("followpaths").iter().map(|word| word.to_str().unwrap().to_owned()).collect();
        assert_eq!(words, ["a b%", "x"]);
        assert!(metadata.get("followpaths-encoded").is_none());

        add_words(&mut metadata, "include-patterns", &["ü /*".to_owned(), "x\n".to_owned()]);
        let words: Vec<_> =
            metadata.get_all("include-patterns").iter().map(|word| word.to_str().unwrap().to_owned()).collect();
        assert_eq!(words, ["%C3%BC+%2F%2A", "x%0A"]);
        assert_eq!(metadata.get("include-patterns-encoded").unwrap(), "1");
    }
}

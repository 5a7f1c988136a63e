//! A small client of the Engine API: one connection per call, so that streams and hijacked calls are ordinary.
//!
//! Answers are read as raw bytes first. `inspect` must print what the engine sent, fields that we do not know
//! included, and `/bireme/v1` is served beside Docker's paths; both are why this is not a generated client.

mod call;
mod error;
mod hijack;
mod host;

use futures::stream::BoxStream;
use http::Method;

pub use call::{ByteStream, Call};
pub use error::ClientError;
pub use hijack::Hijacked;
pub use host::{Host, HostError};

/// Speaks to one engine. Cheap to clone; holds no connection.
#[derive(Clone, Debug)]
pub struct Client {
    host: Host,
}

impl Client {
    /// A client of the engine at `host`. Nothing is sent yet.
    pub fn new(host: Host) -> Self {
        Self { host }
    }

    /// Where this client connects to.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Begins a call. `path` is encoded here: pass names as they are.
    pub fn call(&self, method: Method, path: impl AsRef<str>) -> Call {
        Call::new(self.host.clone(), method, path.as_ref())
    }

    /// `GET path`.
    pub fn get(&self, path: impl AsRef<str>) -> Call {
        self.call(Method::GET, path)
    }

    /// `POST path`.
    pub fn post(&self, path: impl AsRef<str>) -> Call {
        self.call(Method::POST, path)
    }

    /// `PUT path`.
    pub fn put(&self, path: impl AsRef<str>) -> Call {
        self.call(Method::PUT, path)
    }

    /// `DELETE path`.
    pub fn delete(&self, path: impl AsRef<str>) -> Call {
        self.call(Method::DELETE, path)
    }

    /// Whether something that speaks HTTP answers `/_ping`.
    ///
    /// # Errors
    /// Whatever keeps it from answering well; see [`Call`].
    pub async fn ping(&self) -> Result<(), ClientError> {
        self.get("/_ping").done().await
    }

    /// What the engine can run.
    ///
    /// # Errors
    /// `NotFound` when the engine is not Bireme.
    pub async fn capabilities(&self) -> Result<crate::v1::Capabilities, ClientError> {
        self.get("/bireme/v1/capabilities").read().await
    }

    /// Every workload with its counters. `filters` as in `GET /containers/json`.
    ///
    /// # Errors
    /// `NotFound` when the engine is not Bireme; see [`Call`].
    pub async fn workloads(
        &self,
        filters: Option<&serde_json::Value>,
    ) -> Result<Vec<crate::v1::Workload>, ClientError> {
        let mut call = self.get("/bireme/v1/workloads");
        if let Some(filters) = filters {
            call = call.query("filters", filters);
        }
        call.read().await
    }

    /// The same list again every `interval`, which is 100 milliseconds at least, until the stream is dropped.
    ///
    /// # Errors
    /// As [`Client::workloads`]; in the stream, that the engine went away.
    pub async fn watch_workloads(
        &self,
        filters: Option<&serde_json::Value>,
        interval: std::time::Duration,
    ) -> Result<BoxStream<'static, Result<Vec<crate::v1::Workload>, ClientError>>, ClientError> {
        let mut call =
            self.get("/bireme/v1/workloads").query("stream", 1).query("interval", interval.as_millis().max(100));
        if let Some(filters) = filters {
            call = call.query("filters", filters);
        }
        call.objects().await
    }
}

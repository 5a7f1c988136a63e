//! Requests from one component of this process to another, which need no socket.
//!
//! Components ask through these traits; the HTTP trigger, which stands above them, answers.

use std::net::SocketAddr;
use std::sync::Arc;

use bireme_core::WorkloadId;
use futures::future::BoxFuture;
use http::{Request, Response};
use wasmtime_wasi_http::WasiBody;

/// Where components of this process answer HTTP.
pub(crate) trait Neighbours: Send + Sync {
    /// Whoever answers at `address` of the sandbox's network.
    fn inside(&self, address: SocketAddr) -> Option<Arc<dyn Neighbour>>;
    /// The component called `name` in its app, whatever its routes are.
    fn named(&self, name: &str) -> Option<Arc<dyn Neighbour>>;
    /// Where the component `id` answers, and others of its app by their routes.
    fn beside(&self, id: &WorkloadId) -> Option<Arc<dyn Neighbour>>;
}

/// A listening address of this process.
pub(crate) trait Neighbour: Send + Sync {
    /// Answers `request`, which has been through `depth` components of this process.
    ///
    /// # Cancel safety
    /// Dropping the future is what a client does that goes away.
    fn answer(self: Arc<Self>, request: Request<WasiBody>, depth: u32) -> BoxFuture<'static, Response<WasiBody>>;
}

//! Outgoing HTTP: only to where `bireme.allow` permits.

use std::sync::Arc;

use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpHooks};

use crate::component::Component;

/// What one instance may send out.
pub(crate) struct Outgoing {
    component: Arc<Component>,
    depth: u32,
}

impl Outgoing {
    pub(crate) fn new(component: &Arc<Component>, depth: u32) -> Self {
        Self { component: Arc::clone(component), depth }
    }
}

type Sent = Result<(http::Response<WasiBody>, Box<dyn Future<Output = Result<(), Error>> + Send>), Error>;

impl WasiHttpHooks for Outgoing {
    fn send_request(
        &mut self,
        request: http::Request<WasiBody>,
        _options: Option<RequestOptions>,
        _fut: Box<dyn Future<Output = Result<(), Error>> + Send>,
    ) -> Box<dyn Future<Output = Sent> + Send> {
        let _ = (&self.component, self.depth, request);
        Box::new(async move { Err(Error::HttpRequestDenied) })
    }
}

//! From a request to the component that answers it.

use std::net::SocketAddr;
use std::sync::Arc;

use bireme_core::RouteTable;
use futures::future::BoxFuture;
use http::header::{HOST, HeaderValue};
use http::{Request, Response, StatusCode};
use wasmtime_wasi_http::WasiBody;

use super::answer::answer;
use super::invoke::serve;
use super::site::{ServedRoute, Site, SiteAddress, Sites};
use super::spin_headers::{path_headers, set_path_headers};
use crate::clients;
use crate::neighbours::{Neighbour, Neighbours};
use crate::workload::{Invocation, Refused, Workload};

/// Whom a request came from.
pub(super) struct Client {
    /// `None` for a component of this very process.
    pub address: Option<HeaderValue>,
}

impl Neighbours for Sites {
    fn inside(&self, address: SocketAddr) -> Option<Arc<dyn Neighbour>> {
        let site = self.0.read().get(&SiteAddress::Inside(address)).cloned()?;
        Some(site)
    }
}

impl Neighbour for Site {
    fn answer(self: Arc<Self>, request: Request<WasiBody>, depth: u32) -> BoxFuture<'static, Response<WasiBody>> {
        Box::pin(async move {
            let (_, table) = self.table();
            route(&table, &Client { address: None }, request, depth).await
        })
    }
}

/// Has the component answer whose route the request matches. `depth` counts the components it has been through before.
pub(super) async fn route(
    table: &RouteTable<ServedRoute>,
    client: &Client,
    mut request: Request<WasiBody>,
    depth: u32,
) -> Response<WasiBody> {
    let host = request.uri().authority().map(http::uri::Authority::as_str);
    let host = host.or_else(|| request.headers().get(HOST).and_then(|host| host.to_str().ok())).unwrap_or_default();
    let Some((_, served, captures)) = table.find(host, request.uri().path()) else {
        let text = if table.is_empty() {
            return answer(StatusCode::SERVICE_UNAVAILABLE, "no component answers here at the moment".to_owned());
        } else {
            format!("no component serves {}", request.uri().path())
        };
        return answer(StatusCode::NOT_FOUND, text);
    };
    let named = !host.is_empty() || request.uri().authority().is_some();
    if !named && request.headers().contains_key(HOST) {
        return answer(StatusCode::BAD_REQUEST, "the Host header is not text".to_owned());
    }
    // Before anything of it is copied: requests that wait hold no more than came.
    let what = called(request.method(), request.uri().path());
    let invocation = match admit(&served.workload, &what).await {
        Ok(invocation) => invocation,
        Err(refusal) => return *refusal,
    };
    let headers =
        path_headers(served, client.address.as_ref(), if named { host } else { "localhost" }, request.uri(), &captures);
    if !named {
        let _ = request.headers_mut().try_insert(HOST, HeaderValue::from_static("localhost"));
    }
    set_path_headers(request.headers_mut(), headers);
    serve(invocation, what, request, depth).await
}

/// Waits for a place for one more instance of `workload`; otherwise what is to be answered.
async fn admit(workload: &Arc<Workload>, what: &Arc<str>) -> Result<Invocation, Box<Response<WasiBody>>> {
    let component = &workload.component;
    let refusal = match workload.admit(Arc::clone(what)).await {
        Ok(mut invocation) => {
            invocation.served = clients::served();
            return Ok(invocation);
        }
        Err(Refused::Busy) => {
            component.note_busy(what);
            let name = component.name();
            format!("{name} has no free instance: raise bireme.instances or try again later")
        }
        Err(Refused::Stopping) => format!("{} is being stopped", component.name()),
    };
    Err(Box::new(answer(StatusCode::SERVICE_UNAVAILABLE, refusal)))
}

/// A request as lists and logs name it: a path may have 64 KiB, and there may be thousands of requests.
fn called(method: &http::Method, path: &str) -> Arc<str> {
    const LONGEST: usize = 256;
    match path.char_indices().nth(LONGEST) {
        None => format!("{method} {path}").into(),
        Some((end, _)) => format!("{method} {}…", &path[..end]).into(),
    }
}

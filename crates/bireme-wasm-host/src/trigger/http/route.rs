//! From a request to the component that answers it.

use std::net::SocketAddr;
use std::sync::Arc;

use bireme_core::route::Captures;
use bireme_core::{Route, RouteTable, WorkloadId};
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
        let site = self.all.read().get(&SiteAddress::Inside(address)).cloned()?;
        Some(site)
    }

    fn named(&self, name: &str) -> Option<Arc<dyn Neighbour>> {
        Some(Arc::new(Direct(self.find_named(name)?)))
    }

    fn beside(&self, id: &WorkloadId) -> Option<Arc<dyn Neighbour>> {
        let site = self.find_beside(id)?;
        Some(site)
    }
}

/// One component, asked by its name: no route is in between.
struct Direct(Arc<Workload>);

impl Neighbour for Direct {
    fn answer(self: Arc<Self>, request: Request<WasiBody>, depth: u32) -> BoxFuture<'static, Response<WasiBody>> {
        Box::pin(async move {
            let served = ServedRoute::new(&self.0, &Route::everything());
            let asked = Asked::of(&request);
            let captures = Captures { parameters: Vec::new(), trailing: Some(asked.uri.path()) };
            ask(&served, &captures, &asked, &Client { address: None }, request, depth).await
        })
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
    request: Request<WasiBody>,
    depth: u32,
) -> Response<WasiBody> {
    let asked = Asked::of(&request);
    let Some((_, served, captures)) = table.find(asked.host(), asked.uri.path()) else {
        let text = if table.is_empty() {
            return answer(StatusCode::SERVICE_UNAVAILABLE, "no component answers here at the moment".to_owned());
        } else {
            format!("no component serves {}", request.uri().path())
        };
        return answer(StatusCode::NOT_FOUND, text);
    };
    ask(served, &captures, &asked, client, request, depth).await
}

/// What a request asks for, and whom, beside the request itself: its own bytes, shared.
struct Asked {
    uri: http::Uri,
    header: Option<HeaderValue>,
}

impl Asked {
    fn of(request: &Request<WasiBody>) -> Self {
        Self { uri: request.uri().clone(), header: request.headers().get(HOST).cloned() }
    }

    /// As the first line or the header has it; empty where neither does.
    fn host(&self) -> &str {
        let host = self.uri.authority().map(http::uri::Authority::as_str);
        host.or_else(|| self.header.as_ref().and_then(|host| host.to_str().ok())).unwrap_or_default()
    }
}

/// Has the component of a route answer.
async fn ask(
    served: &ServedRoute,
    captures: &Captures<'_, '_>,
    asked: &Asked,
    client: &Client,
    mut request: Request<WasiBody>,
    depth: u32,
) -> Response<WasiBody> {
    let host = asked.host();
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
        path_headers(served, client.address.as_ref(), if named { host } else { "localhost" }, &asked.uri, captures);
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

//! The HTTP trigger: one fresh instance per request, straight on the accepted sockets.

use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bireme_core::route::Captures;
use bireme_core::{Route, RouteTable, WorkloadId};
use bytes::{Bytes, BytesMut};
use futures::channel::oneshot;
use futures::future::{Either, select};
use http::header::{CONNECTION, CONTENT_LENGTH, HOST, HeaderName, HeaderValue, RETRY_AFTER};
use http::{HeaderMap, Method, Request, Response, StatusCode, Version};
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::body::{Body as _, Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::{Mutex, RwLock};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use wasmtime::{AsContextMut as _, Store};
use wasmtime_wasi_http::handler::{Prepared, Proxy};
use wasmtime_wasi_http::{WasiBody, WasiHttpView as _};

use super::Program;
use super::clients;
use super::socket::ClientSocket;
use crate::account::Account;
use crate::component::{Component, Cut, Guarded, Invocation, Outcome, Refused};
use crate::guest::Guest;

/// Longest time a client may take to send the head of a request.
const HEAD_TIME: Duration = Duration::from_secs(30);
/// Most bytes of the head of a request. The connection's buffer may come to be larger, so that what is in it is counted too.
const HEAD_SIZE: usize = 64 << 10;
/// Most fields of a request.
const MAX_HEADERS: usize = 128;

type Answer = oneshot::Sender<Result<Response<WasiBody>, wasmtime::Error>>;

/// One route of one component, with the headers that are the same for each of its requests.
pub(crate) struct Served {
    pub component: Arc<Component>,
    matched: HeaderValue,
    plain: HeaderValue,
}

impl Served {
    fn new(component: &Arc<Component>, route: &Route) -> Self {
        let text = route.to_string();
        let plain = text.strip_suffix("/...").unwrap_or(&text);
        let value = |text: &str| HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static(""));
        Self { component: Arc::clone(component), plain: value(plain), matched: value(&text) }
    }
}

/// A listening address and the components that answer on it.
pub(crate) struct Site {
    /// Grows with each change of the table, so that connections look at the lock only then.
    generation: AtomicU64,
    table: RwLock<Arc<RouteTable<Served>>>,
    /// The table is made anew by the first request after a change: a thousand components that start one after the other
    /// would otherwise each make it for all.
    stale: AtomicBool,
    members: RwLock<Vec<Member>>,
    closed: CancellationToken,
}

struct Member {
    component: Arc<Component>,
    active: bool,
}

impl Site {
    pub(crate) fn new() -> Self {
        Self {
            generation: AtomicU64::new(1),
            table: RwLock::default(),
            stale: AtomicBool::new(false),
            members: RwLock::default(),
            closed: CancellationToken::new(),
        }
    }

    /// Adds a component that answers nothing yet.
    ///
    /// # Errors
    /// The two routes that clash, with the name of the workload that has the first.
    pub(crate) fn join(&self, component: &Arc<Component>) -> Result<(), (String, Route)> {
        let mut members = self.members.write();
        for member in members.iter() {
            for route in &component.spec.bireme.routes {
                if member.component.spec.bireme.routes.iter().any(|other| other.clashes_with(route)) {
                    return Err((member.component.name().to_string(), route.clone()));
                }
            }
        }
        members.push(Member { component: Arc::clone(component), active: false });
        Ok(())
    }

    /// Whether the requests that match `id`'s routes reach it from now on.
    pub(crate) fn set_active(&self, id: &WorkloadId, active: bool) {
        let mut members = self.members.write();
        for member in members.iter_mut().filter(|member| member.component.spec.id == *id) {
            member.active = active;
        }
        self.changed();
    }

    /// Removes a component; true when it was the last.
    pub(crate) fn leave(&self, id: &WorkloadId) -> bool {
        let mut members = self.members.write();
        members.retain(|member| member.component.spec.id != *id);
        self.changed();
        members.is_empty()
    }

    /// Stops listening; connections end after the request they are at.
    pub(crate) fn close(&self) {
        self.closed.cancel();
    }

    /// Called with the members locked: whoever sees the new generation sees the new members.
    fn changed(&self) {
        self.stale.store(true, Ordering::Release);
        self.generation.fetch_add(1, Ordering::Release);
    }

    fn rebuild(&self) {
        let members = self.members.read();
        let mut table = self.table.write();
        if !self.stale.load(Ordering::Acquire) {
            // Another request did so while this one waited.
            return;
        }
        let routes = members.iter().filter(|member| member.active).flat_map(|member| {
            let component = &member.component;
            component.spec.bireme.routes.iter().map(|route| (route.clone(), Served::new(component, route)))
        });
        // Clashes were refused by `join`.
        if let Ok(new) = RouteTable::new(routes) {
            *table = Arc::new(new);
        }
        self.stale.store(false, Ordering::Release);
    }

    fn table(&self) -> (u64, Arc<RouteTable<Served>>) {
        let generation = self.generation.load(Ordering::Acquire);
        if self.stale.load(Ordering::Acquire) {
            self.rebuild();
        }
        (generation, Arc::clone(&self.table.read()))
    }
}

/// Where requests come in. The same address may be listened on by the engine outside and by us inside a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Place {
    /// A published port, handed over as a socket.
    Published(SocketAddr),
    /// An address of the component's own.
    Inside(SocketAddr),
}

/// Every place this process listens at.
#[derive(Default)]
pub(crate) struct Places(pub RwLock<HashMap<Place, Arc<Site>>>);

impl Places {
    /// The components that answer at `address` inside the network, for calls that need no socket.
    pub(crate) fn inside(&self, address: SocketAddr) -> Option<Arc<Site>> {
        self.0.read().get(&Place::Inside(address)).cloned()
    }
}

/// Answers the request of a component of this very process.
pub(crate) async fn answer_in_process(site: &Site, request: Request<WasiBody>, depth: u32) -> Response<WasiBody> {
    let client = Client { address: None };
    let (_, table) = site.table();
    // Boxed: a component may call a component.
    Box::pin(route(&table, &client, request, depth)).await
}

/// Accepts connections until the site is closed.
pub(crate) async fn listen(listener: TcpListener, site: Arc<Site>) {
    loop {
        let accept = async {
            let place = clients::place().await;
            listener.accept().await.map(|accepted| (accepted, place))
        };
        let accepted = tokio::select! {
            accepted = accept => accepted,
            () = site.closed.cancelled() => return,
        };
        match accepted {
            Ok(((stream, peer), place)) => {
                let Some(share) = clients::share(peer.ip()) else { continue };
                let site = Arc::clone(&site);
                clients::spawn(async move {
                    connection(stream, peer, site).await;
                    drop((place, share));
                });
            }
            // The connection was given up, or descriptors ran out: go on, but not in a tight loop.
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

async fn connection(stream: TcpStream, peer: SocketAddr, site: Arc<Site>) {
    let client = Client { address: HeaderValue::from_str(&peer.to_string()).ok() };
    let known = parking_lot::Mutex::new(site.table());
    let service = service_fn(|request: Request<Incoming>| {
        let table = {
            let mut known = known.lock();
            if known.0 != site.generation.load(Ordering::Acquire) {
                *known = site.table();
            }
            Arc::clone(&known.1)
        };
        let client = &client;
        async move {
            Ok::<_, std::convert::Infallible>(match plain_request(request) {
                Ok(request) => {
                    let request = request.map(|body| body.map_err(wasmtime_wasi_http::Error::from).boxed_unsync());
                    route(&table, client, request, 0).await
                }
                Err((status, why)) => {
                    let mut response = answer(status, why.to_owned());
                    // Where its head is not understood, nobody knows where the next begins.
                    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                    response
                }
            })
        }
    });
    let mut serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(HEAD_SIZE)
        .max_headers(MAX_HEADERS)
        .serve_connection(TokioIo::new(ClientSocket::new(stream)), service);
    // Errors here are the client's: it went away or sent what is not HTTP, which hyper has answered.
    tokio::select! {
        _ = &mut serving => {}
        () = site.closed.cancelled() => {
            Pin::new(&mut serving).graceful_shutdown();
            let _ = (&mut serving).await;
        }
    }
    // Its place is nobody else's while the kernel holds something of it.
    serving.into_parts().io.into_inner().sent().await;
}

struct Client {
    address: Option<HeaderValue>,
}

/// A request as every one reaches a component: the path alone in its first line, and one `Host` that is a host. What is
/// unclear about whom it is for is refused, since others on its way may have read it otherwise.
///
/// Source: RFC 9112, sections 3.2 and 3.2.2.
fn plain_request(mut request: Request<Incoming>) -> Result<Request<Incoming>, (StatusCode, &'static str)> {
    let bad = |why| Err((StatusCode::BAD_REQUEST, why));
    if head_size(&request) > HEAD_SIZE {
        let why = "the request's first line and fields have more than 64 KiB together: send less in them";
        return Err((StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, why));
    }
    if request.method() == Method::CONNECT {
        return Err((StatusCode::METHOD_NOT_ALLOWED, "this is no proxy: CONNECT is not served"));
    }
    let mut hosts = request.headers().get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (_, Some(_)) => return bad("the request has more than one Host header"),
        (None, None) if request.version() == Version::HTTP_11 => return bad("the request has no Host header"),
        (None, None) => {}
        (Some(host), None) => {
            if !host.to_str().is_ok_and(is_host) {
                return bad("the Host header is not a host");
            }
        }
    }
    if let Some(authority) = request.uri().authority() {
        if request.uri().scheme() != Some(&http::uri::Scheme::HTTP) {
            return bad("the request is for another scheme than http");
        }
        let host = HeaderValue::from_str(authority.as_str()).ok().filter(|_| is_host(authority.as_str()));
        let Some(host) = host else { return bad("the address in the request's first line is not a host") };
        // What the first line says counts, whatever the header says.
        let path = request.uri().path_and_query().cloned();
        request.headers_mut().insert(HOST, host);
        *request.uri_mut() = path.map(http::Uri::from).unwrap_or_default();
    }
    Ok(request)
}

/// The bytes of a request's head as it would be written down again.
fn head_size<B>(request: &Request<B>) -> usize {
    let uri = request.uri();
    let authority = uri.authority().map_or(0, |authority| "http://".len() + authority.as_str().len());
    let path = uri.path_and_query().map_or(1, |path| path.as_str().len());
    let first = request.method().as_str().len() + authority + path + "  HTTP/1.1\r\n".len();
    let field = |(name, value): (&HeaderName, &HeaderValue)| name.as_str().len() + value.len() + ": \r\n".len();
    first + request.headers().iter().map(field).sum::<usize>() + "\r\n".len()
}

/// Whether `text` is a name or an address, with a port if it likes.
fn is_host(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, port),
        _ => (text, ""),
    };
    let name = |b: u8| b.is_ascii_alphanumeric() || b"-._~%".contains(&b);
    let is_name = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.bytes().all(name),
    };
    is_name && (port.is_empty() || port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok())
}

async fn route(
    table: &RouteTable<Served>,
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
    let invocation = match admit(&served.component, &what).await {
        Ok(invocation) => invocation,
        Err(refusal) => return *refusal,
    };
    let headers = path_headers(served, client, if named { host } else { "localhost" }, request.uri(), &captures);
    if !named {
        let _ = request.headers_mut().try_insert(HOST, HeaderValue::from_static("localhost"));
    }
    set_path_headers(request.headers_mut(), headers);
    serve(invocation, what, request, depth).await
}

const PATH_INFO: HeaderName = HeaderName::from_static("spin-path-info");
const FULL_URL: HeaderName = HeaderName::from_static("spin-full-url");
const MATCHED_ROUTE: HeaderName = HeaderName::from_static("spin-matched-route");
const RAW_COMPONENT_ROUTE: HeaderName = HeaderName::from_static("spin-raw-component-route");
const COMPONENT_ROUTE: HeaderName = HeaderName::from_static("spin-component-route");
const BASE_PATH: HeaderName = HeaderName::from_static("spin-base-path");
const CLIENT_ADDR: HeaderName = HeaderName::from_static("spin-client-addr");

/// What Spin tells a component about the way a request came.
fn path_headers(
    served: &Served,
    client: &Client,
    host: &str,
    uri: &http::Uri,
    captures: &Captures<'_, '_>,
) -> Vec<(HeaderName, HeaderValue)> {
    let value = |text: &str| HeaderValue::from_str(text).ok();
    let url = format!("http://{host}{}", uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str));
    let mut headers = Vec::with_capacity(8 + captures.parameters.len());
    headers.extend([
        (MATCHED_ROUTE, served.matched.clone()),
        (RAW_COMPONENT_ROUTE, served.matched.clone()),
        (COMPONENT_ROUTE, served.plain.clone()),
        (BASE_PATH, HeaderValue::from_static("/")),
    ]);
    headers.extend(value(captures.trailing.unwrap_or_default()).map(|value| (PATH_INFO, value)));
    headers.extend(HeaderValue::try_from(url).ok().map(|value| (FULL_URL, value)));
    headers.extend(client.address.clone().map(|value| (CLIENT_ADDR, value)));
    for (name, text) in &captures.parameters {
        let name = HeaderName::try_from(format!("spin-path-match-{name}").to_ascii_lowercase());
        headers.extend(name.ok().zip(value(text)));
    }
    headers
}

/// Puts our headers in place of any that the client sent under such a name.
fn set_path_headers(headers: &mut HeaderMap, ours: Vec<(HeaderName, HeaderValue)>) {
    let forged: Vec<HeaderName> = headers.keys().filter(|name| name.as_str().starts_with("spin-")).cloned().collect();
    for name in forged {
        headers.remove(name);
    }
    for (name, value) in ours {
        // Fails where a component asks another of this host with as many fields as there can be.
        let _ = headers.try_insert(name, value);
    }
}

/// An answer of ours, in one sentence.
pub(crate) fn answer(status: StatusCode, text: String) -> Response<WasiBody> {
    let body = Full::new(Bytes::from(text + "\n")).map_err(wasmtime_wasi_http::Error::from).boxed_unsync();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let text = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(http::header::CONTENT_TYPE, text);
    if status == StatusCode::SERVICE_UNAVAILABLE {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

/// Waits for a place for one more instance of `component`; otherwise what is to be answered.
async fn admit(component: &Arc<Component>, what: &Arc<str>) -> Result<Invocation, Box<Response<WasiBody>>> {
    let refusal = match component.admit(Arc::clone(what)).await {
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

/// Has a fresh instance answer `request`, which is called `what`. `depth` counts the components it has been through before.
async fn serve(invocation: Invocation, what: Arc<str>, request: Request<WasiBody>, depth: u32) -> Response<WasiBody> {
    let component = &Arc::clone(&invocation.component);
    let head = request.method() == Method::HEAD;
    let (sender, response) = oneshot::channel();
    let instance: Instance = Box::pin(run(invocation, request, Arc::clone(&what), sender, depth));
    // The instance is polled here until it has answered, without a task of its own.
    match select(response, instance).await {
        Either::Left((Ok(Ok(response)), instance)) => {
            begin_body(component, &what, head, response, Progress { instance: Some(instance), ended: None }).await
        }
        Either::Left((Ok(Err(error)), instance)) => {
            tokio::spawn(async move { note_failure(&mut instance.await.invocation, &what, &error) });
            failed(component)
        }
        // The sender was dropped without a word: the instance is ending, and tells why.
        Either::Left((Err(_), instance)) => failure(component, instance.await.end),
        Either::Right((mut ended, mut response)) => match response.try_recv() {
            Ok(Some(Ok(response))) => {
                begin_body(component, &what, head, response, Progress { instance: None, ended: Some(ended) }).await
            }
            // An instance that was cut off has logged why; the error is only that it did not answer.
            Ok(Some(Err(error))) if matches!(ended.end, End::Done | End::Failed) => {
                let busy = error.downcast_ref::<wasmtime::PoolConcurrencyLimitError>().is_some();
                note_failure(&mut ended.invocation, &what, &error);
                failure(component, if busy { End::Busy } else { End::Failed })
            }
            _ => failure(component, ended.end),
        },
    }
}

/// Most bytes of a body that are gathered before the answer goes out.
const GATHERED: usize = 64 << 10;

type Instance = Pin<Box<dyn Future<Output = Ended> + Send>>;

/// An instance that has answered: still at work, or ended.
struct Progress {
    instance: Option<Instance>,
    ended: Option<Ended>,
}

impl Progress {
    /// Whether the instance was ended before it was done.
    fn broke_off(&self) -> bool {
        self.ended.as_ref().is_some_and(|ended| ended.end != End::Done)
    }

    /// Counts an instance as failed whose answer cannot be sent, and answers how it ended.
    fn fail(self) -> End {
        let count = |mut ended: Ended| {
            if ended.invocation.outcome == Outcome::Succeeded {
                ended.invocation.outcome = Outcome::Failed;
            }
            ended.end
        };
        if let Some(instance) = self.instance {
            tokio::spawn(async move { count(instance.await) });
        }
        self.ended.map_or(End::Failed, count)
    }
}

/// Goes on with an instance that has answered for as long as it neither waits nor has sent much: most are done by then,
/// and their answer goes out in one piece, with its length. The others finish in a task of their own while the client
/// reads.
async fn begin_body(
    component: &Component,
    what: &str,
    head: bool,
    response: Response<WasiBody>,
    mut progress: Progress,
) -> Response<WasiBody> {
    let (mut parts, mut body) = response.into_parts();
    let refuse = |why: &str| component.log.note(&format!("bireme: {what} failed: {why}"));
    if parts.status.is_informational() {
        // A proxy in front would take 101 for the beginning of a tunnel.
        refuse(&format!("it answered with status {}, which ends no request", parts.status.as_u16()));
        progress.fail();
        return failed(component);
    }
    let (mut frames, mut size) = (VecDeque::new(), 0);
    let gathered = poll_fn(|cx| {
        loop {
            if let Some(instance) = &mut progress.instance
                && let Poll::Ready(ended) = instance.as_mut().poll(cx)
            {
                progress = Progress { instance: None, ended: Some(ended) };
            }
            match Pin::new(&mut body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    size += frame.data_ref().map_or(0, Bytes::len);
                    frames.push_back(frame);
                    // What an instance leaves behind that broke off is little, and tells whether its body is whole.
                    if size > GATHERED && !progress.broke_off() {
                        return Poll::Ready(Gathered::Part);
                    }
                }
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Gathered::Broken(Some(error))),
                Poll::Ready(None) => return Poll::Ready(Gathered::Whole),
                Poll::Pending if progress.broke_off() => return Poll::Ready(Gathered::Broken(None)),
                Poll::Pending => return Poll::Ready(Gathered::Part),
            }
        }
    })
    .await;
    let plain = frames.iter().all(Frame::is_data);
    let length = parts.headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    let empty = [StatusCode::NO_CONTENT, StatusCode::RESET_CONTENT, StatusCode::NOT_MODIFIED];
    if head || empty.contains(&parts.status) {
        // Such an answer has no body, and what length it tells is that of another. Whether the instance writes one all the
        // same, and how that ends, is nothing to the client.
        if head && plain && size > 0 && length.is_none() && matches!(gathered, Gathered::Whole) {
            let _ = parts.headers.try_insert(CONTENT_LENGTH, size.into());
        }
        tokio::spawn(discard(body, progress));
        return Response::from_parts(parts, Empty::new().map_err(|never| match never {}).boxed_unsync());
    }
    let body = match gathered {
        Gathered::Whole if plain => {
            if let Some(length) = length.filter(|length| *length != size) {
                refuse(&format!("its content-length says {length} bytes, and its body has {size}"));
                progress.fail();
                return failed(component);
            }
            let mut data = frames.into_iter().filter_map(|frame| frame.into_data().ok());
            let bytes = match (data.next(), data.next()) {
                (first, None) => first.unwrap_or_default(),
                (first, second) => {
                    let mut all = BytesMut::with_capacity(size);
                    first.into_iter().chain(second).chain(data).for_each(|part| all.extend_from_slice(&part));
                    all.freeze()
                }
            };
            Full::new(bytes).map_err(wasmtime_wasi_http::Error::from).boxed_unsync()
        }
        // Nothing has gone out yet, so the client can be told.
        Gathered::Broken(error) => {
            if let Some(error) = error {
                refuse(&format!("its body broke off: {error}"));
            }
            return failure(component, progress.fail());
        }
        Gathered::Whole | Gathered::Part => {
            let stream = Arc::new(Mutex::new(Stream { gathered: frames, body, rest: Rest::Coming, reader: None }));
            if let Some(instance) = progress.instance.take() {
                let stream = Arc::downgrade(&stream);
                tokio::spawn(async move {
                    let ended = instance.await;
                    // Gone when the client is.
                    if let Some(stream) = stream.upgrade().filter(|_| ended.end != End::Done) {
                        stream.lock().break_off();
                    }
                });
            }
            return Response::from_parts(parts, Streamed(stream).boxed_unsync());
        }
    };
    if let Some(instance) = progress.instance {
        tokio::spawn(instance);
    }
    Response::from_parts(parts, body)
}

/// How far a body came before its instance waited.
enum Gathered {
    Whole,
    Part,
    /// It will never be whole.
    Broken(Option<wasmtime_wasi_http::Error>),
}

/// Lets an instance write a body that nobody wants.
async fn discard(mut body: WasiBody, progress: Progress) {
    let unread = pin!(async { while let Some(Ok(_)) = body.frame().await {} });
    if let Some(instance) = progress.instance
        && let Either::Left((_, instance)) = select(unread, instance).await
    {
        instance.await;
    }
}

/// A body that is sent while its instance writes it.
struct Stream {
    gathered: VecDeque<Frame<Bytes>>,
    body: WasiBody,
    rest: Rest,
    reader: Option<Waker>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Rest {
    Coming,
    /// Nothing more comes, and the body is whole.
    Over,
    /// Nothing more comes, and the client must see that something is missing.
    Missing,
}

impl Stream {
    /// To be called when the instance has broken off, and before its state is dropped: that would end any body as if it
    /// were whole.
    fn break_off(&mut self) {
        let mut cx = Context::from_waker(Waker::noop());
        while self.rest == Rest::Coming {
            match Pin::new(&mut self.body).poll_frame(&mut cx) {
                Poll::Ready(Some(Ok(frame))) => self.gathered.push_back(frame),
                Poll::Ready(None) => self.rest = Rest::Over,
                Poll::Ready(Some(Err(_))) | Poll::Pending => self.rest = Rest::Missing,
            }
        }
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }
}

/// What the client reads of a [`Stream`]. It goes away with the client, and the instance is told.
struct Streamed(Arc<Mutex<Stream>>);

impl hyper::body::Body for Streamed {
    type Data = Bytes;
    type Error = wasmtime_wasi_http::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let mut stream = self.0.lock();
        if let Some(frame) = stream.gathered.pop_front() {
            return Poll::Ready(Some(Ok(frame)));
        }
        match stream.rest {
            Rest::Coming => {}
            Rest::Over => return Poll::Ready(None),
            Rest::Missing => {
                stream.rest = Rest::Over;
                return Poll::Ready(Some(Err(wasmtime_wasi_http::Error::HttpResponseIncomplete)));
            }
        }
        let polled = Pin::new(&mut stream.body).poll_frame(cx);
        match &polled {
            Poll::Pending => stream.reader = Some(cx.waker().clone()),
            Poll::Ready(None) => stream.rest = Rest::Over,
            Poll::Ready(Some(_)) => {}
        }
        polled
    }
}

/// A request as lists and logs name it: a path may have 64 KiB, and there may be thousands of requests.
fn called(method: &http::Method, path: &str) -> Arc<str> {
    const LONGEST: usize = 256;
    match path.char_indices().nth(LONGEST) {
        None => format!("{method} {path}").into(),
        Some((end, _)) => format!("{method} {}…", &path[..end]).into(),
    }
}

fn note_failure(invocation: &mut Invocation, what: &str, error: &wasmtime::Error) {
    invocation.outcome = Outcome::Failed;
    invocation.component.log.note(&format!("bireme: {what} failed: {}", super::reason(&invocation.account, error)));
}

/// The answer for an instance that ended without one, or in the middle of one.
fn failure(component: &Component, end: End) -> Response<WasiBody> {
    let name = component.name();
    match end {
        End::TimedOut => {
            let text = format!("{name} did not answer within its limit; see its log (docker logs {name})");
            answer(StatusCode::GATEWAY_TIMEOUT, text)
        }
        End::Stopped => answer(StatusCode::SERVICE_UNAVAILABLE, format!("{name} was stopped")),
        End::Busy => {
            let text = format!("{name} has no room for another instance; try again later");
            answer(StatusCode::SERVICE_UNAVAILABLE, text)
        }
        End::Done | End::Failed => failed(component),
    }
}

fn failed(component: &Component) -> Response<WasiBody> {
    let name = component.name();
    let text = format!("{name} failed to answer; see its log (docker logs {name})");
    answer(StatusCode::INTERNAL_SERVER_ERROR, text)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Done,
    Failed,
    TimedOut,
    Stopped,
    /// No slot in the pool.
    Busy,
}

/// An instance that is at its end. The invocation comes back, to be counted by what became of the answer.
struct Ended {
    end: End,
    invocation: Invocation,
    /// The state of an instance that broke off, for as long as it must be seen whether its body is whole.
    _remains: Option<Box<dyn Send>>,
}

/// Runs one instance to its end.
async fn run(
    mut invocation: Invocation,
    request: Request<WasiBody>,
    what: Arc<str>,
    answer: Answer,
    depth: u32,
) -> Ended {
    let component = Arc::clone(&invocation.component);
    let account = Arc::clone(&invocation.account);
    let limit = Some(component.spec.bireme.timeout);
    let mut guarded = Guarded::new(Arc::clone(&account), limit, call(Arc::clone(&account), request, answer, depth));
    let ended = (&mut guarded).await;
    let mut remains: Option<Box<dyn Send>> = None;
    let (outcome, end) = match ended {
        Ok(Ok(())) => (Outcome::Succeeded, End::Done),
        Ok(Err((error, _))) if error.downcast_ref::<wasmtime::PoolConcurrencyLimitError>().is_some() => {
            component.note_full(&what);
            (Outcome::Failed, End::Busy)
        }
        Ok(Err((error, store))) => {
            component.log.note(&format!("bireme: {what} failed: {}", super::reason(&account, &error)));
            remains = Some(Box::new(store));
            (Outcome::Failed, End::Failed)
        }
        Err(cut) => {
            remains = Some(Box::new(guarded));
            match cut {
                Cut::Timeout => {
                    let limit = component.spec.bireme.timeout;
                    let text = format!("bireme: {what} was ended: it took longer than bireme.timeout={limit:?}");
                    component.log.note(&text);
                    (Outcome::TimedOut, End::TimedOut)
                }
                Cut::CpuTime => {
                    let limit = component.spec.bireme.cpu_time.unwrap_or_default();
                    component.log.note(&format!(
                        "bireme: {what} was ended: it used more processor time than bireme.cpu-time={limit:?}"
                    ));
                    (Outcome::TimedOut, End::TimedOut)
                }
                Cut::Memory => {
                    component.log.note(&format!("bireme: {what} failed: {}", super::ENDED_FOR_MEMORY));
                    (Outcome::Failed, End::Failed)
                }
                Cut::Broken => (Outcome::Failed, End::Failed),
                Cut::Stopped => {
                    component.log.note(&format!("bireme: {what} was cut off: {} was stopped", component.name()));
                    (Outcome::Failed, End::Stopped)
                }
            }
        }
    };
    invocation.outcome = outcome;
    Ended { end, invocation, _remains: remains }
}

/// Calls the handler and waits until the instance has nothing more to do. With an error comes the state of the instance,
/// if there was one.
async fn call(
    account: Arc<Account>,
    request: Request<WasiBody>,
    answer: Answer,
    depth: u32,
) -> Result<(), (wasmtime::Error, Option<Store<Guest>>)> {
    let mut store = Guest::store(&account, depth).map_err(|error| (error, None))?;
    let result = call_in(&mut store, &account.component, request, answer).await;
    result.map_err(|error| (error, Some(store)))
}

async fn call_in(
    store: &mut Store<Guest>,
    component: &Component,
    request: Request<WasiBody>,
    answer: Answer,
) -> wasmtime::Result<()> {
    let Program::Http(pre) = &component.program else { wasmtime::bail!("not an HTTP component") };
    let proxy: Proxy = pre.instantiate_async(&mut *store).await?;
    let proxy = &proxy;
    store
        .run_concurrent(async |accessor| {
            // The answer goes straight to whoever waits outside: while the guest is in a call that blocks it, nothing in
            // here is polled.
            let prepared = accessor.with(|mut store| {
                Prepared::new(store.as_context_mut(), proxy, request, |guest| guest.http(), answer)
            })?;
            prepared.run(accessor, std::future::pending()).await?;
            std::future::poll_fn(|cx| accessor.poll_no_interesting_tasks(cx)).await;
            wasmtime::error::Ok(())
        })
        .await?
}

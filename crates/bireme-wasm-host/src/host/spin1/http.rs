//! `wasi-outbound-http`: one request, its whole body and the whole of its answer at once.

use std::sync::Arc;

use http::header::{
    CONNECTION, CONTENT_LENGTH, HOST, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri};
use http_body_util::BodyExt as _;
use wasmtime::Linker;
use wasmtime_wasi_http::Error;

use super::abi::{Call, SLICE, Slice, lowered};
use super::import;
use crate::body;
use crate::guest::Guest;
use crate::host::http::ITSELF;

/// Variants of its error.
const NOT_ALLOWED: u8 = 1;
const INVALID_URL: u8 = 2;
const REQUEST: u8 = 3;
const RUNTIME: u8 = 4;

/// Bytes of a pair of strings.
pub(crate) const PAIR: usize = 2 * SLICE;

pub(super) fn add_to_linker(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    import!(
        linker,
        "wasi-outbound-http",
        "request",
        (method, uri, length, headers, count, _params, _count, has_body, body, size, out),
        call => request(call, method, (uri, length), (headers, count), (has_body != 0).then_some((body, size)), out)
    );
    Ok(())
}

/// The methods in the order of the interface.
pub(crate) const METHODS: [Method; 7] =
    [Method::GET, Method::POST, Method::PUT, Method::DELETE, Method::PATCH, Method::HEAD, Method::OPTIONS];

/// Whether a header is about the connection, and not about what is sent over it. Source: RFC 9110, section 7.6.1.
pub(crate) fn is_of_connection(name: &HeaderName) -> bool {
    [CONNECTION, CONTENT_LENGTH, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE]
        .contains(name)
        || matches!(name.as_str(), "keep-alive" | "proxy-connection" | "http2-settings")
}

/// The error stands where the answer would.
fn fail(call: &mut Call<'_>, out: i32, variant: u8) -> wasmtime::Result<()> {
    call.put(out, 0, &[1])?;
    call.put(out, 4, &[variant])
}

async fn request(
    mut call: Call<'_>,
    method: i32,
    uri: Slice,
    headers: Slice,
    body: Option<Slice>,
    out: i32,
) -> wasmtime::Result<()> {
    let uri = call.text(uri)?;
    let (names, values) = (call.slices(headers, PAIR, 0)?, call.slices(headers, PAIR, SLICE)?);
    let mut map = HeaderMap::new();
    let mut well_formed = true;
    for (name, value) in names.into_iter().zip(values) {
        let (name, value) = (call.text(name)?, call.bytes(value)?);
        let pair = HeaderName::try_from(name).ok().zip(HeaderValue::from_bytes(&value).ok());
        if pair.as_ref().is_some_and(|(name, _)| is_of_connection(name) || *name == HOST) {
            // Whom it asks is whom it names, and how they are connected is theirs.
            continue;
        }
        well_formed &= pair.is_some_and(|(name, value)| map.try_append(name, value).is_ok());
    }
    let content = body.map(|body| call.bytes(body)).transpose()?.unwrap_or_default();
    // Without a host it is the app that is asked.
    let uri = if uri.starts_with('/') { format!("http://{ITSELF}{uri}") } else { uri };
    let Some(uri) = uri.parse::<Uri>().ok().filter(|uri| uri.authority().is_some()) else {
        return fail(&mut call, out, INVALID_URL);
    };
    let method = usize::try_from(method).ok().and_then(|at| METHODS.get(at).cloned());
    let (Some(method), true) = (method, well_formed) else { return fail(&mut call, out, REQUEST) };
    let mut request = Request::new(body::full(content));
    (*request.method_mut(), *request.uri_mut(), *request.headers_mut()) = (method, uri, map);
    if let Some(host) = request.uri().authority().and_then(|host| HeaderValue::from_str(host.as_str()).ok()) {
        request.headers_mut().insert(HOST, host);
    }
    let guest = call.caller.data();
    let (account, depth) = (Arc::clone(&guest.account), guest.depth());
    let answer = match crate::host::http::send(Arc::clone(&account), depth, request, None).await {
        Ok((response, io)) => {
            let (head, body) = response.into_parts();
            let io = Box::into_pin(io);
            let (body, _) = futures::future::join(body::collect(&account, body.boxed_unsync()), io).await;
            body.map(|body| (head, body)).map_err(|why| (why, RUNTIME))
        }
        Err(Error::HttpRequestDenied) => Err(("it is not permitted".to_owned(), NOT_ALLOWED)),
        Err(error) => Err((error.to_string(), RUNTIME)),
    };
    let (head, (body, _charges)) = match answer {
        Ok(answer) => answer,
        Err((why, variant)) => {
            account.component.log.note(&format!("bireme: wasi-outbound-http: {why}"));
            return fail(&mut call, out, variant);
        }
    };
    let mut pairs = Vec::new();
    for (name, value) in &head.headers {
        pairs.extend(lowered(call.abi.give_text(&mut call.caller, name.as_str().as_bytes()).await?));
        pairs.extend(lowered(call.abi.give_text(&mut call.caller, value.as_bytes()).await?));
    }
    let list = (call.abi.give(&mut call.caller, &pairs, 4).await?, (pairs.len() / PAIR) as i32);
    let body = call.abi.give_text(&mut call.caller, &body).await?;
    call.put(out, 0, &[0])?;
    call.put(out, 4, &head.status.as_u16().to_le_bytes())?;
    call.put(out, 8, &[1])?;
    call.put(out, 12, &lowered(list))?;
    call.put(out, 20, &[1])?;
    call.put(out, 24, &lowered(body))
}

//! What is asked of a request before anything else looks at it.

use http::header::{HOST, HeaderName, HeaderValue};
use http::{Method, Request, StatusCode, Version};
use hyper::body::Incoming;

/// Most bytes of the head of a request. The connection's buffer may come to be larger, so that what is in it is counted too.
pub(super) const HEAD_SIZE: usize = 64 << 10;

/// A request as every one reaches a component: the path alone in its first line, and one `Host` that is a host. What is
/// unclear about whom it is for is refused, since others on its way may have read it otherwise.
///
/// Source: RFC 9112, sections 3.2 and 3.2.2.
pub(super) fn plain_request(mut request: Request<Incoming>) -> Result<Request<Incoming>, (StatusCode, &'static str)> {
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

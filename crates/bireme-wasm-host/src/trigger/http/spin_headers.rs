//! What Spin tells a component about the way a request came, in headers of its own.

use bireme_core::route::Captures;
use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};

use super::site::ServedRoute;

pub(super) const PATH_INFO: HeaderName = HeaderName::from_static("spin-path-info");
pub(super) const FULL_URL: HeaderName = HeaderName::from_static("spin-full-url");
pub(super) const MATCHED_ROUTE: HeaderName = HeaderName::from_static("spin-matched-route");
pub(super) const RAW_COMPONENT_ROUTE: HeaderName = HeaderName::from_static("spin-raw-component-route");
pub(super) const COMPONENT_ROUTE: HeaderName = HeaderName::from_static("spin-component-route");
pub(super) const BASE_PATH: HeaderName = HeaderName::from_static("spin-base-path");
pub(super) const CLIENT_ADDR: HeaderName = HeaderName::from_static("spin-client-addr");

/// What Spin tells a component about the way a request came.
pub(super) fn path_headers(
    served: &ServedRoute,
    client: Option<&HeaderValue>,
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
    headers.extend(client.cloned().map(|value| (CLIENT_ADDR, value)));
    for (name, text) in &captures.parameters {
        let name = HeaderName::try_from(format!("spin-path-match-{name}").to_ascii_lowercase().replace('_', "-"));
        headers.extend(name.ok().zip(value(text)));
    }
    headers
}

/// Puts our headers in place of any that the client sent under such a name.
pub(super) fn set_path_headers(headers: &mut HeaderMap, ours: Vec<(HeaderName, HeaderValue)>) {
    let forged: Vec<HeaderName> = headers.keys().filter(|name| name.as_str().starts_with("spin-")).cloned().collect();
    for name in forged {
        headers.remove(name);
    }
    for (name, value) in ours {
        // Fails where a component asks another of this host with as many fields as there can be.
        let _ = headers.try_insert(name, value);
    }
}

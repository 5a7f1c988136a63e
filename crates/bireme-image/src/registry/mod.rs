//! One place where an image may be fetched from or brought to: a registry, or a mirror of one.
//!
//! The registry is a stranger. Whatever it answers is read up to a bound and within a time, and is held against the digest
//! and the size that were promised; credentials are shown to the registry and to where it sends for tokens, and to nobody
//! that either of them redirects to. Decision 0013 tells why this is no library.
//!
//! Source: OCI distribution specification; distribution's "Token Authentication Specification".

mod client;
mod failure;
mod fetch;
mod hosts;
mod log_in;
mod retry;
mod send;
mod sources;
mod trust;

use std::net::IpAddr;
use std::time::Duration;

use parking_lot::Mutex;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, RequestBuilder, Url};

use crate::auth::RegistryAuth;
use crate::error::ImageError;
use crate::reference::Reference;
use crate::settings::RegistrySettings;

use hosts::{Can, Place};

pub(crate) use client::client;
pub(crate) use failure::Failure;
pub(crate) use hosts::own_place;
pub(crate) use retry::Tries;
pub(crate) use send::{PIECE, Upload};
pub(crate) use sources::Sources;
pub(crate) use trust::trusting;

/// Silence after which a connection counts as broken.
pub(crate) const SILENCE: Duration = Duration::from_secs(30);

/// Time in which a connection is made.
pub(crate) const CONNECT: Duration = Duration::from_secs(15);

/// Time in which a document is there whole, however steadily its bytes drip.
pub(crate) const DOCUMENT_TIME: Duration = Duration::from_secs(300);

/// Time in which a token is there whole.
const TOKEN_TIME: Duration = Duration::from_secs(30);

/// Where Docker Hub is asked for images.
pub(crate) const HUB: &str = "registry-1.docker.io";

/// Which operation a token is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    Pull,
    Push,
}

/// A place as one pull or push sees it.
pub(crate) struct Remote {
    /// Host and port, as the user knows it.
    host: String,
    /// Where requests go; ends in a slash.
    base: Url,
    pub(crate) can: Can,
    /// Sent with each request, as the machine's owner wrote.
    header: HeaderMap,
    /// The registry that a mirror is asked for.
    namespace: Option<String>,
    repository: String,
    auth: RegistryAuth,
    /// What is shown with each request; `None` before it is known what is asked for.
    shown: Mutex<Option<RegistryAuth>>,
    operation: Operation,
    /// Further repositories that a push takes layers from.
    also: Mutex<Vec<String>>,
    client: reqwest::Client,
    /// There is no other place to ask.
    last: bool,
    /// What the user asked for, for errors.
    wanted: Reference,
}

impl Remote {
    /// Where `reference` is brought to: the first place that takes pushes.
    ///
    /// # Errors
    /// As [`hosts::places`]; `Registry` where no place takes any.
    pub(crate) fn to_push(
        settings: &RegistrySettings,
        reference: &Reference,
        auth: Option<RegistryAuth>,
    ) -> Result<Self, ImageError> {
        let place = hosts::places(settings, reference.registry())?.into_iter().find(|place| place.can.push);
        let place = place.ok_or_else(|| ImageError::Registry {
            registry: reference.registry().to_owned(),
            attempt: "push".to_owned(),
            reason: "its hosts.toml names no host with the capability push".to_owned(),
        })?;
        let auth = auth.filter(|_| place.own).unwrap_or(RegistryAuth::Anonymous);
        Self::new(place, reference, auth, Operation::Push, true)
    }

    fn new(
        place: Place,
        wanted: &Reference,
        auth: RegistryAuth,
        operation: Operation,
        last: bool,
    ) -> Result<Self, ImageError> {
        let client = client::client(&place, operation == Operation::Pull)?;
        let Place { host, root, can, manner, own } = place;
        let mut header = HeaderMap::new();
        for (name, value) in manner.header {
            let bad = |reason: &str| ImageError::Registry {
                registry: host.clone(),
                attempt: "prepare a connection".to_owned(),
                reason: format!("the header {name:?} of its hosts.toml {reason}"),
            };
            let key = HeaderName::from_bytes(name.as_bytes()).map_err(|_| bad("is no name of a header"))?;
            let mut value = HeaderValue::from_str(&value).map_err(|_| bad("has a value that no header may have"))?;
            value.set_sensitive(true);
            header.append(key, value);
        }
        Ok(Self {
            host,
            base: root,
            can,
            header,
            namespace: (!own).then(|| wanted.registry().to_owned()),
            repository: wanted.repository().to_owned(),
            auth,
            shown: Mutex::default(),
            operation,
            also: Mutex::default(),
            client,
            last,
            wanted: wanted.clone(),
        })
    }

    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    pub(crate) fn is_last(&self) -> bool {
        self.last
    }

    fn url(&self, rest: &str) -> Url {
        let mut url = self.base.clone();
        // Names and digests were checked: there is nothing in them to be escaped.
        url.set_path(&format!("{}{}/{rest}", self.base.path(), self.repository));
        if let Some(namespace) = &self.namespace {
            // One cache serves several registries. Source: containerd, `core/remotes/docker`, `addNamespace`.
            url.query_pairs_mut().append_pair("ns", namespace);
        }
        url
    }

    /// A request that shows who asks, if it goes to the registry itself.
    fn request(&self, method: Method, url: Url) -> RequestBuilder {
        let own = url.origin() == self.base.origin();
        let request = self.client.request(method, url);
        if !own {
            return request;
        }
        let request = request.headers(self.header.clone());
        let shown = self.shown.lock();
        match &*shown {
            None | Some(RegistryAuth::Anonymous | RegistryAuth::Identity(_)) => request,
            Some(RegistryAuth::Basic(name, password)) => request.basic_auth(name, Some(password)),
            Some(RegistryAuth::Bearer(token)) => request.bearer_auth(token),
        }
    }
}

/// Whether a registry is spoken to without TLS.
pub(crate) fn is_plain(settings: &RegistrySettings, registry: &str) -> bool {
    if settings.insecure.iter().any(|insecure| insecure == registry) {
        return true;
    }
    let host = match registry.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => registry,
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_only_on_this_machine_or_where_configured() {
        let settings = RegistrySettings { insecure: vec!["lan:5000".to_owned()], ..RegistrySettings::default() };
        for (registry, plain) in [
            ("localhost", true),
            ("localhost:5000", true),
            ("127.0.0.1:5000", true),
            ("127.1.2.3", true),
            ("[::1]:5000", true),
            ("lan:5000", true),
            ("lan", false),
            ("docker.io", false),
            ("127.0.0.1.example", false),
            ("localhost.example:5000", false),
        ] {
            assert_eq!(is_plain(&settings, registry), plain, "{registry}");
        }
    }
}

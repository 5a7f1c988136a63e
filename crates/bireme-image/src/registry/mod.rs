//! One place where an image may be fetched from or brought to: a registry, or a mirror of one.
//!
//! The registry is a stranger. Whatever it answers is read up to a bound and within a time, and is held against the digest
//! and the size that were promised; credentials are shown to the registry and to where it sends for tokens, and to nobody
//! that either of them redirects to. Decision 0013 tells why this is no library.
//!
//! Source: OCI distribution specification; distribution's "Token Authentication Specification".

mod failure;
mod fetch;
mod log_in;
mod send;

use std::net::IpAddr;
use std::time::Duration;

use bireme_core::error::chain;
use parking_lot::Mutex;
use reqwest::{Method, RequestBuilder, Url};

use crate::auth::RegistryAuth;
use crate::error::ImageError;
use crate::reference::Reference;
use crate::settings::RegistrySettings;

pub(crate) use failure::Failure;

/// How often one request is made before it counts as failed.
pub(crate) const ATTEMPTS: u32 = 5;

/// Silence after which a connection counts as broken.
pub(crate) const SILENCE: Duration = Duration::from_secs(30);

/// Time in which a connection is made.
pub(crate) const CONNECT: Duration = Duration::from_secs(15);

/// Time in which a document is there whole, however steadily its bytes drip.
pub(crate) const DOCUMENT_TIME: Duration = Duration::from_secs(300);

/// Where Docker Hub is asked for images.
pub(crate) const HUB: &str = "registry-1.docker.io";

/// Time before the next attempt, doubling from a quarter of a second.
pub(crate) async fn back_off(attempt: u32) {
    tokio::time::sleep(Duration::from_millis(250 << attempt.min(5))).await;
}

/// Which operation a token is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    Pull,
    Push,
}

/// A registry as one pull sees it.
pub(crate) struct Remote {
    /// Host and port, as the user knows it.
    host: String,
    /// Where requests go.
    base: Url,
    repository: String,
    auth: RegistryAuth,
    /// What is shown with each request: nothing before [`Self::log_in`].
    shown: Mutex<RegistryAuth>,
    operation: Operation,
    client: reqwest::Client,
    /// What the user asked for, for errors.
    wanted: Reference,
}

impl Remote {
    /// Everywhere `reference` may be fetched from, in order: mirrors first, the registry itself last.
    pub(crate) fn all(
        settings: &RegistrySettings,
        reference: &Reference,
        auth: Option<&RegistryAuth>,
    ) -> Result<Vec<Self>, ImageError> {
        let mut remotes = Vec::new();
        if reference.registry() == "docker.io" {
            for mirror in &settings.mirrors {
                let (host, http) = match mirror.split_once("://") {
                    Some(("http", host)) => (host, true),
                    Some(("https", host)) => (host, false),
                    Some(_) => return Err(bad_mirror(mirror)),
                    None => (mirror.as_str(), is_plain(settings, mirror)),
                };
                let host = host.trim_end_matches('/');
                if host.is_empty() || host.contains('/') {
                    return Err(bad_mirror(mirror));
                }
                // A mirror is somebody else: credentials for Docker Hub are not shown to it.
                remotes.push(Self::new(host, http, reference, RegistryAuth::Anonymous)?);
            }
        }
        let http = is_plain(settings, reference.registry());
        let auth = auth.cloned().unwrap_or(RegistryAuth::Anonymous);
        remotes.push(Self::new(reference.registry(), http, reference, auth)?);
        Ok(remotes)
    }

    /// Where `reference` is brought to.
    pub(crate) fn to_push(
        settings: &RegistrySettings,
        reference: &Reference,
        auth: Option<RegistryAuth>,
    ) -> Result<Self, ImageError> {
        let host = reference.registry();
        let auth = auth.unwrap_or(RegistryAuth::Anonymous);
        Self::for_operation(host, is_plain(settings, host), reference, auth, Operation::Push)
    }

    fn new(host: &str, http: bool, wanted: &Reference, auth: RegistryAuth) -> Result<Self, ImageError> {
        Self::for_operation(host, http, wanted, auth, Operation::Pull)
    }

    fn for_operation(
        host: &str,
        http: bool,
        wanted: &Reference,
        auth: RegistryAuth,
        operation: Operation,
    ) -> Result<Self, ImageError> {
        let failed = |reason: String| ImageError::Registry {
            registry: host.to_owned(),
            attempt: "prepare a connection".to_owned(),
            reason,
        };
        let place = if host == "docker.io" { HUB } else { host };
        let scheme = if http { "http" } else { "https" };
        let base = Url::parse(&format!("{scheme}://{place}/v2/")).map_err(|error| failed(error.to_string()))?;
        let mut client = reqwest::Client::builder()
            .connect_timeout(CONNECT)
            .user_agent(concat!("bireme/", env!("CARGO_PKG_VERSION")));
        // While a layer is sent, the registry has nothing to say, however long that takes.
        if operation == Operation::Pull {
            client = client.read_timeout(SILENCE);
        }
        let client = client.build().map_err(|error| failed(chain(&error)))?;
        let (repository, wanted) = (wanted.repository().to_owned(), wanted.clone());
        let shown = Mutex::new(RegistryAuth::Anonymous);
        Ok(Self { host: host.to_owned(), base, repository, auth, shown, operation, client, wanted })
    }

    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    fn url(&self, rest: &str) -> Url {
        let mut url = self.base.clone();
        // Names and digests were checked: there is nothing in them to be escaped.
        url.set_path(&format!("/v2/{}/{rest}", self.repository));
        url
    }

    /// A request that shows who asks, if it goes to the registry itself.
    fn request(&self, method: Method, url: Url) -> RequestBuilder {
        let own = url.origin() == self.base.origin();
        let request = self.client.request(method, url);
        let shown = self.shown.lock();
        match &*shown {
            _ if !own => request,
            RegistryAuth::Anonymous => request,
            RegistryAuth::Basic(name, password) => request.basic_auth(name, Some(password)),
            RegistryAuth::Bearer(token) => request.bearer_auth(token),
        }
    }
}

fn bad_mirror(mirror: &str) -> ImageError {
    ImageError::Registry {
        registry: mirror.to_owned(),
        attempt: "pull".to_owned(),
        reason: "the mirror must be given as http://HOST[:PORT], https://HOST[:PORT] or HOST[:PORT]".to_owned(),
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

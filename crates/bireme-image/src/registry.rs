//! One place where an image may be fetched from or brought to: a registry, or a mirror of one.
//!
//! The registry is a stranger. Whatever it answers is read up to a bound and within a time, and is held against the digest
//! and the size that were promised; credentials are shown to the registry and to where it sends for tokens, and to nobody
//! that either of them redirects to. Decision 0013 tells why this is no library.
//!
//! Source: OCI distribution specification; distribution's "Token Authentication Specification".

use std::net::IpAddr;
use std::time::Duration;

use futures::stream::BoxStream;
use futures::{Stream, StreamExt as _, TryStreamExt as _};
use parking_lot::Mutex;
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url, header};
use serde::Deserialize;

use crate::auth::{Challenge, RegistryAuth, ask_for_token};
use crate::digest::Digest;
use crate::error::{ImageError, chain};
use crate::model::{ACCEPT, DOCKER_LIST, DOCUMENT_LIMIT, OCI_INDEX};
use crate::reference::Reference;
use crate::settings::RegistrySettings;

/// How often one request is made before it counts as failed.
pub(crate) const ATTEMPTS: u32 = 5;

/// Silence after which a connection counts as broken.
pub(crate) const SILENCE: Duration = Duration::from_secs(30);
pub(crate) const CONNECT: Duration = Duration::from_secs(15);

/// Time in which a document is there whole, however steadily its bytes drip.
pub(crate) const DOCUMENT_TIME: Duration = Duration::from_secs(300);

/// Bytes of an answer that tells of a failure.
const ERROR_LIMIT: usize = 64 << 10;

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

/// Why a request failed, and whether another attempt makes sense.
pub(crate) struct Failure {
    pub(crate) error: ImageError,
    pub(crate) retry: bool,
    /// The token may have run out.
    pub(crate) unauthorized: bool,
}

impl Failure {
    pub(crate) fn last(error: ImageError) -> Self {
        Self { error, retry: false, unauthorized: false }
    }
}

#[derive(Deserialize)]
struct ErrorBody {
    #[serde(default)]
    errors: Vec<ErrorEntry>,
}

#[derive(Deserialize)]
struct ErrorEntry {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
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

    /// Finds out what the registry wants to see of whoever asks, and gets a token if it hands out any. It is kept for what
    /// follows.
    pub(crate) async fn log_in(&self) -> Result<(), Failure> {
        let shown = match &self.auth {
            RegistryAuth::Bearer(_) => self.auth.clone(),
            auth => {
                let first = self.client.get(self.base.clone()).timeout(DOCUMENT_TIME).send().await;
                let first = first.map_err(|error| self.unreachable(&error))?;
                match Challenge::of(&first) {
                    None => RegistryAuth::Anonymous,
                    Some(Challenge::Basic) => auth.clone(),
                    Some(Challenge::Bearer { realm, service }) => self.token(&realm, &service).await?,
                }
            }
        };
        *self.shown.lock() = shown;
        Ok(())
    }

    async fn token(&self, realm: &str, service: &str) -> Result<RegistryAuth, Failure> {
        let actions = match self.operation {
            Operation::Pull => "pull",
            Operation::Push => "pull,push",
        };
        let scope = format!("repository:{}:{actions}", self.repository);
        let bad = |reason: String| {
            let (registry, attempt) = (self.host.clone(), "authenticate".to_owned());
            Failure::last(ImageError::Registry { registry, attempt, reason })
        };
        let plain = self.base.scheme() == "http";
        let request = ask_for_token(&self.client, realm, service, Some(&scope), &self.auth, plain).map_err(bad)?;
        let answer = request.timeout(DOCUMENT_TIME).send().await.map_err(|error| self.unreachable(&error))?;
        if answer.status().is_client_error() {
            let body = beginning(answer).await;
            return Err(self.refused("authenticate", 401, &body));
        }
        let answer = self.succeeded("authenticate", answer).await?;
        let what = format!("the answer of {} to a request for a token", self.host);
        let body = self.whole("authenticate", answer, &what).await?;
        crate::auth::token(&body).map(RegistryAuth::Bearer).map_err(bad)
    }

    /// The answer, unless it tells of a failure.
    async fn succeeded(&self, attempt: &str, answer: Response) -> Result<Response, Failure> {
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        Err(self.refused(attempt, status.as_u16(), &beginning(answer).await))
    }

    /// A whole answer, if it is no larger than a document may be.
    async fn whole(&self, attempt: &str, mut answer: Response, what: &str) -> Result<Vec<u8>, Failure> {
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(|error| self.broken(attempt, &error))? {
            if (body.len() + chunk.len()) as u64 > DOCUMENT_LIMIT {
                return Err(Failure::last(ImageError::TooLarge { what: what.to_owned(), limit: DOCUMENT_LIMIT }));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    /// Fetches a manifest or index by tag or digest, with retries.
    pub(crate) async fn manifest(&self, version: &str) -> Result<(Vec<u8>, Digest), ImageError> {
        let mut attempt = 0;
        loop {
            match self.manifest_once(version).await {
                Ok(found) => return Ok(found),
                Err(failure) if failure.retry && attempt + 1 < ATTEMPTS => {
                    tracing::debug!(registry = self.host, error = %failure.error, "asking for the manifest again");
                    back_off(attempt).await;
                    attempt += 1;
                }
                Err(failure) => return Err(failure.error),
            }
        }
    }

    async fn manifest_once(&self, version: &str) -> Result<(Vec<u8>, Digest), Failure> {
        self.log_in().await?;
        let request = self.request(Method::GET, self.url(&format!("manifests/{version}")));
        let request = request.header(header::ACCEPT, ACCEPT.join(", ")).timeout(DOCUMENT_TIME);
        let answer = request.send().await.map_err(|error| self.unreachable(&error))?;
        let answer = self.succeeded("fetch the manifest", answer).await?;
        let promised = answer.headers().get("docker-content-digest").and_then(|value| value.to_str().ok());
        let promised: Option<Digest> = promised.and_then(|digest| digest.parse().ok());
        let what = format!("the manifest of {}", self.wanted.familiar());
        let sent_as = answer.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let sent_as = sent_as.map(|value| value.split(';').next().unwrap_or_default().trim().to_owned());
        let body = self.whole("fetch the manifest", answer, &what).await?;
        let actual = Digest::of(&body);
        let asked: Option<Digest> = version.parse().ok();
        if let Some(expected) = asked.or(promised)
            && expected != actual
        {
            return Err(Failure::last(ImageError::DigestMismatch { what, expected, actual }));
        }
        agree(&body, sent_as.as_deref(), &what).map_err(Failure::last)?;
        Ok((body, actual))
    }

    /// Opens a blob at `offset`; answers the stream and whether it begins there rather than at 0.
    pub(crate) async fn blob(
        &self,
        digest: &Digest,
        offset: u64,
    ) -> Result<(bool, BoxStream<'static, std::io::Result<bytes::Bytes>>), Failure> {
        let mut request = self.request(Method::GET, self.url(&format!("blobs/{digest}")));
        if offset > 0 {
            request = request.header(header::RANGE, format!("bytes={offset}-"));
        }
        let answer = request.send().await.map_err(|error| self.broken("fetch a layer", &error))?;
        let answer = self.succeeded("fetch a layer", answer).await.map_err(|mut failure| {
            if let ImageError::ManifestUnknown { .. } = failure.error {
                let what = "the registry has no layer".to_owned();
                failure.error = ImageError::MissingBlob { what, digest: digest.to_string() };
            }
            failure
        })?;
        let resumed = answer.status() == StatusCode::PARTIAL_CONTENT;
        Ok((resumed, answer.bytes_stream().map_err(std::io::Error::other).boxed()))
    }

    /// Fetches a small blob into memory, with retries; its digest and size are checked.
    pub(crate) async fn document(&self, digest: &Digest, size: u64, what: &str) -> Result<Vec<u8>, ImageError> {
        let mut attempt = 0;
        loop {
            match self.document_once(digest, size, what).await {
                Ok(bytes) => return Ok(bytes),
                Err(failure) if failure.retry && attempt + 1 < ATTEMPTS => {
                    back_off(attempt).await;
                    attempt += 1;
                }
                Err(failure) => return Err(failure.error),
            }
        }
    }

    async fn document_once(&self, digest: &Digest, size: u64, what: &str) -> Result<Vec<u8>, Failure> {
        if size > DOCUMENT_LIMIT {
            return Err(Failure::last(ImageError::TooLarge { what: what.to_owned(), limit: DOCUMENT_LIMIT }));
        }
        match tokio::time::timeout(DOCUMENT_TIME, self.document_at_leisure(digest, size, what)).await {
            Ok(answer) => answer,
            Err(late) => Err(self.broken("fetch the configuration", &late)),
        }
    }

    async fn document_at_leisure(&self, digest: &Digest, size: u64, what: &str) -> Result<Vec<u8>, Failure> {
        let (_, mut stream) = self.blob(digest, 0).await?;
        let mut bytes = Vec::new();
        while (bytes.len() as u64) < size
            && let Some(chunk) = stream.next().await
        {
            bytes.extend_from_slice(&chunk.map_err(|error| self.broken("fetch the configuration", &error))?);
        }
        let actual = bytes.len() as u64;
        if actual < size {
            let early = std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
            return Err(self.broken("fetch the configuration", &early));
        }
        if actual > size {
            let error = ImageError::SizeMismatch { what: what.to_owned(), expected: size, actual };
            return Err(Failure::last(error));
        }
        let actual = Digest::of(&bytes);
        if actual != *digest {
            let error = ImageError::DigestMismatch { what: what.to_owned(), expected: digest.clone(), actual };
            return Err(Failure::last(error));
        }
        Ok(bytes)
    }

    /// Whether the registry has a blob.
    pub(crate) async fn has_blob(&self, digest: &Digest) -> Result<bool, Failure> {
        let request = self.request(Method::HEAD, self.url(&format!("blobs/{digest}"))).timeout(DOCUMENT_TIME);
        let answer = request.send().await.map_err(|error| self.broken("look for a layer", &error))?;
        match answer.status() {
            StatusCode::NOT_FOUND => Ok(false),
            _ => self.succeeded("look for a layer", answer).await.map(|_| true),
        }
    }

    /// Sends a blob of `size` bytes.
    pub(crate) async fn send_blob(
        &self,
        digest: &Digest,
        size: u64,
        bytes: impl Stream<Item = std::io::Result<bytes::Bytes>> + Send + 'static,
    ) -> Result<(), Failure> {
        const ATTEMPT: &str = "send a layer";
        let start = self.request(Method::POST, self.url("blobs/uploads/")).timeout(DOCUMENT_TIME);
        let start = start.header(header::CONTENT_LENGTH, 0);
        let answer = start.send().await.map_err(|error| self.broken(ATTEMPT, &error))?;
        let answer = self.succeeded(ATTEMPT, answer).await?;
        let place = answer.headers().get(header::LOCATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
        // Relative to what was asked.
        let mut place = answer.url().join(place).map_err(|error| self.broken(ATTEMPT, &error))?;
        if place.scheme() != self.base.scheme() && place.scheme() != "https" {
            let reason = format!("it wants the layer at {place}, which is no encrypted place");
            let (registry, attempt) = (self.host.clone(), ATTEMPT.to_owned());
            return Err(Failure::last(ImageError::Registry { registry, attempt, reason }));
        }
        place.query_pairs_mut().append_pair("digest", digest.as_str());
        let request = self
            .request(Method::PUT, place)
            .header(header::CONTENT_LENGTH, size)
            .header(header::CONTENT_TYPE, "application/octet-stream")
            .body(reqwest::Body::wrap_stream(bytes));
        let answer = request.send().await.map_err(|error| self.broken(ATTEMPT, &error))?;
        self.succeeded(ATTEMPT, answer).await.map(|_| ())
    }

    /// Sends a manifest or index; it is known by `version` from then on, a tag or its digest.
    pub(crate) async fn send_manifest(&self, version: &str, media_type: &str, bytes: Vec<u8>) -> Result<(), Failure> {
        let bad = |_| Failure::last(ImageError::malformed("media type of the manifest", media_type));
        let kind = header::HeaderValue::from_str(media_type).map_err(bad)?;
        let request = self.request(Method::PUT, self.url(&format!("manifests/{version}")));
        let request = request.header(header::CONTENT_TYPE, kind).timeout(DOCUMENT_TIME).body(bytes);
        let answer = request.send().await.map_err(|error| self.broken("send the manifest", &error))?;
        self.succeeded("send the manifest", answer).await.map(|_| ())
    }

    /// A registry that does not answer at all.
    fn unreachable(&self, error: &dyn std::error::Error) -> Failure {
        self.silent(chain(error))
    }

    fn silent(&self, reason: String) -> Failure {
        let (registry, name) = (self.host.clone(), self.wanted.familiar());
        Failure { error: ImageError::Unreachable { registry, name, reason }, retry: true, unauthorized: false }
    }

    /// A connection that could not be made or did not last.
    pub(crate) fn broken(&self, attempt: &str, error: &dyn std::error::Error) -> Failure {
        let error =
            ImageError::Registry { registry: self.host.clone(), attempt: attempt.to_owned(), reason: chain(error) };
        Failure { error, retry: true, unauthorized: false }
    }

    /// An answer that is no success.
    fn refused(&self, attempt: &str, status: u16, body: &[u8]) -> Failure {
        let body_text = String::from_utf8_lossy(&body[..body.len().min(512)]).trim().to_owned();
        let parsed: Option<ErrorEntry> =
            serde_json::from_slice::<ErrorBody>(body).ok().and_then(|body| body.errors.into_iter().next());
        let code = parsed.as_ref().map_or("", |entry| entry.code.as_str());
        let message = parsed.as_ref().map_or(body_text, |entry| entry.message.clone());
        let name = self.wanted.familiar_name();
        // Proxies and registries that are down say no more than that.
        if (matches!(status, 403 | 407 | 408) || status >= 500) && body.trim_ascii().is_empty() {
            let silent = self.silent(format!("it answered with status {status} and nothing else"));
            return Failure { retry: status >= 500 || status == 408, ..silent };
        }
        let error = match (status, code) {
            (_, "DENIED") => ImageError::PullDenied { name, message: format!("denied: {message}") },
            // Docker Hub answers so for what does not exist as well: it does not tell strangers which.
            (401, _) if self.auth == RegistryAuth::Anonymous && self.wanted.registry() == "docker.io" => {
                ImageError::PullDenied { name, message: "unauthorized: authentication required".to_owned() }
            }
            (401 | 403, _) => {
                ImageError::Unauthorized { registry: self.host.clone(), repository: self.repository.clone() }
            }
            (_, "NAME_UNKNOWN") => ImageError::PullDenied {
                name,
                message: "name unknown: repository name not known to registry".to_owned(),
            },
            (404, _) => {
                let message = if message.is_empty() { "manifest unknown".to_owned() } else { message };
                ImageError::ManifestUnknown { reference: self.wanted.familiar(), message }
            }
            _ => ImageError::Registry {
                registry: self.host.clone(),
                attempt: attempt.to_owned(),
                reason: format!("it answered with status {status}: {message}"),
            },
        };
        Failure { error, retry: status >= 500 || status == 429 || status == 408, unauthorized: status == 401 }
    }
}

/// What an answer that tells of a failure begins with.
async fn beginning(mut answer: Response) -> Vec<u8> {
    let mut body = Vec::new();
    let read = async {
        while body.len() < ERROR_LIMIT
            && let Ok(Some(chunk)) = answer.chunk().await
        {
            body.extend_from_slice(&chunk);
        }
    };
    // What is there by then says enough.
    let _ = tokio::time::timeout(CONNECT, read).await;
    body.truncate(ERROR_LIMIT);
    body
}

/// Refuses a manifest that says another kind of itself than the registry says of it: two readers would see two images.
///
/// Source: CVE-2021-41190; OCI image specification, `manifest.md`, "mediaType".
fn agree(body: &[u8], sent_as: Option<&str>, what: &str) -> Result<(), ImageError> {
    #[derive(Deserialize)]
    struct Own {
        #[serde(rename = "mediaType")]
        media_type: Option<String>,
    }
    let own = serde_json::from_slice::<Own>(body).ok().and_then(|own| own.media_type);
    let known = |kind: &str| ACCEPT.contains(&kind).then_some(matches!(kind, OCI_INDEX | DOCKER_LIST));
    let (Some(sent_as), Some(own)) = (sent_as, own) else { return Ok(()) };
    match (known(sent_as), known(&own)) {
        (Some(one), Some(other)) if one != other => {
            Err(ImageError::malformed(what, format!("the registry calls it {sent_as}, and it calls itself {own}")))
        }
        _ => Ok(()),
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

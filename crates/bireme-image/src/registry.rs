//! One place where an image may be fetched from or brought to: a registry, or a mirror of one.
//!
//! `oci_client` does authentication and opens blob streams at any offset. What stands here is what it leaves to its
//! user: how much of a manifest is read, what is tried again, and errors in the words Docker's clients know.

use std::net::IpAddr;
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use oci_client::client::{BlobResponse, ClientConfig, ClientProtocol};
use oci_client::errors::{OciDistributionError, OciErrorCode};
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, RegistryOperation};
use serde::Deserialize;

use crate::digest::Digest;
use crate::error::{ImageError, chain};
use crate::model::{ACCEPT, DOCUMENT_LIMIT};
use crate::reference::Reference;
use crate::store::RegistrySettings;

/// How often one request is made before it counts as failed.
pub(crate) const ATTEMPTS: u32 = 5;

/// Silence after which a connection counts as broken.
pub(crate) const SILENCE: Duration = Duration::from_secs(30);
pub(crate) const CONNECT: Duration = Duration::from_secs(15);

/// Time before the next attempt, doubling from a quarter of a second.
pub(crate) async fn back_off(attempt: u32) {
    tokio::time::sleep(Duration::from_millis(250 << attempt.min(5))).await;
}

/// A registry as one pull sees it.
pub(crate) struct Remote {
    /// Host and port.
    host: String,
    http: bool,
    repository: String,
    auth: RegistryAuth,
    operation: RegistryOperation,
    client: Client,
    plain: reqwest::Client,
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
        Self::for_operation(host, is_plain(settings, host), reference, auth, RegistryOperation::Push)
    }

    fn new(host: &str, http: bool, wanted: &Reference, auth: RegistryAuth) -> Result<Self, ImageError> {
        Self::for_operation(host, http, wanted, auth, RegistryOperation::Pull)
    }

    fn for_operation(
        host: &str,
        http: bool,
        wanted: &Reference,
        auth: RegistryAuth,
        operation: RegistryOperation,
    ) -> Result<Self, ImageError> {
        let failed = |error: &dyn std::error::Error| ImageError::Registry {
            registry: host.to_owned(),
            attempt: "prepare a connection".to_owned(),
            reason: chain(error),
        };
        // While a layer is sent, the registry has nothing to say, however long that takes.
        let silence = matches!(operation, RegistryOperation::Pull).then_some(SILENCE);
        let config = ClientConfig {
            protocol: if http { ClientProtocol::Http } else { ClientProtocol::Https },
            connect_timeout: Some(CONNECT),
            read_timeout: silence,
            use_monolithic_push: true,
            user_agent: concat!("bireme/", env!("CARGO_PKG_VERSION")),
            ..ClientConfig::default()
        };
        let client = Client::try_from(config).map_err(|error| failed(&error))?;
        let plain = reqwest::Client::builder()
            .connect_timeout(CONNECT)
            .read_timeout(SILENCE)
            .user_agent(concat!("bireme/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| failed(&error))?;
        let repository = wanted.repository().to_owned();
        Ok(Self { host: host.to_owned(), http, repository, auth, operation, client, plain, wanted: wanted.clone() })
    }

    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    fn place(&self, digest: &str) -> oci_client::Reference {
        oci_client::Reference::with_digest(self.host.clone(), self.repository.clone(), digest.to_owned())
    }

    /// Gets a token, if the registry hands out any. The client keeps it for what follows.
    pub(crate) async fn log_in(&self) -> Result<Option<String>, Failure> {
        let place = self.place("");
        self.client.auth(&place, &self.auth, self.operation).await.map_err(|error| self.failure("authenticate", error))
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
        let token = self.log_in().await?;
        let scheme = if self.http { "http" } else { "https" };
        let place = self.place("");
        let url = format!("{scheme}://{}/v2/{}/manifests/{version}", place.resolve_registry(), self.repository);
        let mut request = self.plain.get(&url).header(reqwest::header::ACCEPT, ACCEPT.join(", "));
        request = match (token, &self.auth) {
            (Some(token), _) => request.bearer_auth(token),
            (None, RegistryAuth::Basic(user, password)) => request.basic_auth(user, Some(password)),
            (None, _) => request,
        };
        let answer = request.send().await.map_err(|error| self.broken("fetch the manifest", &error))?;
        let status = answer.status();
        let promised = answer.headers().get("docker-content-digest").and_then(|value| value.to_str().ok());
        let promised: Option<Digest> = promised.and_then(|digest| digest.parse().ok());
        let what = format!("the manifest of {}", self.wanted.familiar());
        let mut body = Vec::new();
        let mut stream = answer.bytes_stream();
        while let Some(chunk) = stream.next().await {
            let chunk = chunk.map_err(|error| self.broken("fetch the manifest", &error))?;
            body.extend_from_slice(&chunk);
            if body.len() as u64 > DOCUMENT_LIMIT {
                return Err(Failure::last(ImageError::TooLarge { what, limit: DOCUMENT_LIMIT }));
            }
        }
        if !status.is_success() {
            return Err(self.refused("fetch the manifest", status.as_u16(), &body));
        }
        let actual = Digest::of(&body);
        let asked: Option<Digest> = version.parse().ok();
        if let Some(expected) = asked.or(promised)
            && expected != actual
        {
            return Err(Failure::last(ImageError::DigestMismatch { what, expected, actual }));
        }
        Ok((body, actual))
    }

    /// Opens a blob at `offset`; answers the stream and whether it begins there rather than at 0.
    pub(crate) async fn blob(
        &self,
        digest: &Digest,
        offset: u64,
    ) -> Result<(bool, impl Stream<Item = std::io::Result<bytes::Bytes>> + Send + use<>), Failure> {
        let place = self.place(digest.as_str());
        self.client.store_auth_if_needed(place.resolve_registry(), &self.auth).await;
        let answer = self.client.pull_blob_stream_partial(&place, digest.as_str(), offset, None).await;
        match answer {
            Ok(BlobResponse::Full(stream)) => Ok((false, stream.stream)),
            Ok(BlobResponse::Partial(stream)) => Ok((true, stream.stream)),
            Err(error) => {
                let mut failure = self.failure("fetch a layer", error);
                if let ImageError::ManifestUnknown { .. } = failure.error {
                    failure.error = ImageError::MissingBlob {
                        what: "the registry has no layer".to_owned(),
                        digest: digest.to_string(),
                    };
                }
                Err(failure)
            }
        }
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
        let found = self.client.blob_exists(&self.place(digest.as_str()), digest.as_str()).await;
        found.map_err(|error| self.failure("look for a layer", error))
    }

    /// Sends a blob of `size` bytes.
    pub(crate) async fn send_blob(
        &self,
        digest: &Digest,
        size: u64,
        bytes: impl Stream<Item = std::io::Result<bytes::Bytes>> + Send + 'static,
    ) -> Result<(), Failure> {
        let bytes = bytes.map(|piece| piece.map_err(OciDistributionError::from));
        let sent = self.client.push_blob_stream(&self.place(digest.as_str()), bytes, digest.as_str(), Some(size)).await;
        sent.map(|_| ()).map_err(|error| self.failure("send a layer", error))
    }

    /// Sends a manifest or index; it is known by `version` from then on, a tag or its digest.
    pub(crate) async fn send_manifest(&self, version: &str, media_type: &str, bytes: Vec<u8>) -> Result<(), Failure> {
        let place = match version.parse::<Digest>() {
            Ok(digest) => self.place(digest.as_str()),
            Err(_) => oci_client::Reference::with_tag(self.host.clone(), self.repository.clone(), version.to_owned()),
        };
        let bad = |_| Failure::last(ImageError::malformed("media type of the manifest", media_type));
        let kind = reqwest::header::HeaderValue::from_str(media_type).map_err(bad)?;
        let sent = self.client.push_manifest_raw(&place, bytes, kind).await;
        sent.map(|_| ()).map_err(|error| self.failure("send the manifest", error))
    }

    /// A connection that could not be made or did not last.
    pub(crate) fn broken(&self, attempt: &str, error: &dyn std::error::Error) -> Failure {
        let error =
            ImageError::Registry { registry: self.host.clone(), attempt: attempt.to_owned(), reason: chain(error) };
        Failure { error, retry: true, unauthorized: false }
    }

    fn failure(&self, attempt: &str, error: OciDistributionError) -> Failure {
        match error {
            OciDistributionError::UnauthorizedError { .. } => self.refused(attempt, 401, b""),
            OciDistributionError::AuthenticationFailure(reason) => self.refused(attempt, 401, reason.as_bytes()),
            OciDistributionError::RegistryError { envelope, .. } => match envelope.errors.first() {
                Some(first) => self.named(attempt, &first.code, &first.message),
                None => self.refused(attempt, 400, b""),
            },
            OciDistributionError::ServerError { code, message, .. } => self.refused(attempt, code, message.as_bytes()),
            error @ OciDistributionError::RequestError(_) => self.broken(attempt, &error),
            other => {
                let reason = chain(&other);
                let registry = self.host.clone();
                Failure::last(ImageError::Registry { registry, attempt: attempt.to_owned(), reason })
            }
        }
    }

    fn named(&self, attempt: &str, code: &OciErrorCode, message: &str) -> Failure {
        let message = message.to_owned();
        let error = match code {
            OciErrorCode::Unauthorized => return self.refused(attempt, 401, b""),
            OciErrorCode::Denied => {
                let name = self.wanted.familiar_name();
                ImageError::PullDenied { name, message: format!("denied: {message}") }
            }
            OciErrorCode::ManifestUnknown
            | OciErrorCode::NameUnknown
            | OciErrorCode::NotFound
            | OciErrorCode::BlobUnknown
            | OciErrorCode::ManifestBlobUnknown => {
                ImageError::ManifestUnknown { reference: self.wanted.familiar(), message }
            }
            OciErrorCode::Toomanyrequests => return self.refused(attempt, 429, message.as_bytes()),
            other => ImageError::Registry {
                registry: self.host.clone(),
                attempt: attempt.to_owned(),
                reason: format!("{other:?}: {message}"),
            },
        };
        Failure::last(error)
    }

    /// An answer that is no success.
    fn refused(&self, attempt: &str, status: u16, body: &[u8]) -> Failure {
        let body_text = String::from_utf8_lossy(&body[..body.len().min(512)]).trim().to_owned();
        let parsed: Option<ErrorEntry> =
            serde_json::from_slice::<ErrorBody>(body).ok().and_then(|body| body.errors.into_iter().next());
        let code = parsed.as_ref().map_or("", |entry| entry.code.as_str());
        let message = parsed.as_ref().map_or(body_text, |entry| entry.message.clone());
        let name = self.wanted.familiar_name();
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

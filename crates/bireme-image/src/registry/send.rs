//! Layers and manifests brought to a registry.
//!
//! Source: OCI distribution specification, "Push".

use futures::Stream;
use reqwest::{Method, StatusCode, header};

use super::failure::Failure;
use super::{DOCUMENT_TIME, Remote};
use crate::digest::Digest;
use crate::error::ImageError;

impl Remote {
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
}

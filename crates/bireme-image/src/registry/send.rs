//! Layers and manifests brought to a registry.
//!
//! Source: OCI distribution specification, "Push".

use futures::Stream;
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url, header};

use super::failure::Failure;
use super::{DOCUMENT_TIME, Remote};
use crate::digest::Digest;
use crate::error::ImageError;

/// Bytes of one piece of a layer for a registry that takes no more at once, unless it wants larger ones.
pub(crate) const PIECE: u64 = 16 << 20;

/// The largest pieces that a registry may want.
const MOST_PIECE: u64 = 256 << 20;

const ATTEMPT: &str = "send a layer";

/// A layer that is being sent.
pub(crate) struct Upload {
    /// Where what follows goes.
    place: Url,
    /// The registry takes no smaller pieces but the last.
    pub(crate) least: u64,
}

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

    /// Begins to send a blob.
    pub(crate) async fn start_upload(&self) -> Result<Upload, Failure> {
        let start = self.request(Method::POST, self.url("blobs/uploads/"));
        let answer = self.answered(start.header(header::CONTENT_LENGTH, 0)).await?;
        self.upload(&answer).map_err(Failure::last)
    }

    /// Asks the registry to take a blob from another of its repositories. One that does not begins an upload, which is answered.
    pub(crate) async fn mount(&self, digest: &Digest, from: &str) -> Result<Option<Upload>, Failure> {
        let mut url = self.url("blobs/uploads/");
        url.query_pairs_mut().append_pair("mount", digest.as_str()).append_pair("from", from);
        let answer = self.answered(self.request(Method::POST, url).header(header::CONTENT_LENGTH, 0)).await?;
        if answer.status() == StatusCode::CREATED {
            return Ok(None);
        }
        self.upload(&answer).map(Some).map_err(Failure::last)
    }

    async fn answered(&self, request: RequestBuilder) -> Result<Response, Failure> {
        let answer = request.timeout(DOCUMENT_TIME).send().await.map_err(|error| self.broken(ATTEMPT, &error))?;
        self.succeeded(ATTEMPT, answer).await
    }

    /// Where an answer sends what follows.
    fn upload(&self, answer: &Response) -> Result<Upload, ImageError> {
        let text = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok());
        let bad = |reason: String| {
            let (registry, attempt) = (self.host.clone(), ATTEMPT.to_owned());
            ImageError::Registry { registry, attempt, reason }
        };
        // Relative to what was asked.
        let place = answer.url().join(text("location").unwrap_or_default());
        let place = place.map_err(|error| bad(format!("it does not say where to: {error}")))?;
        if place.scheme() != self.base.scheme() && place.scheme() != "https" {
            return Err(bad(format!("it wants the layer at {place}, which is no encrypted place")));
        }
        let least = text("oci-chunk-min-length").and_then(|value| value.parse().ok()).unwrap_or(0);
        Ok(Upload { place, least: least.min(MOST_PIECE) })
    }

    /// Sends a blob of `size` bytes at once.
    pub(crate) async fn send_blob(
        &self,
        upload: Upload,
        digest: &Digest,
        size: u64,
        bytes: impl Stream<Item = std::io::Result<bytes::Bytes>> + Send + 'static,
    ) -> Result<(), Failure> {
        let mut place = upload.place;
        place.query_pairs_mut().append_pair("digest", digest.as_str());
        let request = self
            .request(Method::PUT, place)
            .header(header::CONTENT_LENGTH, size)
            .header(header::CONTENT_TYPE, "application/octet-stream")
            .body(reqwest::Body::wrap_stream(bytes));
        let answer = request.send().await.map_err(|error| self.broken(ATTEMPT, &error))?;
        self.succeeded(ATTEMPT, answer).await.map(|_| ())
    }

    /// Sends what of a blob begins at `at`; answers where the next piece does.
    pub(crate) async fn send_piece(&self, upload: &mut Upload, at: u64, content: Vec<u8>) -> Result<u64, Failure> {
        let length = content.len() as u64;
        let request = self
            .request(Method::PATCH, upload.place.clone())
            .header(header::CONTENT_LENGTH, length)
            .header(header::CONTENT_RANGE, format!("{at}-{}", (at + length).saturating_sub(1)))
            .header(header::CONTENT_TYPE, "application/octet-stream")
            .body(content);
        let answer = request.send().await.map_err(|error| self.broken(ATTEMPT, &error))?;
        if answer.status() == StatusCode::RANGE_NOT_SATISFIABLE {
            // It has more or less of it than we know: it is asked.
            let error = std::io::Error::other("it wants another piece of the layer than was sent");
            return Err(self.broken(ATTEMPT, &error));
        }
        let answer = self.succeeded(ATTEMPT, answer).await?;
        *upload = Upload { least: upload.least, ..self.upload(&answer).map_err(Failure::last)? };
        Ok(has(&answer).unwrap_or(at + length))
    }

    /// How much of a blob the registry has.
    pub(crate) async fn arrived(&self, upload: &mut Upload) -> Result<u64, Failure> {
        let answer = self.answered(self.request(Method::GET, upload.place.clone())).await?;
        if answer.headers().contains_key(header::LOCATION) {
            *upload = Upload { least: upload.least, ..self.upload(&answer).map_err(Failure::last)? };
        }
        Ok(has(&answer).unwrap_or(0))
    }

    /// Ends a blob that was sent in pieces.
    pub(crate) async fn finish_upload(&self, upload: &Upload, digest: &Digest) -> Result<(), Failure> {
        let mut place = upload.place.clone();
        place.query_pairs_mut().append_pair("digest", digest.as_str());
        let request = self.request(Method::PUT, place).header(header::CONTENT_LENGTH, 0);
        self.answered(request).await.map(|_| ())
    }

    /// Sends a manifest or index; it is known by `version` from then on, a tag or its digest. Answers whether the registry
    /// lists it among what refers to its subject.
    pub(crate) async fn send_manifest(&self, version: &str, media_type: &str, bytes: Vec<u8>) -> Result<bool, Failure> {
        let bad = |_| Failure::last(ImageError::malformed("media type of the manifest", media_type));
        let kind = header::HeaderValue::from_str(media_type).map_err(bad)?;
        let request = self.request(Method::PUT, self.url(&format!("manifests/{version}")));
        let request = request.header(header::CONTENT_TYPE, kind).timeout(DOCUMENT_TIME).body(bytes);
        let answer = request.send().await.map_err(|error| self.broken("send the manifest", &error))?;
        let answer = self.succeeded("send the manifest", answer).await?;
        Ok(answer.headers().contains_key("oci-subject"))
    }
}

/// How much of an upload is there: `Range: 0-99` is a hundred bytes.
fn has(answer: &Response) -> Option<u64> {
    let range = answer.headers().get(header::RANGE)?.to_str().ok()?;
    let (first, last) = range.strip_prefix("bytes=").unwrap_or(range).split_once('-')?;
    let last: u64 = last.parse().ok()?;
    // Nothing at all cannot be told in these words: some say 0-0, and mean it.
    (first == "0").then(|| if last == 0 { 0 } else { last.saturating_add(1) })
}

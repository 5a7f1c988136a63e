//! Manifests, configurations and layers, fetched and held against what was promised.
//!
//! Source: OCI distribution specification, "Pull".

use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};
use reqwest::{Method, StatusCode, header};
use serde::Deserialize;

use super::failure::Failure;
use super::{DOCUMENT_TIME, Remote, Tries};
use crate::digest::Digest;
use crate::error::ImageError;
use crate::model::{ACCEPT, DOCKER_LIST, DOCUMENT_LIMIT, OCI_INDEX};

impl Remote {
    /// Fetches a manifest or index by tag or digest, with retries.
    pub(crate) async fn manifest(&self, version: &str) -> Result<(Vec<u8>, Digest), ImageError> {
        let mut tries = Tries::default();
        loop {
            match self.manifest_once(version).await {
                Ok(found) => return Ok(found),
                Err(failure) => tries.again(self, failure).await?,
            }
        }
    }

    async fn manifest_once(&self, version: &str) -> Result<(Vec<u8>, Digest), Failure> {
        self.logged_in().await?;
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

    /// The registry's list of what refers to a manifest; `None` if it keeps no such lists. With retries.
    ///
    /// Source: OCI distribution specification 1.1, "Listing Referrers".
    pub(crate) async fn referrers(
        &self,
        digest: &Digest,
        artifact_type: Option<&str>,
    ) -> Result<Option<Vec<u8>>, ImageError> {
        let mut tries = Tries::default();
        loop {
            match self.referrers_once(digest, artifact_type).await {
                Ok(found) => return Ok(found),
                Err(failure) => tries.again(self, failure).await?,
            }
        }
    }

    async fn referrers_once(&self, digest: &Digest, artifact_type: Option<&str>) -> Result<Option<Vec<u8>>, Failure> {
        const ATTEMPT: &str = "list referrers";
        self.logged_in().await?;
        let mut url = self.url(&format!("referrers/{digest}"));
        if let Some(kind) = artifact_type {
            url.query_pairs_mut().append_pair("artifactType", kind);
        }
        let request = self.request(Method::GET, url).header(header::ACCEPT, OCI_INDEX).timeout(DOCUMENT_TIME);
        let answer = request.send().await.map_err(|error| self.unreachable(&error))?;
        // Older ones know no such address, or take it for something else.
        if matches!(answer.status(), StatusCode::NOT_FOUND | StatusCode::BAD_REQUEST | StatusCode::METHOD_NOT_ALLOWED) {
            return Ok(None);
        }
        let answer = self.succeeded(ATTEMPT, answer).await?;
        let what = format!("the list of what refers to {digest}");
        self.whole(ATTEMPT, answer, &what).await.map(Some)
    }

    /// Opens a blob at `offset`; answers the stream and whether it begins there rather than at 0.
    pub(crate) async fn blob(
        &self,
        digest: &Digest,
        offset: u64,
    ) -> Result<(bool, BoxStream<'static, std::io::Result<bytes::Bytes>>), Failure> {
        self.logged_in().await?;
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
        let mut tries = Tries::default();
        loop {
            match self.document_once(digest, size, what).await {
                Ok(bytes) => return Ok(bytes),
                Err(failure) => tries.again(self, failure).await?,
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

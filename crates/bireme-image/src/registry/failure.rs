//! Answers of a registry: whole, or what they say went wrong.
//!
//! Source: OCI distribution specification, "Error Codes".

use std::time::Duration;

use bireme_core::error::chain;
use chrono::{DateTime, Utc};
use reqwest::{Response, header};
use serde::Deserialize;

use super::{CONNECT, Remote};
use crate::auth::RegistryAuth;
use crate::error::ImageError;
use crate::model::DOCUMENT_LIMIT;

/// Bytes of an answer that tells of a failure.
const ERROR_LIMIT: usize = 64 << 10;

/// Why a request failed, and whether another attempt makes sense.
pub(crate) struct Failure {
    pub(crate) error: ImageError,
    pub(crate) retry: bool,
    /// The token may have run out.
    pub(crate) unauthorized: bool,
    /// How long the registry wants to be left alone.
    pub(crate) after: Option<Duration>,
    /// What was sent is more than is taken at once.
    pub(crate) too_large: bool,
}

impl Failure {
    pub(crate) fn last(error: ImageError) -> Self {
        Self { error, retry: false, unauthorized: false, after: None, too_large: false }
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
    /// The answer, unless it tells of a failure.
    pub(super) async fn succeeded(&self, attempt: &str, answer: Response) -> Result<Response, Failure> {
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let after = answer.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
        let after = after.and_then(|value| retry_after(value, Utc::now()));
        let failure = self.refused(attempt, status.as_u16(), &beginning(answer).await);
        Err(Failure { after, ..failure })
    }

    /// A whole answer, if it is no larger than a document may be.
    pub(super) async fn whole(&self, attempt: &str, mut answer: Response, what: &str) -> Result<Vec<u8>, Failure> {
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(|error| self.broken(attempt, &error))? {
            if (body.len() + chunk.len()) as u64 > DOCUMENT_LIMIT {
                return Err(Failure::last(ImageError::TooLarge { what: what.to_owned(), limit: DOCUMENT_LIMIT }));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    /// A registry that does not answer at all.
    pub(super) fn unreachable(&self, error: &dyn std::error::Error) -> Failure {
        self.silent(chain(error))
    }

    fn silent(&self, reason: String) -> Failure {
        let (registry, name) = (self.host.clone(), self.wanted.familiar());
        Failure { retry: true, ..Failure::last(ImageError::Unreachable { registry, name, reason }) }
    }

    /// A connection that could not be made or did not last.
    pub(crate) fn broken(&self, attempt: &str, error: &dyn std::error::Error) -> Failure {
        let error =
            ImageError::Registry { registry: self.host.clone(), attempt: attempt.to_owned(), reason: chain(error) };
        Failure { retry: true, ..Failure::last(error) }
    }

    /// An answer that is no success.
    pub(super) fn refused(&self, attempt: &str, status: u16, body: &[u8]) -> Failure {
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
        let retry = status >= 500 || status == 429 || status == 408;
        Failure { retry, unauthorized: status == 401, too_large: status == 413, ..Failure::last(error) }
    }
}

/// What an answer that tells of a failure begins with.
pub(super) async fn beginning(mut answer: Response) -> Vec<u8> {
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

/// How long to wait, of `Retry-After`: seconds, or a date.
fn retry_after(value: &str, now: DateTime<Utc>) -> Option<Duration> {
    if let Ok(seconds) = value.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = DateTime::parse_from_rfc2822(value.trim()).ok()?;
    Some((date.to_utc() - now).to_std().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_long_to_wait_is_told_in_seconds_or_as_a_date() {
        let now = DateTime::parse_from_rfc3339("2026-01-02T03:04:05Z").unwrap().to_utc();
        for (value, seconds) in [
            ("7", Some(7)),
            (" 0 ", Some(0)),
            ("Fri, 02 Jan 2026 03:05:05 GMT", Some(60)),
            ("Fri, 02 Jan 2026 03:00:00 GMT", Some(0)),
            ("soon", None),
            ("-1", None),
            ("99999999999999999999999", None),
        ] {
            assert_eq!(retry_after(value, now), seconds.map(Duration::from_secs), "{value}");
        }
    }
}

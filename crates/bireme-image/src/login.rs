//! Asking registries what is not about one image: whether they take somebody's credentials, and what they find.

use bireme_core::error::chain;
use reqwest::{Response, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::auth::{Challenge, RegistryAuth, TokenWish, token};
use crate::error::ImageError;
use crate::model::{First, null_default};
use crate::registry::{CONNECT, DOCUMENT_TIME, HUB, SILENCE, client, is_plain, own_place, trusting};
use crate::store::ImageStore;

/// Where Docker Hub is asked for what is not an image.
const HUB_INDEX: &str = "index.docker.io";

/// Bytes of an answer that are read.
const ANSWER_LIMIT: u64 = 4 << 20;

impl ImageStore {
    /// Asks the registry at `server` whether it takes these credentials; empty is Docker Hub. Answers a token that stands for
    /// the password from now on, where the registry hands out such.
    ///
    /// # Errors
    /// `Login` when it does not, `Registry` when it cannot be asked.
    /// # Cancel safety
    /// Dropping the future ends the question; nothing is stored either way.
    ///
    /// Source: `loginV2` of moby; Docker Registry v2 authentication, token and basic.
    pub async fn check_credentials(&self, server: &str, auth: &RegistryAuth) -> Result<Option<String>, ImageError> {
        let host = host_of(server);
        let host = if matches!(host, "" | HUB_INDEX | HUB) { "docker.io" } else { host };
        let place = own_place(&self.inner.settings, host)?;
        let client = client(&place, true)?;
        let url = place.root.as_str();
        let get = || place.manner.header.iter().fold(client.get(url), |get, (name, value)| get.header(name, value));
        let get = || get().timeout(DOCUMENT_TIME);
        let failed = |error: &reqwest::Error| unreachable(host, "log in", error);
        let first = get().send().await.map_err(|error| failed(&error))?;
        if first.status().is_success() {
            return Ok(None);
        }
        let (request, identity) = match (Challenge::of(&first), auth) {
            (Some(Challenge::Basic), RegistryAuth::Basic(name, password)) => {
                (get().basic_auth(name, Some(password)), None)
            }
            (Some(Challenge::Bearer { realm, service }), _) => {
                let wish = TokenWish { realm: &realm, service: &service, scopes: &[], to_keep: true };
                let plain = place.root.scheme() == "http";
                let asked = wish.request(&client, auth, plain).map_err(|reason| refused(host, &reason))?;
                let answer = asked.timeout(DOCUMENT_TIME).send().await.map_err(|error| failed(&error))?;
                judge(url, host, answer.status())?;
                let handed = token(&whole(host, answer).await?).map_err(|reason| refused(host, &reason))?;
                (get().bearer_auth(handed.token), handed.identity)
            }
            (Some(Challenge::Basic), _) => return Err(ImageError::Login { url: url.to_owned() }),
            (None, _) => return judge(url, host, first.status()).map(|()| None),
        };
        let second = request.send().await.map_err(|error| failed(&error))?;
        judge(url, host, second.status()).map(|()| identity)
    }

    /// What an index finds for `term`, which may begin with the index's host; Docker Hub's otherwise.
    ///
    /// # Errors
    /// `Index` when it cannot be asked or refuses; `Registry` when it answers nothing of sense.
    /// # Cancel safety
    /// Dropping the future ends the question; nothing is stored either way.
    ///
    /// Source: `GET /v1/search` of the index, which Docker Hub and private indexes serve.
    pub async fn search(&self, term: &str, limit: usize, auth: Option<RegistryAuth>) -> Result<Vec<Found>, ImageError> {
        let (host, term) = match term.split_once('/') {
            Some((host, rest)) if host == "localhost" || host.contains(['.', ':']) => (host, rest),
            _ => (HUB_INDEX, term),
        };
        let host = if host == "docker.io" { HUB_INDEX } else { host };
        let scheme = if is_plain(&self.inner.settings, host) { "http" } else { "https" };
        let base = format!("{scheme}://{host}/v1/");
        let failed = |error: &reqwest::Error| ImageError::Index { url: base.clone(), reason: chain(error) };
        let mut url = reqwest::Url::parse(&format!("{base}search"))
            .map_err(|error| ImageError::Index { url: base.clone(), reason: error.to_string() })?;
        url.query_pairs_mut().append_pair("q", term).append_pair("n", &limit.to_string());
        let mut request = plain_client().map_err(|error| failed(&error))?.get(url);
        if let Some(RegistryAuth::Basic(name, password)) = auth {
            request = request.basic_auth(name, Some(password));
        }
        let answer = request.send().await.map_err(|error| failed(&error))?;
        if !answer.status().is_success() {
            let reason = format!("Unexpected status code {}", answer.status().as_u16());
            return Err(ImageError::Index { url: base, reason });
        }
        #[derive(Deserialize)]
        struct Results {
            #[serde(default)]
            results: First<Found, MOST_FOUND>,
        }
        Ok(json::<Results>(host, answer).await?.results.0)
    }
}

/// Images that one search answers at most, whatever it was asked for.
const MOST_FOUND: usize = 1000;

/// An image as an index tells of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Found {
    /// Its repository there, such as `library/alpine` or `alpine`.
    #[serde(deserialize_with = "null_default")]
    pub name: String,
    /// One line by its owner.
    #[serde(deserialize_with = "null_default")]
    pub description: String,
    /// How many users of the index marked it.
    #[serde(deserialize_with = "null_default")]
    pub star_count: i64,
    /// It is one of Docker's own.
    #[serde(deserialize_with = "null_default")]
    pub is_official: bool,
    /// The index built it from sources. Docker Hub answers `false` for all.
    #[serde(deserialize_with = "null_default")]
    pub is_automated: bool,
}

/// The host and port of what people write for a registry.
fn host_of(server: &str) -> &str {
    let rest = server.split_once("://").map_or(server, |(_, rest)| rest);
    rest.split('/').next().unwrap_or_default()
}

fn plain_client() -> Result<reqwest::Client, reqwest::Error> {
    trusting(reqwest::Client::builder())
        .connect_timeout(CONNECT)
        .read_timeout(SILENCE)
        .timeout(DOCUMENT_TIME)
        .user_agent(concat!("bireme/", env!("CARGO_PKG_VERSION")))
        .build()
}

fn unreachable(host: &str, attempt: &str, error: &reqwest::Error) -> ImageError {
    ImageError::Registry { registry: host.to_owned(), attempt: attempt.to_owned(), reason: chain(error) }
}

fn refused(host: &str, reason: &str) -> ImageError {
    ImageError::Registry { registry: host.to_owned(), attempt: "log in".to_owned(), reason: reason.to_owned() }
}

fn judge(url: &str, host: &str, status: StatusCode) -> Result<(), ImageError> {
    match status {
        status if status.is_success() => Ok(()),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(ImageError::Login { url: url.to_owned() }),
        status => Err(refused(host, &format!("it answered with status {}", status.as_u16()))),
    }
}

async fn json<T: DeserializeOwned>(host: &str, answer: Response) -> Result<T, ImageError> {
    let body = whole(host, answer).await?;
    serde_json::from_slice(&body).map_err(|error| refused(host, &format!("it answered no JSON: {error}")))
}

async fn whole(host: &str, mut answer: Response) -> Result<Vec<u8>, ImageError> {
    let mut body = Vec::new();
    while let Some(piece) = answer.chunk().await.map_err(|error| unreachable(host, "read the answer", &error))? {
        body.extend_from_slice(&piece);
        if body.len() as u64 > ANSWER_LIMIT {
            return Err(ImageError::TooLarge { what: format!("the answer of {host}"), limit: ANSWER_LIMIT });
        }
    }
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_its_host() {
        for (text, host) in [
            ("https://index.docker.io/v1/", "index.docker.io"),
            ("a.b:5000", "a.b:5000"),
            ("http://a/v2", "a"),
            ("", ""),
        ] {
            assert_eq!(host_of(text), host, "{text}");
        }
    }
}

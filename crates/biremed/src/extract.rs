//! Reading requests as dockerd reads them: query parameters, JSON bodies, registry credentials.

use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, Request};
use base64::Engine as _;
use bireme_image::RegistryAuth;
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::de::DeserializeOwned;

use crate::convert::Filters;
use crate::error::ApiError;
use crate::version::ApiVersion;

/// Bytes of a JSON body. A seccomp profile inside it is the largest thing anyone sends.
const JSON_LIMIT: usize = 4 << 20;

/// The query of a request.
#[derive(Clone, Debug, Default)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// The first value; an empty one is none.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    /// Every value that is not empty.
    pub fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(key, value)| key == name && !value.is_empty()).map(|(_, value)| value.as_str())
    }

    /// Docker's `BoolValue`: anything but nothing, `0`, `no`, `false` and `none`.
    pub fn flag(&self, name: &str) -> bool {
        self.flag_or(name, false)
    }

    /// As [`Self::flag`] where the absent parameter means `default`.
    pub fn flag_or(&self, name: &str, default: bool) -> bool {
        match self.0.iter().find(|(key, _)| key == name) {
            None => default,
            Some((_, value)) => {
                !matches!(value.trim().to_ascii_lowercase().as_str(), "" | "0" | "no" | "false" | "none")
            }
        }
    }

    /// # Errors
    /// `Invalid` when the value is not a whole number.
    pub fn number<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>, ApiError> {
        match self.get(name) {
            None => Ok(None),
            Some(text) => match text.parse() {
                Ok(number) => Ok(Some(number)),
                Err(_) => Err(ApiError::invalid(format!("invalid value {text:?} for {name}: expected a whole number"))),
            },
        }
    }

    /// The `filters` parameter.
    ///
    /// # Errors
    /// `Invalid` when it is not JSON of the right shape, or has a filter that is not one of `known`.
    pub fn filters(&self, known: &[&str]) -> Result<Filters, ApiError> {
        Ok(Filters::parse(self.get("filters").unwrap_or_default(), known)?)
    }

    /// A point in time as Unix seconds with a fraction, or RFC 3339. `None` when absent or `0`.
    ///
    /// # Errors
    /// `Invalid` for anything else.
    pub fn time(&self, name: &str) -> Result<Option<i64>, ApiError> {
        match self.get(name) {
            None | Some("0") => Ok(None),
            Some(text) => Ok(Some(crate::convert::time::parse(text)?)),
        }
    }
}

impl<S: Sync> FromRequestParts<S> for Query {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        match axum::extract::Query::<Vec<(String, String)>>::try_from_uri(&parts.uri) {
            Ok(pairs) => Ok(Self(pairs.0)),
            Err(error) => Err(ApiError::invalid(format!("the query cannot be read: {error}"))),
        }
    }
}

impl<S: Sync> FromRequestParts<S> for ApiVersion {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        Ok(parts.extensions.get().copied().unwrap_or(Self::MAX))
    }
}

/// A JSON body that must be there.
pub struct Json<T>(pub T);

impl<T: DeserializeOwned, S: Sync> FromRequest<S> for Json<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        match read_json(request).await? {
            Some(value) => Ok(Self(value)),
            None => Err(ApiError::invalid("invalid JSON: got EOF while reading request body")),
        }
    }
}

/// A JSON body that may be left out.
pub struct OptionalJson<T>(pub T);

impl<T: DeserializeOwned + Default, S: Sync> FromRequest<S> for OptionalJson<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        Ok(Self(read_json(request).await?.unwrap_or_default()))
    }
}

async fn read_json<T: DeserializeOwned>(request: Request) -> Result<Option<T>, ApiError> {
    let (parts, body) = request.into_parts();
    let bytes = collect(body, JSON_LIMIT).await?;
    // Go reads a `null` as nothing at all.
    if matches!(bytes.trim_ascii(), b"" | b"null") {
        return Ok(None);
    }
    let kind = parts.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = kind.split(';').next().unwrap_or_default().trim();
    if !essence.is_empty() && !essence.eq_ignore_ascii_case("application/json") {
        return Err(ApiError::invalid(format!(
            "unsupported Content-Type header ({essence}): must be 'application/json'"
        )));
    }
    crate::json::read(&bytes).map(Some).map_err(ApiError::invalid)
}

async fn collect(body: Body, limit: usize) -> Result<Bytes, ApiError> {
    match Limited::new(body, limit).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            Err(ApiError::invalid(format!("request body too large: at most {limit} bytes are read")))
        }
        Err(error) => Err(ApiError::invalid(format!("the request body broke off: {error}"))),
    }
}

/// The credentials of `X-Registry-Auth`: base64url of JSON, with or without padding. `None` when it holds none.
///
/// # Errors
/// `Invalid` when the header cannot be decoded.
pub fn registry_auth(headers: &HeaderMap) -> Result<Option<RegistryAuth>, ApiError> {
    let Some(value) = headers.get("x-registry-auth") else { return Ok(None) };
    if matches!(value.to_str().map(|text| text.trim_end_matches('=')), Ok("" | "null")) {
        return Ok(None);
    }
    header_json::<Credentials>(value, "X-Registry-Auth").map(|found| found.and_then(Credentials::auth))
}

/// What a header of base64url with or without padding, or of plain base64, holds as JSON; `None` for an empty one.
///
/// # Errors
/// `Invalid`, with the name of the header, when it cannot be decoded.
pub fn header_json<T: DeserializeOwned>(value: &HeaderValue, name: &str) -> Result<Option<T>, ApiError> {
    let malformed = || ApiError::invalid(format!("invalid {name} header: must be base64url-encoded JSON"));
    let text = value.to_str().map_err(|_| malformed())?.trim_end_matches('=');
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD
        .decode(text)
        .or_else(|_| base64::engine::general_purpose::STANDARD_NO_PAD.decode(text))
        .map_err(|_| malformed())?;
    if bytes.is_empty() {
        return Ok(None);
    }
    serde_json::from_slice(&bytes).map(Some).map_err(|_| malformed())
}

/// What clients say of who asks a registry, in all its forms; null is as good as nothing.
#[derive(Default, serde::Deserialize)]
#[serde(default)]
pub struct Credentials {
    /// The account.
    pub username: Option<String>,
    /// Its password, or a token that is used as one.
    pub password: Option<String>,
    /// Name and password as Docker's file keeps them: joined by a colon, in base64.
    pub auth: Option<String>,
    /// Handed out at a login in exchange for a password.
    pub identitytoken: Option<String>,
    /// Shown to the registry as it is.
    pub registrytoken: Option<String>,
    /// The registry, as the client knows it.
    pub serveraddress: Option<String>,
}

impl Credentials {
    /// Who asks; `None` if nothing says it. Of several forms the one that needs no password counts, as in moby.
    pub fn auth(self) -> Option<RegistryAuth> {
        let filled = |text: Option<String>| text.filter(|text| !text.is_empty());
        if let Some(token) = filled(self.registrytoken) {
            return Some(RegistryAuth::Bearer(token));
        }
        if let Some(token) = filled(self.identitytoken) {
            return Some(RegistryAuth::Identity(token));
        }
        if let Some(name) = filled(self.username) {
            return Some(RegistryAuth::Basic(name, self.password.unwrap_or_default()));
        }
        let pair = base64::engine::general_purpose::STANDARD.decode(filled(self.auth)?).ok()?;
        let pair = String::from_utf8(pair).ok()?;
        let (name, password) = pair.trim_end_matches('\0').split_once(':')?;
        Some(RegistryAuth::Basic(name.to_owned(), password.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn booleans_are_dockers() {
        let query = Query(
            [("a", "1"), ("b", "0"), ("c", "False"), ("d", ""), ("e", "yes")]
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .to_vec(),
        );
        let flags: Vec<bool> = ["a", "b", "c", "d", "e", "f"].iter().map(|name| query.flag(name)).collect();
        assert_eq!(flags, [true, false, false, false, true, false]);
        assert!(query.flag_or("f", true));
    }

    fn check_auth(value: &str, expected: Result<Option<RegistryAuth>, &str>) {
        let mut headers = HeaderMap::new();
        headers.insert("x-registry-auth", value.parse().unwrap());
        let got = registry_auth(&headers);
        assert_eq!(got.map_err(|error| error.message().to_owned()), expected.map_err(str::to_owned), "{value}");
    }

    #[test]
    fn credentials_are_decoded() {
        check_auth("e30=", Ok(None));
        check_auth("e30", Ok(None));
        // {"username":"u","password":"p?>"}
        let basic = |name: &str, password: &str| RegistryAuth::Basic(name.to_owned(), password.to_owned());
        check_auth("eyJ1c2VybmFtZSI6InUiLCJwYXNzd29yZCI6InA_PiJ9", Ok(Some(basic("u", "p?>"))));
        check_auth("!!!", Err("invalid X-Registry-Auth header: must be base64url-encoded JSON"));
        for (wire, auth) in [
            (r#"{"identitytoken":"t","username":null}"#, Some(RegistryAuth::Identity("t".to_owned()))),
            (r#"{"registrytoken":"t","identitytoken":"x"}"#, Some(RegistryAuth::Bearer("t".to_owned()))),
            (r#"{"auth":"bWU6YTpi"}"#, Some(basic("me", "a:b"))),
            (r#"{"auth":"?","email":"x"}"#, None),
            (r#"{"username":"","password":"x"}"#, None),
        ] {
            check_auth(&base64::engine::general_purpose::URL_SAFE.encode(wire), Ok(auth));
        }
    }
}

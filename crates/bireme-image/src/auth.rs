//! Who asks a registry, and how it is told.
//!
//! Source: distribution's "Token Authentication Specification"; RFC 9110, 11.6.1.

use std::fmt;

use reqwest::{RequestBuilder, Response, Url, header};

/// Who asks a registry. `Debug` hides the secrets.
#[derive(Clone, PartialEq, Eq)]
pub enum RegistryAuth {
    /// Nobody in particular.
    Anonymous,
    /// Name and password.
    Basic(String, String),
    /// Whoever holds this token.
    Bearer(String),
    /// Whoever a login was for: a token that others are handed out for.
    Identity(String),
}

impl fmt::Debug for RegistryAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anonymous => f.write_str("Anonymous"),
            Self::Basic(name, _) => write!(f, "Basic({name:?}, …)"),
            Self::Bearer(_) => f.write_str("Bearer(…)"),
            Self::Identity(_) => f.write_str("Identity(…)"),
        }
    }
}

/// What a registry asks for in `WWW-Authenticate`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Challenge {
    Basic,
    Bearer { realm: String, service: String },
}

impl Challenge {
    /// What an answer asks for, of several the token.
    pub(crate) fn of(answer: &Response) -> Option<Self> {
        let all = answer.headers().get_all(header::WWW_AUTHENTICATE);
        let mut all: Vec<Self> = all.iter().filter_map(|value| Self::parse(value.to_str().ok()?)).collect();
        let bearer = all.iter().position(|challenge| matches!(challenge, Self::Bearer { .. }));
        (!all.is_empty()).then(|| all.swap_remove(bearer.unwrap_or(0)))
    }

    /// `None` for a scheme that is not spoken here: nobody's password is sent for one.
    fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once(' ').unwrap_or((text, ""));
        if scheme.eq_ignore_ascii_case("basic") {
            return Some(Self::Basic);
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let field = |name: &str| {
            let after = rest.split_once(&format!("{name}=\"")).map_or("", |(_, after)| after);
            after.split('"').next().unwrap_or_default().to_owned()
        };
        Some(Self::Bearer { realm: field("realm"), service: field("service") })
    }
}

/// What a token is asked for.
pub(crate) struct TokenWish<'a> {
    pub(crate) realm: &'a str,
    pub(crate) service: &'a str,
    pub(crate) scopes: &'a [String],
    /// A token is wanted too that stands for the password from now on.
    pub(crate) to_keep: bool,
}

/// As whom tokens are asked for. Source: moby, `registry/auth.go`, `AuthClientID`.
const CLIENT_ID: &str = "docker";

impl TokenWish<'_> {
    /// The request for a token. `plain` is whether the registry itself is spoken to without TLS.
    ///
    /// # Errors
    /// A sentence, when credentials would go to where they are not safe.
    pub(crate) fn request(
        &self,
        client: &reqwest::Client,
        auth: &RegistryAuth,
        plain: bool,
    ) -> Result<RequestBuilder, String> {
        let realm = self.realm;
        let mut url = Url::parse(realm)
            .map_err(|error| format!("it sends for tokens to {realm:?}, which is no address: {error}"))?;
        let safe = url.scheme() == "https" || (plain && url.scheme() == "http");
        if !safe && *auth != RegistryAuth::Anonymous {
            return Err(format!("it sends for tokens to {realm}, where credentials would go unencrypted"));
        }
        if let RegistryAuth::Identity(token) = auth {
            // A form is written as a query is.
            let mut form = url.clone();
            form.query_pairs_mut()
                .clear()
                .append_pair("grant_type", "refresh_token")
                .append_pair("service", self.service)
                .append_pair("client_id", CLIENT_ID)
                .append_pair("scope", &self.scopes.join(" "))
                .append_pair("refresh_token", token);
            let form = form.query().unwrap_or_default().to_owned();
            let kind = "application/x-www-form-urlencoded";
            return Ok(client.post(url).header(header::CONTENT_TYPE, kind).body(form));
        }
        if let RegistryAuth::Basic(name, _) = auth {
            url.query_pairs_mut().append_pair("account", name).append_pair("client_id", CLIENT_ID);
        }
        if self.to_keep {
            url.query_pairs_mut().append_pair("offline_token", "true");
        }
        if !self.service.is_empty() {
            url.query_pairs_mut().append_pair("service", self.service);
        }
        for scope in self.scopes {
            url.query_pairs_mut().append_pair("scope", scope);
        }
        let request = client.get(url);
        Ok(match auth {
            RegistryAuth::Basic(name, password) => request.basic_auth(name, Some(password)),
            RegistryAuth::Anonymous | RegistryAuth::Bearer(_) | RegistryAuth::Identity(_) => request,
        })
    }
}

/// What a request for a token was answered with.
#[derive(PartialEq, Eq)]
pub(crate) struct Handed {
    pub(crate) token: String,
    /// One that stands for the password from now on, where the registry has such.
    pub(crate) identity: Option<String>,
}

/// The token in an answer.
///
/// # Errors
/// A sentence.
pub(crate) fn token(answer: &[u8]) -> Result<Handed, String> {
    /// What else is in it is passed over, and takes no memory.
    #[derive(serde::Deserialize)]
    struct Token {
        #[serde(default)]
        token: Option<String>,
        #[serde(default)]
        access_token: Option<String>,
        #[serde(default)]
        refresh_token: Option<String>,
    }
    let answer: Token = serde_json::from_slice(answer)
        .map_err(|error| format!("it answered no JSON where a token should be: {error}"))?;
    let filled = |token: Option<String>| token.filter(|token| !token.is_empty());
    let token = filled(answer.token).or(filled(answer.access_token));
    let token = token.ok_or_else(|| "it answered without a token where one should be".to_owned())?;
    Ok(Handed { token, identity: filled(answer.refresh_token) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read() {
        assert_eq!(Challenge::parse(r#"Basic realm="x""#), Some(Challenge::Basic));
        for other in ["Negotiate", "Digest realm=\"x\"", ""] {
            assert_eq!(Challenge::parse(other), None, "{other}");
        }
        assert_eq!(
            Challenge::parse(r#"Bearer realm="https://auth.example/token",service="registry.example",scope="a""#),
            Some(Challenge::Bearer {
                realm: "https://auth.example/token".to_owned(),
                service: "registry.example".to_owned()
            })
        );
    }

    #[test]
    fn of_an_answer_the_token_alone_is_read() {
        for (answer, read) in [
            (r#"{"token":"a","access_token":"b","expires_in":300,"x":[{}]}"#, Ok("a")),
            (r#"{"token":null,"access_token":"b"}"#, Ok("b")),
            (r#"{"token":"","access_token":"b"}"#, Ok("b")),
            ("{}", Err("without a token")),
            (r#"{"token":[1]}"#, Err("no JSON")),
            (r#"[{"":0},{"":0},{"":0}]"#, Err("no JSON")),
            ("<html>", Err("no JSON")),
        ] {
            match (token(answer.as_bytes()), read) {
                (Ok(handed), Ok(read)) => assert_eq!(handed.token, read),
                (Err(reason), Err(read)) => assert!(reason.contains(read), "{reason}"),
                (other, _) => panic!("{answer}: {:?}", other.map(|_| "a token")),
            }
        }
    }

    #[test]
    fn credentials_go_nowhere_unencrypted() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::new();
        let me = RegistryAuth::Basic("me".to_owned(), "secret".to_owned());
        let ask = |realm: &str, auth: &RegistryAuth, plain| {
            let wish = TokenWish { realm, service: "s", scopes: &[], to_keep: false };
            wish.request(&client, auth, plain).map(|_| ())
        };
        assert_eq!(ask("https://a/token", &me, false), Ok(()));
        assert_eq!(ask("http://a/token", &me, true), Ok(()));
        assert_eq!(ask("http://a/token", &RegistryAuth::Anonymous, false), Ok(()));
        assert!(ask("http://a/token", &me, false).unwrap_err().contains("unencrypted"));
        assert!(ask("/token", &me, false).unwrap_err().contains("no address"));
        assert!(!format!("{me:?} {:?}", RegistryAuth::Bearer("token!".to_owned())).contains(['!', 't']));
    }

    #[test]
    fn a_token_is_asked_for_as_the_registry_wants_it() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::new();
        let scopes = ["repository:a:pull,push".to_owned(), "repository:b/c:pull".to_owned()];
        let wish = TokenWish { realm: "https://a/token", service: "r", scopes: &scopes, to_keep: false };
        let asked =
            |wish: &TokenWish<'_>, auth: &RegistryAuth| wish.request(&client, auth, false).unwrap().build().unwrap();
        let get = asked(&wish, &RegistryAuth::Anonymous);
        let query: Vec<_> = get.url().query_pairs().map(|(key, value)| format!("{key}={value}")).collect();
        assert_eq!(query, ["service=r", "scope=repository:a:pull,push", "scope=repository:b/c:pull"]);
        let kept = asked(&TokenWish { to_keep: true, ..wish }, &RegistryAuth::Basic("me".to_owned(), "x".to_owned()));
        assert!(
            kept.url().query().unwrap().contains("offline_token=true")
                && kept.url().query().unwrap().contains("account=me")
        );
        let wish = TokenWish { realm: "https://a/token", service: "r", scopes: &scopes, to_keep: false };
        let post = asked(&wish, &RegistryAuth::Identity("s&cret".to_owned()));
        assert_eq!((post.method().as_str(), post.url().query()), ("POST", None));
        let body = String::from_utf8(post.body().unwrap().as_bytes().unwrap().to_vec()).unwrap();
        assert_eq!(
            body,
            "grant_type=refresh_token&service=r&client_id=docker&scope=repository%3Aa%3Apull%2Cpush+repository%3Ab%2Fc%3Apull&refresh_token=s%26cret"
        );
        assert!(
            token(br#"{"access_token":"a","refresh_token":"b"}"#)
                .is_ok_and(|handed| handed.identity.as_deref() == Some("b"))
        );
    }
}

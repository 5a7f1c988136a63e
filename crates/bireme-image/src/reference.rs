//! Image references in Docker's grammar: `[host[:port]/]path[:tag][@digest]`.
//!
//! Source: github.com/distribution/reference, whose words the errors repeat, because clients look for them.

use std::fmt;
use std::str::FromStr;

use crate::digest::Digest;

const DOCKER_HUB: &str = "docker.io";

/// A reference, complete: registry and repository always stand in it; without tag and digest it means `latest`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Why a text is no reference; the texts are Docker's.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ReferenceError {
    /// The text does not follow the grammar.
    #[error("invalid reference format")]
    Format,
    /// The repository has upper-case letters.
    #[error("invalid reference format: repository name ({0}) must be lowercase")]
    UpperCase(String),
    /// The repository is longer than 255 characters.
    #[error("invalid reference format: repository name must not be more than 255 characters")]
    TooLong,
    /// The name could be taken for an image ID.
    #[error("invalid repository name ({0}), cannot specify 64-byte hexadecimal strings")]
    LooksLikeId(String),
    /// The name to give is that of an algorithm of digests.
    #[error("refusing to create an ambiguous tag using digest algorithm as name")]
    Ambiguous,
    /// The part after `@` is no digest.
    #[error("invalid reference format: {0} is not a digest of the form sha256:<64 hexadecimal digits>")]
    Digest(String),
}

impl Reference {
    /// Reads a reference, completing what Docker leaves out: `alpine` is `docker.io/library/alpine:latest`.
    ///
    /// # Errors
    /// [`ReferenceError`] in Docker's words.
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        if text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(ReferenceError::LooksLikeId(text.to_owned()));
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => {
                let parsed = digest.parse().map_err(|_| ReferenceError::Digest(digest.to_owned()))?;
                (rest, Some(parsed))
            }
            None => (text, None),
        };
        let (registry, rest) = match rest.split_once('/') {
            Some((first, rest)) if is_registry(first) => (first, rest),
            _ => (DOCKER_HUB, rest),
        };
        let registry = if registry == "index.docker.io" { DOCKER_HUB } else { registry };
        let (path, tag) = match rest.split_once(':') {
            Some((path, tag)) => (path, Some(tag)),
            None => (rest, None),
        };
        if !valid_registry(registry) || !tag.is_none_or(valid_tag) {
            return Err(ReferenceError::Format);
        }
        let repository = if registry == DOCKER_HUB && !path.contains('/') && !path.is_empty() {
            format!("library/{path}")
        } else {
            path.to_owned()
        };
        if !repository.split('/').all(valid_component) {
            let lower = repository.to_ascii_lowercase();
            return Err(if lower != repository && lower.split('/').all(valid_component) {
                ReferenceError::UpperCase(repository)
            } else {
                ReferenceError::Format
            });
        }
        if registry.len() + 1 + repository.len() > 255 {
            return Err(ReferenceError::TooLong);
        }
        let tag = match (tag, &digest) {
            (None, None) => Some("latest".to_owned()),
            (tag, _) => tag.map(str::to_owned),
        };
        Ok(Self { registry: registry.to_owned(), repository, tag, digest })
    }

    /// Host and port, `docker.io` for Docker Hub.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The path in the registry, such as `library/alpine`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag; `None` only if there is a digest.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, if one was given.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// What a registry is asked for: the digest, else the tag.
    pub fn version(&self) -> &str {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.as_str(),
            (None, Some(tag)) => tag,
            (None, None) => "latest",
        }
    }

    /// The same repository under another tag.
    #[must_use]
    pub fn with_tag(&self, tag: &str) -> Self {
        Self { tag: Some(tag.to_owned()), digest: None, ..self.clone() }
    }

    /// The name without tag and digest as Docker shows it: `alpine`, `localhost:5000/x`.
    pub fn familiar_name(&self) -> String {
        if self.registry != DOCKER_HUB {
            return format!("{}/{}", self.registry, self.repository);
        }
        // `library/a/b` keeps its prefix: shortened it would be read as another repository.
        match self.repository.strip_prefix("library/") {
            Some(short) if !short.contains('/') => short.to_owned(),
            _ => self.repository.clone(),
        }
    }

    /// Refuses a name that could be taken for a digest: `sha256:beef`.
    ///
    /// # Errors
    /// [`ReferenceError::Ambiguous`].
    ///
    /// Source: moby, `reference/store.go`, `AddTag`.
    pub fn check_tag(&self) -> Result<(), ReferenceError> {
        if self.familiar_name() == "sha256" { Err(ReferenceError::Ambiguous) } else { Ok(()) }
    }

    /// The reference as Docker shows it: `alpine:3`, `localhost:5000/x@sha256:…`.
    pub fn familiar(&self) -> String {
        self.join(self.familiar_name())
    }

    /// The key under which an image is stored: complete, and without a digest if there is a tag.
    pub(crate) fn key(&self) -> String {
        let name = format!("{}/{}", self.registry, self.repository);
        match (&self.tag, &self.digest) {
            (Some(tag), _) => format!("{name}:{tag}"),
            (None, Some(digest)) => format!("{name}@{digest}"),
            (None, None) => name,
        }
    }

    fn join(&self, mut text: String) -> String {
        if let Some(tag) = &self.tag {
            text.push(':');
            text.push_str(tag);
        }
        if let Some(digest) = &self.digest {
            text.push('@');
            text.push_str(digest.as_str());
        }
        text
    }
}

/// The complete form, `docker.io/library/alpine:3`.
impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.join(format!("{}/{}", self.registry, self.repository)))
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        Self::parse(text)
    }
}

/// Whether the part before the first slash names a registry rather than a folder of Docker Hub.
fn is_registry(first: &str) -> bool {
    first == "localhost" || first.contains(['.', ':']) || first.to_ascii_lowercase() != first
}

/// Whether a text is a host with or without a port, and so also good as the name of a folder.
pub(crate) fn valid_registry(host: &str) -> bool {
    let (name, port) = match host.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, port)) => {
                if address.parse::<std::net::Ipv6Addr>().is_err() {
                    return false;
                }
                return port.is_empty() || port.strip_prefix(':').is_some_and(valid_port);
            }
            None => return false,
        },
        None => match host.split_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (host, None),
        },
    };
    let label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.split('.').all(label) && port.is_none_or(valid_port)
}

fn valid_port(port: &str) -> bool {
    !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok()
}

fn valid_tag(tag: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    !tag.is_empty()
        && tag.len() <= 128
        && tag.bytes().enumerate().all(|(at, byte)| word(byte) || (at > 0 && matches!(byte, b'.' | b'-')))
}

/// `[a-z0-9]+` parts joined by `.`, `_`, `__` or any number of `-`.
fn valid_component(part: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = part.as_bytes();
    let (Some(&first), Some(&last)) = (bytes.first(), bytes.last()) else { return false };
    if !plain(first) || !plain(last) {
        return false;
    }
    part.split(|letter: char| letter.is_ascii() && plain(letter as u8))
        .all(|joint| matches!(joint, "" | "." | "_" | "__") || joint.bytes().all(|byte| byte == b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn completes_and_shortens() {
        let hex = "a".repeat(64);
        for (text, full, familiar) in [
            ("alpine", "docker.io/library/alpine:latest", "alpine:latest"),
            ("alpine:3", "docker.io/library/alpine:3", "alpine:3"),
            ("me/app:v1.2-x_Y", "docker.io/me/app:v1.2-x_Y", "me/app:v1.2-x_Y"),
            ("docker.io/alpine", "docker.io/library/alpine:latest", "alpine:latest"),
            ("index.docker.io/library/alpine", "docker.io/library/alpine:latest", "alpine:latest"),
            ("localhost/x", "localhost/x:latest", "localhost/x:latest"),
            ("localhost:5000/x", "localhost:5000/x:latest", "localhost:5000/x:latest"),
            ("ghcr.io/a/b--c/d__e", "ghcr.io/a/b--c/d__e:latest", "ghcr.io/a/b--c/d__e:latest"),
            ("[::1]:5000/x:1", "[::1]:5000/x:1", "[::1]:5000/x:1"),
            ("Host/x", "Host/x:latest", "Host/x:latest"),
            ("a:5000/x", "a:5000/x:latest", "a:5000/x:latest"),
        ] {
            let reference = Reference::parse(text).unwrap();
            assert_eq!(reference.to_string(), full, "{text}");
            assert_eq!(reference.familiar(), familiar, "{text}");
        }
        let digested = Reference::parse(&format!("localhost:5000/x:1@sha256:{hex}")).unwrap();
        assert_eq!(digested.version(), format!("sha256:{hex}"));
        assert_eq!(digested.familiar(), format!("localhost:5000/x:1@sha256:{hex}"));
        assert_eq!(Reference::parse(&format!("x@sha256:{hex}")).unwrap().tag(), None);
    }

    #[test]
    fn refuses_in_dockers_words() {
        for (text, error) in [
            ("", "invalid reference format"),
            (":tag", "invalid reference format"),
            ("a:", "invalid reference format"),
            ("a//b", "invalid reference format"),
            ("a/", "invalid reference format"),
            ("/a", "invalid reference format"),
            ("a:b:c", "invalid reference format"),
            ("-a", "invalid reference format"),
            ("a___b", "invalid reference format"),
            ("a..b", "invalid reference format"),
            ("a b", "invalid reference format"),
            ("../etc", "invalid reference format"),
            ("x.y:99999/z", "invalid reference format"),
            ("Alpine", "invalid reference format: repository name (library/Alpine) must be lowercase"),
            (
                "a@sha256:12",
                "invalid reference format: sha256:12 is not a digest of the form sha256:<64 hexadecimal digits>",
            ),
        ] {
            assert_eq!(Reference::parse(text).unwrap_err().to_string(), error, "{text}");
        }
        assert!(Reference::parse(&"a".repeat(64)).unwrap_err().to_string().contains("64-byte hexadecimal"));
        assert_eq!(Reference::parse(&"x".repeat(300)).unwrap_err(), ReferenceError::TooLong);
        for (text, taken) in [("sha256:beef", false), ("sha256", false), ("me/sha256:1", true), ("sha512:1", true)] {
            assert_eq!(Reference::parse(text).unwrap().check_tag().is_ok(), taken, "{text}");
        }
    }

    proptest! {
        #[test]
        fn never_panics_and_reads_back_what_it_prints(text in "\\PC{0,60}|[a-zA-Z0-9._:/@-]{0,60}") {
            if let Ok(reference) = Reference::parse(&text) {
                prop_assert_eq!(&Reference::parse(&reference.to_string()).unwrap(), &reference);
                prop_assert_eq!(&Reference::parse(&reference.familiar()).unwrap(), &reference);
                // A tag may hold two dots, and is never part of a path; a name may not.
                prop_assert!(!reference.repository().contains(".."));
            }
        }
    }
}

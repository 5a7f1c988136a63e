//! The address of an engine.

use std::fmt::Display;
use std::path::PathBuf;
use std::str::FromStr;

/// Where an engine listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// `unix:///path/to/socket`.
    Unix(PathBuf),
    /// `tcp://host:port`, without TLS.
    Tcp(String),
}

impl FromStr for Host {
    type Err = HostError;

    fn from_str(text: &str) -> Result<Self, HostError> {
        let refuse = |reason: &'static str| HostError { host: text.to_owned(), reason };
        match text.split_once("://") {
            Some(("unix", path)) if path.starts_with('/') => Ok(Self::Unix(path.into())),
            Some(("unix", _)) => Err(refuse("the path of a unix socket must be absolute")),
            Some(("tcp" | "http", address)) => {
                let address = address.trim_end_matches('/');
                match address.rsplit_once(':') {
                    _ if address.is_empty() || address.contains('/') => Err(refuse("expected tcp://host:port")),
                    Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => {
                        Ok(Self::Tcp(address.to_owned()))
                    }
                    Some(_) => Err(refuse("expected tcp://host:port")),
                    None => Ok(Self::Tcp(format!("{address}:2375"))),
                }
            }
            Some(_) => Err(refuse("only unix:// and tcp:// are understood")),
            None if text.starts_with('/') => Ok(Self::Unix(text.into())),
            None => Err(refuse("expected unix:///path or tcp://host:port")),
        }
    }
}

impl Display for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp(address) => write!(f, "tcp://{address}"),
        }
    }
}

/// Why a text is no engine's address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{host:?} is not an engine's address: {reason}")]
pub struct HostError {
    /// The text as it was given.
    pub host: String,
    /// What was expected, in a few words.
    pub reason: &'static str,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_host(text: &str, expected: Result<Host, &str>) {
        let got = text.parse::<Host>().map_err(|error| error.to_string());
        assert_eq!(got.as_ref().map_err(String::as_str), expected.as_ref().map_err(|text| *text), "{text}");
    }

    #[test]
    fn hosts_are_read_as_docker_writes_them() {
        check_host("unix:///run/x.sock", Ok(Host::Unix("/run/x.sock".into())));
        check_host("tcp://10.0.0.1:2376", Ok(Host::Tcp("10.0.0.1:2376".into())));
        check_host("tcp://10.0.0.1", Ok(Host::Tcp("10.0.0.1:2375".into())));
        check_host(
            "unix://x.sock",
            Err("\"unix://x.sock\" is not an engine's address: the path of a unix socket must be absolute"),
        );
        check_host(
            "ssh://me@there",
            Err("\"ssh://me@there\" is not an engine's address: only unix:// and tcp:// are understood"),
        );
    }
}

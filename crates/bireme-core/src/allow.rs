//! Where a workload may connect to: the `bireme.allow` label, as pure decisions.
//!
//! An entry is `scheme://host[:port]`, `host[:port]`, `*.domain`, or an address range (`10.1.0.0/16`); `*` stands for any
//! scheme, host or port. Without a port, a known scheme means its usual port, and no scheme means every port.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The entries of one `bireme.allow` label. Empty denies everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AllowList(pub Vec<Allow>);

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Allow {
    /// `None` is any.
    scheme: Option<String>,
    host: Host,
    /// `None` is any.
    port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Host {
    Any,
    Name(String),
    /// Every name below this one, without the leading `*.`.
    Below(String),
    Range(IpAddr, u8),
}

/// Why a text is not an entry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("permission {text:?} {reason}")]
pub struct AllowError {
    pub text: String,
    pub reason: &'static str,
}

/// The usual port of a scheme.
pub fn default_port(scheme: &str) -> Option<u16> {
    Some(match scheme {
        "http" | "ws" => 80,
        "https" | "wss" => 443,
        "redis" | "rediss" => 6379,
        "postgres" | "postgresql" => 5432,
        "mysql" => 3306,
        "amqp" => 5672,
        "mqtt" => 1883,
        "nats" => 4222,
        "mongodb" => 27017,
        _ => return None,
    })
}

impl Allow {
    /// Whether a connection by `scheme` to `host` (a name or the text of an address) and `port` is permitted.
    ///
    /// `tcp` is the scheme of raw sockets: any entry whose scheme runs over TCP permits it, since the entry already
    /// grants that very endpoint.
    pub fn permits(&self, scheme: &str, host: &str, port: u16) -> bool {
        self.permits_scheme(scheme)
            && self.port.is_none_or(|want| want == port)
            && match (&self.host, host.trim_matches(['[', ']']).parse::<IpAddr>()) {
                (Host::Any, _) => true,
                (Host::Range(net, bits), Ok(address)) => in_range(address, *net, *bits),
                (Host::Range(..), Err(_)) | (Host::Name(_) | Host::Below(_), Ok(_)) => false,
                (_, Err(_)) => self.names(host),
            }
    }

    /// Whether looking up `name` is permitted: some connection to it might be.
    pub fn names(&self, name: &str) -> bool {
        let name = name.strip_suffix('.').unwrap_or(name);
        match &self.host {
            Host::Any => true,
            Host::Name(want) => want.eq_ignore_ascii_case(name),
            Host::Below(domain) => name.len().checked_sub(domain.len() + 1).is_some_and(|at| {
                at > 0
                    && name.is_char_boundary(at + 1)
                    && name.as_bytes()[at] == b'.'
                    && name[at + 1..].eq_ignore_ascii_case(domain)
            }),
            Host::Range(..) => false,
        }
    }

    fn permits_scheme(&self, scheme: &str) -> bool {
        match self.scheme.as_deref() {
            None => true,
            Some("udp") => scheme == "udp",
            Some("tcp") => scheme != "udp",
            Some(want) => want == scheme || scheme == "tcp",
        }
    }
}

impl AllowList {
    /// Whether any entry permits the connection; see [`Allow::permits`].
    pub fn permits(&self, scheme: &str, host: &str, port: u16) -> bool {
        self.0.iter().any(|entry| entry.permits(scheme, host, port))
    }

    /// Whether any entry permits looking up `name`.
    pub fn names(&self, name: &str) -> bool {
        self.0.iter().any(|entry| entry.names(name))
    }

    /// Whether a connection to `address` is permitted, which was looked up under each of `names`.
    pub fn permits_address<'a>(
        &self,
        scheme: &str,
        address: IpAddr,
        port: u16,
        mut names: impl Iterator<Item = &'a str>,
    ) -> bool {
        self.permits(scheme, &address.to_string(), port) || names.any(|name| self.permits(scheme, name, port))
    }
}

impl FromStr for AllowList {
    type Err = AllowError;

    fn from_str(text: &str) -> Result<Self, AllowError> {
        text.split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty())
            .map(str::parse)
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

impl FromStr for Allow {
    type Err = AllowError;

    fn from_str(text: &str) -> Result<Self, AllowError> {
        let refuse = |reason| AllowError { text: text.to_owned(), reason };
        let (scheme, rest) = match text.split_once("://") {
            Some(("", _)) => return Err(refuse("has an empty scheme")),
            Some(("*", rest)) => (None, rest),
            Some((scheme, rest))
                if scheme.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.')) =>
            {
                (Some(scheme.to_ascii_lowercase()), rest)
            }
            Some(_) => return Err(refuse("has a scheme with characters that a scheme cannot have")),
            None => (None, text),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if let Some((net, bits)) = rest.split_once('/') {
            let net: IpAddr = net.parse().map_err(|_| refuse("has a path; a permission ends at the port"))?;
            let most = if net.is_ipv4() { 32 } else { 128 };
            let bits =
                bits.parse().ok().filter(|bits| *bits <= most).ok_or_else(|| refuse("has a bad prefix length"))?;
            let port = scheme.as_deref().and_then(default_port);
            return Ok(Self { scheme, host: Host::Range(net, bits), port });
        }
        let (host, port) = if let Some(bracketed) = rest.strip_prefix('[') {
            let (inner, after) = bracketed.split_once(']').ok_or_else(|| refuse("has no closing bracket"))?;
            (inner, after.strip_prefix(':'))
        } else if rest.parse::<IpAddr>().is_ok() {
            (rest, None)
        } else {
            rest.rsplit_once(':').map_or((rest, None), |(host, port)| (host, Some(port)))
        };
        let port = match port {
            None => scheme.as_deref().and_then(default_port),
            Some("*") => None,
            Some(port) => Some(
                port.parse()
                    .ok()
                    .filter(|port| *port != 0)
                    .ok_or_else(|| refuse("has a bad port: use 1 to 65535, or *"))?,
            ),
        };
        let name = |host: &str| {
            !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
        };
        let host = match host {
            "" => return Err(refuse("names no host; write * for every host")),
            "*" => Host::Any,
            host => match (host.parse::<IpAddr>(), host.strip_prefix("*.")) {
                (Ok(address), _) => Host::Range(address, if address.is_ipv4() { 32 } else { 128 }),
                (_, Some(domain)) if name(domain) => Host::Below(domain.to_ascii_lowercase()),
                (_, None) if name(host) => Host::Name(host.to_ascii_lowercase()),
                _ => return Err(refuse("has a host with characters that a host name cannot have")),
            },
        };
        Ok(Self { scheme, host, port })
    }
}

impl fmt::Display for Allow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://", self.scheme.as_deref().unwrap_or("*"))?;
        match &self.host {
            Host::Any => f.write_str("*")?,
            Host::Name(name) => f.write_str(name)?,
            Host::Below(domain) => write!(f, "*.{domain}")?,
            Host::Range(net, 32) if net.is_ipv4() => write!(f, "{net}")?,
            Host::Range(net, 128) => write!(f, "[{net}]")?,
            Host::Range(net, bits) => return write!(f, "{net}/{bits}"),
        }
        match self.port {
            Some(port) => write!(f, ":{port}"),
            None => f.write_str(":*"),
        }
    }
}

impl TryFrom<String> for Allow {
    type Error = AllowError;
    fn try_from(text: String) -> Result<Self, AllowError> {
        text.parse()
    }
}

impl From<Allow> for String {
    fn from(allow: Allow) -> String {
        allow.to_string()
    }
}

fn in_range(address: IpAddr, net: IpAddr, bits: u8) -> bool {
    let (address, net, width) = match (address.to_canonical(), net) {
        (IpAddr::V4(a), IpAddr::V4(n)) => (u128::from(a.to_bits()), u128::from(n.to_bits()), 32),
        (IpAddr::V6(a), IpAddr::V6(n)) => (a.to_bits(), n.to_bits(), 128),
        _ => return false,
    };
    let shift = width - u32::from(bits);
    shift >= 128 || address >> shift == net >> shift
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(list: &str, scheme: &str, host: &str, port: u16, expected: bool) {
        let list: AllowList = list.parse().unwrap();
        assert_eq!(list.permits(scheme, host, port), expected, "{list:?} {scheme}://{host}:{port}");
    }

    #[test]
    fn permits_only_what_is_named() {
        check("", "http", "a", 80, false);
        check("redis://redis:6379", "redis", "redis", 6379, true);
        check("redis://redis", "redis", "REDIS", 6379, true);
        check("redis://redis", "redis", "redis", 6380, false);
        check("redis://redis", "http", "redis", 6379, false);
        check("redis://redis", "tcp", "redis", 6379, true);
        check("redis://redis", "udp", "redis", 6379, false);
        check("*.example.com", "https", "a.b.example.com", 443, true);
        check("*.example.com", "https", "example.com", 443, false);
        check("*.example.com", "https", "evilexample.com", 443, false);
        check("10.1.0.0/16", "tcp", "10.1.2.3", 5, true);
        check("10.1.0.0/16", "tcp", "10.2.2.3", 5, false);
        check("10.1.0.0/16", "tcp", "::ffff:10.1.2.3", 5, true);
        check("http://*:8080", "http", "x", 8080, true);
        check("*://*:*", "http", "1.2.3.4", 9, true);
        check("http://[::1]:80", "http", "[::1]", 80, true);
        check("0.0.0.0/0", "tcp", "9.9.9.9", 1, true);
        check("api", "http", "api", 1234, true);
    }

    #[test]
    fn malformed_permissions_say_why() {
        for bad in
            ["://x", "http://", "http://a:0", "http://a:x", "http://a/b", "10.0.0.0/40", "a b", "ht tp://x", "[::1"]
        {
            assert!(bad.parse::<Allow>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn prints_what_it_reads(text in r"((http|redis|tcp|\*)://)?(\*|\*\.[a-z]{1,5}|[a-z]{1,8}|10\.0\.0\.[0-9])(:[1-9][0-9]{0,3}|:\*)?") {
            let allow: Allow = text.parse().unwrap();
            prop_assert_eq!(allow.to_string().parse::<Allow>().unwrap(), allow);
        }
    }
}

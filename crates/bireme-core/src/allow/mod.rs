//! Where a workload may connect to: the `bireme.allow` label, as pure decisions.
//!
//! An entry is `scheme://host[:port]`, where the scheme is the way to connect that it allows and no other: `http`,
//! `https`, `redis`, `postgres`, `mysql`, `mqtt`, `mqtts`, `tcp` (sockets) or `udp` (datagrams). The host is a name,
//! `*.domain` (every name below it), an address or a range of them (`10.1.0.0/16`, `10.1.0.0/16:5432`); `*` stands for any
//! scheme, host or port. Without a port, a scheme means its usual port, or every port if it has none. An entry without a
//! scheme (`host[:port]`) is one with `*`: every way to connect, sockets included.
//!
//! A name covers the addresses that it leads to, but not the private ones of a public name: whoever answers for a name
//! outside must not choose a machine inside. See [`AllowList::covers_answer`].

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
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
    /// The entry as it was written.
    pub text: String,
    /// What is wrong with it, to follow the entry in a sentence.
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
        "mqtts" => 8883,
        "nats" => 4222,
        "mongodb" => 27017,
        _ => return None,
    })
}

/// Of the names of one scheme the usual one.
fn plain(scheme: &str) -> &str {
    if scheme == "postgresql" { "postgres" } else { scheme }
}

impl Allow {
    /// Whether a connection by `scheme` to `host` (a name or the text of an address) and `port` is permitted. `tcp` is
    /// the scheme of sockets.
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
        self.scheme.as_deref().is_none_or(|want| plain(want) == plain(scheme))
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

    /// Whether the answer `address` to a question for `name` may be told, whatever it is to be used for: not when it is an
    /// address of this machine or of a private network and the name is one of the public Internet, unless some entry permits
    /// that very address.
    pub fn covers_answer(&self, name: &str, address: IpAddr) -> bool {
        let text = address.to_string();
        may_answer(name, address)
            || self.0.iter().any(|entry| {
                let (scheme, port) = (entry.scheme.as_deref().unwrap_or("tcp"), entry.port.unwrap_or(1));
                entry.permits(scheme, &text, port)
            })
    }

    /// Whether a connection to `address`, which DNS answered for `name`, is covered by a permission for `name`: by itself,
    /// or since the address is permitted for that very way to connect. An entry for another scheme or port says nothing.
    pub fn covers(&self, scheme: &str, name: &str, address: IpAddr, port: u16) -> bool {
        may_answer(name, address) || self.permits(scheme, &address.to_string(), port)
    }

    /// Whether a connection to `address` is permitted, which was looked up under each of `names`; true with those that a
    /// network of the workload's own answers for, which may lead anywhere.
    pub fn permits_address<'a>(
        &self,
        scheme: &str,
        address: IpAddr,
        port: u16,
        mut names: impl Iterator<Item = (&'a str, bool)>,
    ) -> bool {
        self.permits(scheme, &address.to_string(), port)
            || names.any(|(name, own)| (own || may_answer(name, address)) && self.permits(scheme, name, port))
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

/// Whether `name` may lead to `address` without anybody having permitted that address.
fn may_answer(name: &str, address: IpAddr) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    let below = |domain: &str| name == domain || name.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'));
    match reach(address) {
        Reach::Public => true,
        // Names that no public server answers for: RFC 6761, 6762, 8375, and the one that ICANN set aside.
        Reach::Private => !name.contains('.') || ["local", "internal", "home.arpa", "localhost"].into_iter().any(below),
        Reach::Machine => below("localhost"),
    }
}

/// From how far away an address can be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    Public,
    /// In a private network.
    Private,
    /// On this machine or its link alone: loopback, link-local (where clouds tell their secrets), unspecified.
    Machine,
}

fn reach(address: IpAddr) -> Reach {
    match address.to_canonical() {
        IpAddr::V4(v4) => reach_v4(v4),
        IpAddr::V6(v6) => {
            let s = v6.segments();
            let embedded = |high: u16, low: u16| {
                let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
                reach_v4(Ipv4Addr::new(a, b, c, d))
            };
            match s {
                // NAT64 and its local form, 6to4, and the old form of mapped addresses: the address inside counts.
                [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0, 0, 0, 0, 0, 0, high @ 1..=0xffff, low] => {
                    embedded(high, low)
                }
                [0x64, 0xff9b, 1, ..] => Reach::Private,
                [0x2002, high, low, ..] => embedded(high, low),
                _ if v6.is_loopback() || v6.is_unspecified() || v6.is_unicast_link_local() || v6.is_multicast() => {
                    Reach::Machine
                }
                // Unique local, and the site-local addresses of old.
                _ if v6.is_unique_local() || s[0] & 0xffc0 == 0xfec0 => Reach::Private,
                _ => Reach::Public,
            }
        }
    }
}

fn reach_v4(v4: Ipv4Addr) -> Reach {
    let [a, b, c, _] = v4.octets();
    let machine = a == 0 || v4.is_loopback() || v4.is_link_local() || v4.is_multicast() || v4.is_broadcast();
    match (a, b, c) {
        _ if machine => Reach::Machine,
        // Carriers' NAT, protocol assignments, benchmarks, reserved.
        (100, 64..=127, _) | (192, 0, 0) | (198, 18 | 19, _) | (240.., _, _) => Reach::Private,
        _ if v4.is_private() => Reach::Private,
        _ => Reach::Public,
    }
}

/// The ways to connect that an entry can name.
const SCHEMES: [&str; 10] =
    ["http", "https", "mqtt", "mqtts", "mysql", "postgres", "postgresql", "redis", "tcp", "udp"];

/// Whether an entry with `scheme` permits anything.
pub fn is_scheme(scheme: &str) -> bool {
    scheme == "*" || SCHEMES.iter().any(|known| known.eq_ignore_ascii_case(scheme))
}

impl FromStr for Allow {
    type Err = AllowError;

    fn from_str(text: &str) -> Result<Self, AllowError> {
        let entry = Self::read(text)?;
        match entry.scheme.as_deref() {
            Some(scheme) if !is_scheme(scheme) => Err(AllowError {
                text: text.to_owned(),
                reason: "has a scheme that allows nothing: use http, https, redis, postgres, mysql, mqtt, mqtts, tcp \
                         (sockets, which clients of other protocols open) or udp",
            }),
            _ => Ok(entry),
        }
    }
}

impl Allow {
    /// Reads an entry of any scheme: what an older engine remembered stays readable, and one that no connection has
    /// permits none.
    fn read(text: &str) -> Result<Self, AllowError> {
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
        let read_port = |port: Option<&str>| match port {
            None => Ok(scheme.as_deref().and_then(default_port)),
            Some("*") => Ok(None),
            Some(port) => match port.parse() {
                Ok(0) | Err(_) => Err(refuse("has a bad port: use 1 to 65535, or *")),
                Ok(port) => Ok(Some(port)),
            },
        };
        if let Some((net, bits)) = rest.split_once('/') {
            let plain = net.strip_prefix('[').and_then(|net| net.strip_suffix(']')).unwrap_or(net);
            let net: IpAddr = plain.parse().map_err(|_| refuse("has a path; a permission ends at the port"))?;
            let most = if net.is_ipv4() { 32 } else { 128 };
            let (bits, port) = bits.split_once(':').map_or((bits, None), |(bits, port)| (bits, Some(port)));
            let bits =
                bits.parse().ok().filter(|bits| *bits <= most).ok_or_else(|| refuse("has a bad prefix length"))?;
            let port = read_port(port)?;
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
        let port = read_port(port)?;
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
            Host::Range(net, bits) => {
                write!(f, "{net}/{bits}")?;
                // As it was written before a range could have a port.
                if self.port == self.scheme.as_deref().and_then(default_port) {
                    return Ok(());
                }
            }
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
        Self::read(&text)
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
mod tests;

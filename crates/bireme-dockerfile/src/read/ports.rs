//! EXPOSE.
//!
//! Source: github.com/moby/buildkit, `frontend/dockerfile/dockerfile2llb/convert_expose.go`.

use std::net::IpAddr;

use crate::error::ParseError;
use crate::instruction::{Instruction, is_separator};
use crate::words::Expander;

/// Ports that one word of EXPOSE names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// The word, expanded.
    pub written: String,
    /// The first and the last.
    pub range: (u16, u16),
    /// `tcp`, `udp` or `sctp`.
    pub protocol: String,
    /// Whether an address or a port of the host stands before it, which mean nothing here.
    pub mapped: bool,
}

impl Port {
    /// Each as the configuration of an image has it: `80/tcp`.
    pub fn each(&self) -> impl Iterator<Item = String> + '_ {
        (self.range.0..=self.range.1).map(|port| format!("{port}/{}", self.protocol))
    }
}

/// The ports of EXPOSE.
///
/// # Errors
/// When a word cannot be expanded, or names no port.
pub fn ports(at: &Instruction, expander: &mut Expander<'_>) -> Result<Vec<Port>, ParseError> {
    let mut ports = Vec::new();
    for word in at.rest.split(is_separator).filter(|word| !word.is_empty()) {
        for word in expander.words(word).map_err(|reason| at.fault(reason))? {
            ports.push(port(&word).map_err(|reason| at.fault(reason))?);
        }
    }
    Ok(ports)
}

fn port(word: &str) -> Result<Port, String> {
    let (before, container) = word.rsplit_once(':').map_or((None, word), |(before, port)| (Some(before), port));
    let (address, host) = match before {
        None => ("", ""),
        Some(before) => before.rsplit_once(':').unwrap_or(("", before)),
    };
    let (container, protocol) = container.split_once('/').unwrap_or((container, ""));
    if container.is_empty() {
        return Err(format!("invalid port: {word:?}: no port specified"));
    }
    let protocol = match protocol.to_lowercase().as_str() {
        "" => "tcp".to_owned(),
        known @ ("tcp" | "udp" | "sctp") => known.to_owned(),
        other => return Err(format!("invalid port: {word:?}: invalid proto: {other}")),
    };
    let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
    if !address.is_empty() && bare.parse::<IpAddr>().is_err() {
        return Err(format!("invalid IP address: {bare}"));
    }
    let range = numbers(container).ok_or_else(|| format!("invalid containerPort: {container}"))?;
    if !host.is_empty() {
        let hosts = numbers(host).ok_or_else(|| format!("invalid hostPort: {host}"))?;
        if range.0 != range.1 && range.1 - range.0 != hosts.1 - hosts.0 {
            return Err(format!("invalid ranges specified for container and host Ports: {container} and {host}"));
        }
    }
    Ok(Port { written: word.to_owned(), range, protocol, mapped: before.is_some() })
}

fn numbers(text: &str) -> Option<(u16, u16)> {
    let number = |text: &str| text.parse::<u16>().ok().filter(|_| !text.starts_with('+'));
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let range = (number(first)?, number(last)?);
    (range.0 <= range.1).then_some(range)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_ports_as_buildkit_does() {
        for (word, range, protocol) in [
            ("80", (80, 80), "tcp"),
            ("80/", (80, 80), "tcp"),
            ("80-82/UDP", (80, 82), "udp"),
            ("8080:80", (80, 80), "tcp"),
            ("1.2.3.4::80/sctp", (80, 80), "sctp"),
            ("[::1]:80:80", (80, 80), "tcp"),
            ("::1:80:80", (80, 80), "tcp"),
            ("1000-2000:80", (80, 80), "tcp"),
        ] {
            let read = port(word).unwrap();
            assert_eq!(
                (read.range, read.protocol.as_str(), read.mapped),
                (range, protocol, word.contains(':')),
                "{word}"
            );
        }
        for (word, reason) in [
            ("80/foo", "invalid port: \"80/foo\": invalid proto: foo"),
            ("/tcp", "invalid port: \"/tcp\": no port specified"),
            ("x", "invalid containerPort: x"),
            ("70000", "invalid containerPort: 70000"),
            ("90-80", "invalid containerPort: 90-80"),
            ("a:b:80", "invalid IP address: a"),
            ("x:80", "invalid hostPort: x"),
            ("1-3:80-81", "invalid ranges specified for container and host Ports: 80-81 and 1-3"),
        ] {
            assert_eq!(port(word).unwrap_err(), reason, "{word}");
        }
    }
}

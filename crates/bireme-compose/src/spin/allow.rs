//! Whom components may reach, in the words of `bireme.allow`.

use bireme_core::allow::is_scheme;

use super::manifest::{list, text};
use super::variables::Variables;
use crate::error::ComposeError;
use crate::yaml::Node;

/// Ports that one range may have: each becomes an entry.
const MOST_PORTS: u16 = 64;

/// What version 1 permits where it says nothing of hosts: only HTTP was held to a list then.
const BEFORE: [&str; 3] = ["redis://*:*", "mysql://*:*", "postgres://*:*"];

/// The app itself, by the routes of its components.
const ITSELF: &str = "http://self.alt";

/// The entries for a component of a manifest of `version`.
///
/// # Errors
/// What is malformed, and hosts that have no form here.
pub(super) fn entries(
    component: &Node,
    id: &str,
    version: u8,
    variables: &Variables<'_>,
) -> Result<Vec<String>, ComposeError> {
    let mut entries = Vec::new();
    let hosts = component.get("allowed_outbound_hosts");
    let place = format!("component.{id}.allowed_outbound_hosts");
    for host in list(hosts, &place)? {
        let filled = variables.fill(text(host, &place)?, host, &place)?;
        entries.extend(entry(&filled, host, &place)?);
    }
    let place = format!("component.{id}.allowed_http_hosts");
    for host in list(component.get("allowed_http_hosts"), &place)? {
        let filled = variables.fill(text(host, &place)?, host, &place)?;
        match filled.as_str() {
            "insecure:allow-all" => entries.extend(["http://*:*".to_owned(), "https://*:*".to_owned()]),
            "self" => entries.push(ITSELF.to_owned()),
            // With its scheme, or for both.
            host => {
                let bare = host.trim_end_matches('/');
                let schemes: &[&str] = if bare.contains("://") { &[""] } else { &["http://", "https://"] };
                entries.extend(schemes.iter().map(|scheme| format!("{scheme}{bare}")));
            }
        }
    }
    if version == 1 && hosts.is_none() {
        entries.extend(BEFORE.map(str::to_owned));
    }
    Ok(entries)
}

/// Source: Spin's documentation, "Granting networking permissions to components".
fn entry(host: &str, node: &Node, place: &str) -> Result<Vec<String>, ComposeError> {
    let malformed = || {
        node.invalid(place, format!("{host:?} is not scheme://host or scheme://host:port, such as https://example.com"))
    };
    let (scheme, rest) = host.split_once("://").ok_or_else(malformed)?;
    // What nothing connects by may stand there, as `wss` and the `no://no:0000` of templates do, and permits nothing.
    if scheme.bytes().all(|byte| byte.is_ascii_alphabetic()) && !is_scheme(scheme) {
        return Ok(Vec::new());
    }
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    // A range of addresses has its slash.
    let is_range = rest.split_once('/').is_some_and(|(net, bits)| {
        let bits = bits.split(':').next().unwrap_or_default();
        net.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok() && bits.parse::<u8>().is_ok()
    });
    if rest.is_empty() || (rest.contains('/') && !is_range) {
        return Err(malformed());
    }
    if rest == "self" || rest == "self.alt" {
        return Ok(vec![ITSELF.to_owned()]);
    }
    let (name, port) = match rest.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, Some(port)),
        _ => (rest, None),
    };
    let entry = |port: &str| format!("{scheme}://{name}{port}");
    let Some(port) = port else { return Ok(vec![entry("")]) };
    let Some((first, last)) = port.split_once("..").or_else(|| port.split_once('-')) else {
        return Ok(vec![entry(&format!(":{port}"))]);
    };
    // The last of Spin's ranges is not in them.
    let range = first.parse::<u16>().ok().zip(last.parse::<u16>().ok()).filter(|(first, last)| first < last);
    let (first, last) = range.ok_or_else(malformed)?;
    if last - first > MOST_PORTS {
        return Err(node.unsupported(
            place,
            format!("{host:?} has more than {MOST_PORTS} ports: name those that are used, or all of them (*)"),
        ));
    }
    Ok((first..last).map(|port| entry(&format!(":{port}"))).collect())
}

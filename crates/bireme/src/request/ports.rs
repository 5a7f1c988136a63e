//! `-p` and `--expose`.

use std::collections::HashMap;
use std::ops::RangeInclusive;

use anyhow::{Context as _, bail};
use bireme_api::models::{PortBinding, PortMap};

/// Reads `[[IP:]HOST:]PORT[/PROTOCOL]` flags: the ports to expose, and what they are bound to.
///
/// # Errors
/// A flag that is not of that form, or whose ranges differ in length.
pub fn publish(flags: &[String]) -> anyhow::Result<(Vec<String>, PortMap)> {
    let mut exposed = Vec::new();
    let mut bindings: PortMap = HashMap::new();
    for flag in flags {
        let (rest, protocol) = protocol("--publish", flag)?;
        let (head, port) = rest.rsplit_once(':').map_or(("", rest), |(head, port)| (head, port));
        // What is before the last colon is HOST, IP:HOST, or [IPv6]:HOST.
        let (ip, host) = match head.rfind(':') {
            Some(colon) => (&head[..colon], &head[colon + 1..]),
            None if head.contains('.') => (head, ""),
            None => ("", head),
        };
        let ip = ip.trim_start_matches('[').trim_end_matches(']');
        if !ip.is_empty() && ip.parse::<std::net::IpAddr>().is_err() {
            bail!("--publish: {flag:?}: {ip:?} is not an IP address");
        }
        let ports = range("--publish", flag, port)?;
        let hosts = if host.is_empty() { None } else { Some(range("--publish", flag, host)?) };
        let single = ports.len() == 1;
        if let Some(hosts) = &hosts
            && hosts.len() != ports.len()
            && !single
        {
            bail!("--publish: {flag:?}: the ranges {host} and {port} differ in length");
        }
        for (at, port) in ports.clone().enumerate() {
            let key = format!("{port}/{protocol}");
            let host_port = match &hosts {
                None => String::new(),
                // One port on any of several: the engine chooses.
                Some(_) if single => host.to_owned(),
                Some(hosts) => (hosts.start() + at as u16).to_string(),
            };
            exposed.push(key.clone());
            bindings
                .entry(key)
                .or_insert_with(|| Some(Vec::new()))
                .get_or_insert_default()
                .push(PortBinding { host_ip: Some(ip.to_owned()), host_port: Some(host_port) });
        }
    }
    Ok((exposed, bindings))
}

/// Reads `PORT[-PORT][/PROTOCOL]`.
pub(super) fn expose(flag: &str) -> anyhow::Result<Vec<String>> {
    let (ports, protocol) = protocol("--expose", flag)?;
    Ok(range("--expose", flag, ports)?.map(|port| format!("{port}/{protocol}")).collect())
}

fn protocol<'a>(name: &str, flag: &'a str) -> anyhow::Result<(&'a str, String)> {
    match flag.split_once('/') {
        None => Ok((flag, "tcp".to_owned())),
        Some((rest, protocol)) => match protocol.to_ascii_lowercase().as_str() {
            known @ ("tcp" | "udp" | "sctp") => Ok((rest, known.to_owned())),
            other => bail!("{name}: {flag:?}: {other:?} is not one of tcp, udp, sctp"),
        },
    }
}

fn range(name: &str, flag: &str, text: &str) -> anyhow::Result<RangeInclusive<u16>> {
    let form = || format!("{name}: {flag:?}: {text:?} is not a port or a range of ports");
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last): (u16, u16) = (first.parse().with_context(form)?, last.parse().with_context(form)?);
    if first > last || (first == 0 && name == "--expose") {
        bail!(form());
    }
    Ok(first..=last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(flag: &str, expected: &[(&str, &str, &str)]) {
        let (exposed, bindings) = publish(&[flag.to_owned()]).unwrap();
        let mut got: Vec<(String, String, String)> = exposed
            .iter()
            .map(|port| {
                let binding = bindings[port].as_ref().unwrap()[0].clone();
                (port.clone(), binding.host_ip.unwrap(), binding.host_port.unwrap())
            })
            .collect();
        got.sort();
        let expected: Vec<(String, String, String)> =
            expected.iter().map(|(port, ip, host)| ((*port).into(), (*ip).into(), (*host).into())).collect();
        assert_eq!(got, expected, "{flag}");
    }

    #[test]
    fn ports_are_read_as_docker_reads_them() {
        check("80", &[("80/tcp", "", "")]);
        check("8080:80", &[("80/tcp", "", "8080")]);
        check("127.0.0.1:8080:80/udp", &[("80/udp", "127.0.0.1", "8080")]);
        check("127.0.0.1::80", &[("80/tcp", "127.0.0.1", "")]);
        check("[::1]:8080:80", &[("80/tcp", "::1", "8080")]);
        check("8080-8081:80-81", &[("80/tcp", "", "8080"), ("81/tcp", "", "8081")]);
        check("9000-9010:80", &[("80/tcp", "", "9000-9010")]);
        assert!(publish(&["80:x".to_owned()]).is_err());
        assert!(publish(&["1-2:1-3".to_owned()]).is_err());
        assert!(publish(&["80/http".to_owned()]).is_err());
        assert_eq!(expose("80-81/udp").unwrap(), ["80/udp", "81/udp"]);
    }
}

//! Ports: `80/tcp`, ranges, bindings, and how lists and inspections show them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use bireme_api::models::PortMap;
use bireme_core::spec::{Port, Protocol};
use bireme_engine::bounds;
use bireme_engine::request::Publish;
use bireme_engine::view::PublishedPort;
use serde_json::{Map, Value, json};

use super::Refusal;

/// Reads `80`, `80/udp`, `8000-8002/tcp`; every port of the range.
pub fn parse(text: &str) -> Result<Vec<Port>, Refusal> {
    let (numbers, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = match protocol.to_ascii_lowercase().as_str() {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        "sctp" => Protocol::Sctp,
        _ => {
            return Err(Refusal::invalid(format!(
                "Invalid proto: {protocol}: {text:?} must end in /tcp, /udp or /sctp"
            )));
        }
    };
    let (first, last) = range(numbers).filter(|(first, _)| *first > 0).ok_or_else(|| {
        Refusal::invalid(format!("Invalid containerPort: {text}: expected a port from 1 to 65535, or a range"))
    })?;
    Ok((first..=last).map(|number| Port { number, protocol }).collect())
}

/// Every port of many such texts, each once.
///
/// # Errors
/// Also `Invalid` where they are more than a workload may have: a few ranges are more than a short text looks like.
pub fn parse_all<'a>(texts: impl IntoIterator<Item = &'a String>) -> Result<BTreeSet<Port>, Refusal> {
    let mut all = BTreeSet::new();
    let mut count = 0;
    for text in texts {
        let ports = parse(text)?;
        count += ports.len();
        few(count, bounds::EXPOSED, "ports are named")?;
        all.extend(ports);
    }
    Ok(all)
}

fn few(count: usize, limit: usize, what: &str) -> Result<(), Refusal> {
    if count <= limit {
        return Ok(());
    }
    Err(Refusal::invalid(format!(
        "too many {what}: at most {limit} are taken; name each once, and those alone that are needed"
    )))
}

fn range(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    (first <= last).then_some((first, last))
}

/// Port bindings of a host configuration.
pub fn bindings(map: &PortMap) -> Result<Vec<Publish>, Refusal> {
    let mut published = Vec::new();
    let mut count = 0;
    for (key, bindings) in map {
        let ports = parse(key)?;
        count += ports.len();
        few(count, bounds::EXPOSED, "ports are named")?;
        let none = Vec::new();
        let bindings = bindings.as_ref().unwrap_or(&none);
        for binding in bindings {
            few(published.len() + ports.len(), bounds::PUBLISHED, "ports are published")?;
            let host_ip = match binding.host_ip.as_deref().unwrap_or_default() {
                "" => None,
                text => {
                    Some(text.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().map_err(|_| {
                        Refusal::invalid(format!("invalid IP address in binding of port {key}: {text:?}"))
                    })?)
                }
            };
            let text = binding.host_port.as_deref().unwrap_or_default();
            let host_ports = match text.split('/').next().unwrap_or_default() {
                "" | "0" => None,
                text => Some(range(text).ok_or_else(|| {
                    Refusal::invalid(format!(
                        "invalid port specification: {text:?}: expected a port or a range for {key}"
                    ))
                })?),
            };
            if let [container] = ports[..] {
                published.push(Publish { container, host_ip, host_ports });
                continue;
            }
            for (at, container) in ports.iter().enumerate() {
                let host_ports = match host_ports {
                    None => None,
                    Some((first, last)) if usize::from(last - first) + 1 == ports.len() => {
                        let port = first + u16::try_from(at).expect("no longer than the range of ports");
                        Some((port, port))
                    }
                    Some(_) => {
                        return Err(Refusal::invalid(format!(
                            "invalid ranges specified for container and host Ports: {key} and {text}: they must be of one length"
                        )));
                    }
                };
                published.push(Publish { container: *container, host_ip, host_ports });
            }
        }
    }
    // The wire has them in a map without order.
    published.sort_by_key(|publish| (publish.container, publish.host_ip, publish.host_ports));
    Ok(published)
}

/// `80/tcp`
pub fn name(port: Port) -> String {
    format!("{}/{}", port.number, port.protocol.as_str())
}

/// `Ports` of an inspection: every exposed port, `null` where it is not published.
pub fn inspected(exposed: &[Port], published: &[PublishedPort]) -> Value {
    let mut ports: BTreeMap<String, Option<Vec<Value>>> = exposed.iter().map(|port| (name(*port), None)).collect();
    for port in published {
        let binding = json!({ "HostIp": port.host.ip().to_string(), "HostPort": port.host.port().to_string() });
        ports.entry(name(port.container)).or_default().get_or_insert_default().push(binding);
    }
    json!(ports)
}

/// `Ports` of a list: one entry per binding, and one for each port that is only exposed.
pub fn listed(exposed: &[Port], published: &[PublishedPort]) -> Value {
    let mut ports = Vec::new();
    for port in published {
        ports.push(json!({
            "IP": port.host.ip().to_string(),
            "PrivatePort": port.container.number,
            "PublicPort": port.host.port(),
            "Type": port.container.protocol.as_str(),
        }));
    }
    let shown: BTreeSet<Port> = published.iter().map(|published| published.container).collect();
    for port in exposed.iter().filter(|port| !shown.contains(port)) {
        ports.push(json!({ "PrivatePort": port.number, "Type": port.protocol.as_str() }));
    }
    Value::Array(ports)
}

/// A set of ports as Docker spells it: `{"80/tcp":{}}`.
pub fn set(ports: &[Port]) -> Value {
    Value::Object(ports.iter().map(|port| (name(*port), json!({}))).collect::<Map<_, _>>())
}

#[cfg(test)]
mod tests {
    use bireme_api::models::PortBinding;

    use super::*;

    fn check(key: &str, ip: &str, host: &str, expected: &str) {
        let binding = PortBinding { host_ip: Some(ip.to_owned()), host_port: Some(host.to_owned()) };
        let got = match bindings(&PortMap::from([(key.to_owned(), Some(vec![binding]))])) {
            Err(refusal) => refusal.message,
            Ok(published) => published
                .iter()
                .map(|p| format!("{:?}:{:?}->{}", p.host_ip, p.host_ports, name(p.container)))
                .collect::<Vec<_>>()
                .join(" "),
        };
        assert_eq!(got, expected, "{ip}:{host}:{key}");
    }

    #[test]
    fn bindings_are_read_as_docker_reads_them() {
        check("80/tcp", "", "8080", "None:Some((8080, 8080))->80/tcp");
        check("80", "127.0.0.1", "", "Some(127.0.0.1):None->80/tcp");
        check("80/tcp", "", "0", "None:None->80/tcp");
        check("53/udp", "::1", "8000-8010", "Some(::1):Some((8000, 8010))->53/udp");
        check("80-81/tcp", "", "90-91", "None:Some((90, 90))->80/tcp None:Some((91, 91))->81/tcp");
        check(
            "80-81/tcp",
            "",
            "90",
            "invalid ranges specified for container and host Ports: 80-81/tcp and 90: they must be of one length",
        );
        check("0/tcp", "", "1", "Invalid containerPort: 0/tcp: expected a port from 1 to 65535, or a range");
        check("80/ip", "", "1", "Invalid proto: ip: \"80/ip\" must end in /tcp, /udp or /sctp");
        check("80/tcp", "nowhere", "1", "invalid IP address in binding of port 80/tcp: \"nowhere\"");
        check("80/tcp", "", "70000", "invalid port specification: \"70000\": expected a port or a range for 80/tcp");
    }

    #[test]
    fn exposed_ports_are_shown_without_a_binding() {
        let port = |number| Port { number, protocol: Protocol::Tcp };
        let published = [PublishedPort { container: port(80), host: "0.0.0.0:8080".parse().unwrap() }];
        insta::assert_snapshot!(inspected(&[port(80), port(81)], &published), @r#"{"80/tcp":[{"HostIp":"0.0.0.0","HostPort":"8080"}],"81/tcp":null}"#);
        insta::assert_snapshot!(listed(&[port(80), port(81)], &published), @r#"[{"IP":"0.0.0.0","PrivatePort":80,"PublicPort":8080,"Type":"tcp"},{"PrivatePort":81,"Type":"tcp"}]"#);
    }
}

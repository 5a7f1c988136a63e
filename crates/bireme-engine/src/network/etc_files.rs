//! What a container is given in `/etc` about names and servers.

use std::net::IpAddr;
use std::path::PathBuf;

use bireme_core::NetworkPlace;
use bireme_core::spec::{Dns, NetworkMode};

use super::names::finds_names;
use crate::container::Handle;
use crate::link::Linked;
use crate::view::Endpoint;

/// `/etc/hosts`, `/etc/resolv.conf` and `/etc/hostname`.
pub(super) fn etc_files(
    handle: &Handle,
    endpoints: &[Endpoint],
    place: Option<&NetworkPlace>,
    linked: &[Linked],
) -> Vec<(PathBuf, String)> {
    let spec = &handle.config.spec;
    let of_host = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let mut hosts = match spec.namespaces.network {
        NetworkMode::Host => of_host("/etc/hosts"),
        _ => "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\nff00::0\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n".to_owned(),
    };
    for (name, address) in &spec.extra_hosts {
        hosts.push_str(&format!("{address}\t{name}\n"));
    }
    for one in linked {
        hosts.push_str(&format!("{}\t{}\n", one.address, one.names()));
    }
    let full =
        if spec.domainname.is_empty() { String::new() } else { format!("{}.{} ", spec.hostname, spec.domainname) };
    for endpoint in endpoints {
        for (address, _) in [endpoint.ipv4, endpoint.ipv6].into_iter().flatten() {
            hosts.push_str(&format!("{address}\t{full}{}\n", spec.hostname));
        }
    }
    let named = finds_names(endpoints);
    let ours: Vec<IpAddr> = place.map(|place| place.dns.clone()).unwrap_or_default();
    // Where there are no names of ours to be found, servers that were asked for are asked without a detour.
    let servers = match (named, spec.dns.servers.is_empty()) {
        (true, _) => vec![IpAddr::V4(bireme_net::DNS_INSIDE)],
        (false, true) => ours,
        (false, false) => spec.dns.servers.clone(),
    };
    vec![
        (PathBuf::from("/etc/hosts"), hosts),
        (PathBuf::from("/etc/resolv.conf"), resolv_conf(&of_host("/etc/resolv.conf"), &servers, &spec.dns, named)),
        (PathBuf::from("/etc/hostname"), format!("{}\n", spec.hostname)),
    ]
}

/// The `/etc/resolv.conf` of a workload: what was not asked for is the host's. With names of ours, one without a dot is
/// looked for as it stands first, as with Docker. Pure.
pub(super) fn resolv_conf(of_host: &str, servers: &[IpAddr], asked: &Dns, named: bool) -> String {
    let lines = |key: &str| -> Vec<String> {
        let words = of_host.lines().filter_map(|line| line.trim().strip_prefix(key)?.strip_prefix([' ', '\t']));
        words.flat_map(str::split_whitespace).map(str::to_owned).collect()
    };
    let or = |asked: Vec<String>, key: &str| if asked.is_empty() { lines(key) } else { asked };
    let servers = or(servers.iter().map(ToString::to_string).collect(), "nameserver");
    let mut search = or(asked.search.clone(), "search");
    // A single dot asks for none.
    search.retain(|domain| domain != ".");
    let mut options = or(asked.options.clone(), "options");
    if named && !options.iter().any(|option| option.starts_with("ndots:")) {
        options.push("ndots:0".to_owned());
    }
    let mut text: String = servers.iter().map(|server| format!("nameserver {server}\n")).collect();
    for (key, words) in [("search", search), ("options", options)] {
        if !words.is_empty() {
            text.push_str(&format!("{key} {}\n", words.join(" ")));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolv_conf_is_the_hosts_but_for_what_was_asked() {
        let host = "# by hand\nnameserver 10.0.0.1\nsearch corp lan\noptions timeout:1\n";
        let check = |servers: &[&str], search: &[&str], options: &[&str], named, expected: &str| {
            let own = |list: &[&str]| list.iter().map(|word| (*word).to_owned()).collect();
            let servers: Vec<IpAddr> = servers.iter().map(|text| text.parse().unwrap()).collect();
            let asked = Dns { servers: Vec::new(), search: own(search), options: own(options) };
            assert_eq!(resolv_conf(host, &servers, &asked, named), expected);
        };
        check(&[], &[], &[], false, "nameserver 10.0.0.1\nsearch corp lan\noptions timeout:1\n");
        check(&["1.2.3.4"], &["."], &["ndots:3"], true, "nameserver 1.2.3.4\noptions ndots:3\n");
        check(&["1.2.3.4"], &["a.b"], &[], true, "nameserver 1.2.3.4\nsearch a.b\noptions timeout:1 ndots:0\n");
    }
}

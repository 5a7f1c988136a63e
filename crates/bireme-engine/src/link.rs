//! Links, Docker's older way for one container to find another: a line of `/etc/hosts` and variables that say where its
//! ports are. Networks of one's own have names instead. Pure but for looking up who is linked.

use std::net::IpAddr;

use bireme_core::spec::{Port, Protocol};

use crate::EngineError;
use crate::refusal::ContainerRefusal;
use crate::registry::Registry;
use crate::view::{DEFAULT_NETWORK, Link, WorkloadView};

/// A linked workload as it stands now.
pub(crate) struct Linked {
    pub(crate) address: IpAddr,
    pub(crate) alias: String,
    hostname: String,
    name: String,
    env: Vec<String>,
    ports: Vec<Port>,
}

impl Linked {
    /// Its line of `/etc/hosts`, without the address.
    pub(crate) fn names(&self) -> String {
        format!("{} {} {}", self.alias, self.hostname, self.name)
    }
}

/// What `asked` (name or ID, and alias) leads to.
///
/// # Errors
/// `Invalid` for what is not there.
pub(crate) fn links(registry: &Registry, asked: &[(String, String)]) -> Result<Vec<Link>, EngineError> {
    let one = |(name, alias): &(String, String)| match registry.find(name) {
        Ok(handle) => Ok(Link { to: handle.config.spec.id.clone(), alias: alias.clone() }),
        Err(source) => Err(ContainerRefusal::LinkToNone { name: name.clone(), source: Box::new(source) }.into()),
    };
    asked.iter().map(one).collect()
}

/// The links of workload `name` at its start.
///
/// # Errors
/// `Conflict` when one of them does not run, in Docker's words.
pub(crate) fn linked(registry: &Registry, name: &str, links: &[Link]) -> Result<Vec<Linked>, EngineError> {
    links.iter().map(|link| stand(&registry.with_id(&link.to)?.view(), link, name)).collect()
}

fn stand(other: &WorkloadView, link: &Link, name: &str) -> Result<Linked, EngineError> {
    let endpoints = || other.endpoints.iter().filter_map(|endpoint| Some((endpoint, endpoint.ipv4?.0)));
    let address = endpoints().find(|(of, _)| of.network_name == DEFAULT_NETWORK).or_else(|| endpoints().next());
    let Some((_, address)) = address.filter(|_| other.state.status.is_alive()) else {
        return Err(ContainerRefusal::LinkToStopped {
            other: other.name.clone(),
            name: name.to_owned(),
            alias: link.alias.clone(),
        }
        .into());
    };
    let spec = &other.config.spec;
    Ok(Linked {
        address,
        alias: link.alias.clone(),
        hostname: spec.hostname.clone(),
        name: other.name.clone(),
        env: spec.env.clone(),
        ports: spec.ports.clone(),
    })
}

/// The variables by which workload `name` finds what it is linked to.
///
/// Source: `links.EnvVars` of moby.
pub(crate) fn environment(name: &str, linked: &Linked) -> Vec<String> {
    let prefix = linked.alias.replace('-', "_").to_ascii_uppercase();
    let word = |port: &Port| port.protocol.as_str();
    let url = |port: &Port| format!("{}://{}:{}", word(port), linked.address, port.number);
    let mut ports = linked.ports.clone();
    ports.sort_by_key(|port| (port.number, port.protocol != Protocol::Tcp));
    let mut all = Vec::new();
    if let Some(first) = ports.first() {
        all.push(format!("{prefix}_PORT={}", url(first)));
    }
    for port in &ports {
        let one = format!("{prefix}_PORT_{}_{}", port.number, word(port).to_ascii_uppercase());
        all.push(format!("{one}={}", url(port)));
        all.push(format!("{one}_ADDR={}", linked.address));
        all.push(format!("{one}_PORT={}", port.number));
        all.push(format!("{one}_PROTO={}", word(port)));
    }
    all.push(format!("{prefix}_NAME=/{name}/{}", linked.alias));
    let own = linked.env.iter().filter(|entry| !entry.starts_with("HOME=") && !entry.starts_with("PATH="));
    all.extend(own.map(|entry| format!("{prefix}_ENV_{entry}")));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_dockers() {
        let linked = Linked {
            address: IpAddr::from([172, 17, 0, 2]),
            alias: "my-db".to_owned(),
            hostname: "h".to_owned(),
            name: "db".to_owned(),
            env: vec!["PATH=/bin".to_owned(), "FOO=bar".to_owned()],
            ports: vec![Port { number: 80, protocol: Protocol::Tcp }],
        };
        let expected = [
            "MY_DB_PORT=tcp://172.17.0.2:80",
            "MY_DB_PORT_80_TCP=tcp://172.17.0.2:80",
            "MY_DB_PORT_80_TCP_ADDR=172.17.0.2",
            "MY_DB_PORT_80_TCP_PORT=80",
            "MY_DB_PORT_80_TCP_PROTO=tcp",
            "MY_DB_NAME=/web/my-db",
            "MY_DB_ENV_FOO=bar",
        ];
        assert_eq!(environment("web", &linked), expected);
        assert_eq!(linked.names(), "my-db h db");
    }
}

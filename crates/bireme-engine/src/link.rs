//! Links, Docker's older way for one container to find another: a line of `/etc/hosts` and variables that say where its
//! ports are. Networks of one's own have names instead. Pure but for looking up who is linked.

use std::collections::HashMap;
use std::net::IpAddr;

use bireme_core::spec::{Port, Protocol};

use crate::EngineError;
use crate::actor::Command;
use crate::engine::Engine;
use crate::network::DEFAULT;
use crate::view::{Link, WorkloadView};

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

impl Engine {
    /// What `asked` (name or ID, and alias) leads to.
    pub(crate) fn links(&self, asked: &[(String, String)]) -> Result<Vec<Link>, EngineError> {
        let one = |(name, alias): &(String, String)| match self.find(name) {
            Ok(handle) => Ok(Link { to: handle.config.spec.id.clone(), alias: alias.clone() }),
            Err(error) => Err(EngineError::invalid(format!("could not get container for {name}: {error}"))),
        };
        asked.iter().map(one).collect()
    }

    /// What `container` is linked to: the other's name as it is now, and the alias. A link to what is gone is left out.
    pub fn link_names(&self, container: &WorkloadView) -> Vec<(String, String)> {
        let name = |link: &Link| Some((self.with_id(&link.to).ok()?.view().name.clone(), link.alias.clone()));
        container.links.iter().filter_map(name).collect()
    }

    /// The names `PARENT/ALIAS` that links give, by the ID of the workload they stand for.
    pub fn names_by_link(&self) -> HashMap<String, Vec<String>> {
        let mut names: HashMap<String, Vec<String>> = HashMap::new();
        for view in self.handles().iter().map(|handle| handle.view()) {
            for link in &view.links {
                names.entry(link.to.as_str().to_owned()).or_default().push(format!("{}/{}", view.name, link.alias));
            }
        }
        names
    }

    /// Removes the link `PARENT/ALIAS`; both workloads stay. A parent that runs keeps its line of `/etc/hosts` and its
    /// variables until its next start.
    ///
    /// # Errors
    /// `NotFound` when there is no such link; `Invalid` in Docker's words for the name of a workload.
    ///
    /// Source: Docker's `ContainerDelete` with `link`.
    pub async fn unlink(&self, name: &str) -> Result<(), EngineError> {
        self.find(name)?;
        let Some((parent, alias)) = name.strip_prefix('/').unwrap_or(name).split_once('/') else {
            return Err(EngineError::invalid("Conflict, cannot remove the default link name of the container"));
        };
        let alias = alias.to_owned();
        self.find(parent)?.command(|reply| Command::Unlink { alias, reply }).await
    }

    /// The links of workload `name` at its start.
    ///
    /// # Errors
    /// `Conflict` when one of them does not run, in Docker's words.
    pub(crate) fn linked(&self, name: &str, links: &[Link]) -> Result<Vec<Linked>, EngineError> {
        links.iter().map(|link| stand(&self.with_id(&link.to)?.view(), link, name)).collect()
    }
}

fn stand(other: &WorkloadView, link: &Link, name: &str) -> Result<Linked, EngineError> {
    let endpoints = || other.endpoints.iter().filter_map(|endpoint| Some((endpoint, endpoint.ipv4?.0)));
    let address = endpoints().find(|(of, _)| of.network_name == DEFAULT).or_else(|| endpoints().next());
    let Some((_, address)) = address.filter(|_| other.state.status.is_alive()) else {
        return Err(EngineError::conflict(format!(
            "Cannot link to a non running container: /{} AS /{name}/{}: start it first",
            other.name, link.alias
        )));
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

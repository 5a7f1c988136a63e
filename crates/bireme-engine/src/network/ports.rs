//! Published ports: as listening sockets that are handed over, or forwarded by the network, as the executor says.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use bireme_core::executor::Power;
use bireme_core::spec::{NetworkMode, Protocol};
use bireme_core::{Listener, SandboxId};
use bireme_net::{Forward, NetworkId};

use super::Networks;
use super::spec::{HOST_BINDING, bound_to};
use crate::container::{Handle, MutableState};
use crate::refusal::{BindFailure, NetworkRefusal};
use crate::request::Publish;
use crate::view::{Endpoint, PublishedPort};
use crate::{EngineError, bounds};

/// A host port whose listening socket was handed to a sandbox.
pub(super) struct SharedPort {
    pub(super) sandbox: SandboxId,
    /// `None` when an earlier daemon bound it: the sandbox's host process still holds it.
    pub(super) socket: Option<OwnedFd>,
    pub(super) users: HashSet<String>,
    /// Internal networks are kept from it.
    pub(super) told: bool,
}

/// That a workload has not published the port before, to itself: nobody could tell the two apart.
///
/// # Errors
/// `PortAllocated`, in Docker's words.
pub(super) fn not_twice(
    handle: &Handle,
    publish: &Publish,
    number: u16,
    mutable: &MutableState,
) -> Result<(), EngineError> {
    let wanted = publish.host_ip.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    let same_address = |other: IpAddr| {
        other.is_ipv4() == wanted.is_ipv4() && (other == wanted || other.is_unspecified() || wanted.is_unspecified())
    };
    let same = |port: &PublishedPort| {
        port.container.protocol == publish.container.protocol
            && port.host.port() == number
            && same_address(port.host.ip())
    };
    if number == 0 || !mutable.ports.iter().any(same) {
        return Ok(());
    }
    let owner = handle.view().name.clone();
    Err(bireme_net::NetError::PortAllocated { owner, host: SocketAddr::new(wanted, number) }.into())
}

/// What is to be asked for so that `held` ports are published again, at the numbers that they have and at the addresses that
/// were `asked` for: where none was, at those of the network by which they are published now.
pub(super) fn again(asked: &[Publish], held: &[PublishedPort]) -> Vec<Publish> {
    let mut all: Vec<Publish> = Vec::new();
    for port in held {
        let number = port.host.port();
        let by_name = asked.iter().any(|one| {
            one.container == port.container
                && one.host_ip == Some(port.host.ip())
                && one.host_ports.is_none_or(|(first, last)| first == 0 || (first..=last).contains(&number))
        });
        let host_ip = by_name.then_some(port.host.ip());
        let publish = Publish { container: port.container, host_ip, host_ports: Some((number, number)) };
        if !all.contains(&publish) {
            all.push(publish);
        }
    }
    all
}

/// The endpoint that published ports lead to.
pub(super) fn ingress_endpoint<'a>(networks: &Networks, endpoints: &'a [Endpoint]) -> Option<&'a Endpoint> {
    endpoints.iter().find(|e| e.ipv4.is_some() && networks.get(&e.network).is_ok_and(|n| !n.internal))
}

/// The address that a port of `host` leads to: of the same family where there is one.
pub(super) fn target(endpoint: &Endpoint, host: IpAddr) -> Option<IpAddr> {
    let of_family = if host.is_ipv6() { endpoint.ipv6 } else { None };
    of_family.or(endpoint.ipv4).map(|(address, _)| address)
}

impl Networks {
    pub(super) async fn open_ports(
        &self,
        handle: &Arc<Handle>,
        mutable: &mut MutableState,
    ) -> Result<Vec<Listener>, EngineError> {
        let config = &handle.config;
        let mode = &config.spec.namespaces.network;
        // On the machine's own network a process listens where it likes; what is handed its sockets, where it is published.
        let on_host = *mode == NetworkMode::Host && handle.executor.takes_listeners();
        if *mode != NetworkMode::Attached && !on_host {
            return Ok(Vec::new());
        }
        let mut wanted = config.publish.clone();
        if config.publish_all && !on_host {
            // One that an older version took may have more than are taken now.
            let further = bounds::all_published(&config.spec.ports, config.publish.iter().map(|one| one.container))?;
            wanted.extend(further.into_iter().map(|container| Publish { container, host_ip: None, host_ports: None }));
        }
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let endpoint = ingress_endpoint(self, &mutable.endpoints).cloned();
        if endpoint.is_none() && !on_host {
            // Source: moby's libnetwork, where an internal network is no gateway and programs no ports.
            tracing::warn!(
                workload.id = handle.id(),
                "none of its networks leads outside: its published ports stay closed"
            );
            return Ok(Vec::new());
        }
        // A range takes what those leave that name one port, and who names none takes what is left of all.
        wanted.sort_by_key(|publish| publish.host_ports.map_or(u16::MAX, |(first, last)| last.saturating_sub(first)));
        let mut listeners = Vec::new();
        for publish in wanted {
            match &endpoint {
                endpoint if handle.executor.takes_listeners() => {
                    listeners.extend(self.open_listeners(handle, &publish, endpoint.as_ref(), mutable)?);
                }
                Some(endpoint) => self.open_forward(handle, &publish, endpoint, mutable).await?,
                None => {}
            }
        }
        // Before they are handed over.
        let untold = {
            let mut ports = self.ports();
            let untold = ports.iter_mut().filter(|(_, shared)| !shared.told && shared.users.contains(handle.id()));
            let numbers: Vec<u16> = untold.map(|(host, shared)| (host.port(), shared.told = true).0).collect();
            numbers
        };
        if !untold.is_empty() {
            self.services.net().hand_over(&untold).await?;
        }
        Ok(listeners)
    }

    pub(super) fn open_listeners(
        &self,
        handle: &Handle,
        publish: &Publish,
        endpoint: Option<&Endpoint>,
        mutable: &mut MutableState,
    ) -> Result<Vec<Listener>, EngineError> {
        if publish.container.protocol != Protocol::Tcp {
            return Err(handle.lacks(Power::Publish(publish.container)));
        }
        let bound = endpoint.map(|endpoint| self.bound(handle, publish, endpoint)).transpose()?;
        let publish = bound.as_ref().unwrap_or(publish);
        let (first, last) = publish.host_ports.unwrap_or((0, 0));
        let mut refusal = None;
        for number in first..=last {
            if let Err(error) = not_twice(handle, publish, number, mutable) {
                refusal = Some(error);
                continue;
            }
            match self.listen(handle, publish, number) {
                Ok(listeners) => {
                    mutable
                        .ports
                        .extend(listeners.iter().map(|l| PublishedPort { container: l.container, host: l.host }));
                    return Ok(listeners);
                }
                Err(error) => refusal = Some(error),
            }
        }
        Err(refusal.unwrap_or_else(|| NetworkRefusal::NoPorts.into()))
    }

    /// Opens one host port on the addresses asked for. An IPv6 that this machine lacks is no error when every address was
    /// meant.
    pub(super) fn listen(&self, handle: &Handle, publish: &Publish, number: u16) -> Result<Vec<Listener>, EngineError> {
        let sandbox = handle.executor.sandbox(&handle.config.spec);
        let mut ports = self.ports();
        let mut listeners: Vec<Listener> = Vec::new();
        let addresses = match publish.host_ip {
            Some(ip) => vec![ip],
            None => vec![IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)],
        };
        let mut number = number;
        let taken = |host: SocketAddr, why: BindFailure| {
            EngineError::from(NetworkRefusal::Bind { name: handle.view().name.clone(), host, why })
        };
        let refused = |host: SocketAddr, source: std::io::Error| match source.kind() {
            std::io::ErrorKind::AddrInUse => taken(host, BindFailure::InUse),
            _ => taken(host, BindFailure::Io(source)),
        };
        for ip in addresses {
            let asked = SocketAddr::new(ip, number);
            if let Some(shared) = ports.get_mut(&asked) {
                if shared.sandbox != sandbox {
                    return Err(taken(asked, BindFailure::OfAnotherApp));
                }
                let socket = shared
                    .socket
                    .as_ref()
                    .map(OwnedFd::try_clone)
                    .transpose()
                    .map_err(|error| refused(asked, error))?;
                shared.users.insert(handle.id().to_owned());
                listeners.push(Listener { host: asked, container: publish.container, socket });
                continue;
            }
            let socket = match bireme_sys::listen::tcp_to_serve_alone(asked) {
                Ok(socket) => socket,
                Err(error)
                    if ip.is_ipv6() && publish.host_ip.is_none() && error.kind() != std::io::ErrorKind::AddrInUse =>
                {
                    continue;
                }
                Err(error) => return Err(refused(asked, error)),
            };
            let host = bireme_sys::listen::local_address(&socket).map_err(|error| refused(asked, error))?;
            number = host.port();
            let copy = socket.try_clone().map_err(|error| refused(host, error))?;
            let users = HashSet::from([handle.id().to_owned()]);
            ports.insert(host, SharedPort { sandbox: sandbox.clone(), socket: Some(socket), users, told: false });
            listeners.push(Listener { host, container: publish.container, socket: Some(copy) });
        }
        Ok(listeners)
    }

    pub(super) async fn close_ports(&self, owner: &str) {
        let mut closed = Vec::new();
        self.ports().retain(|host, shared| {
            shared.users.remove(owner);
            if shared.users.is_empty() && shared.told {
                closed.push(host.port());
            }
            !shared.users.is_empty()
        });
        if !closed.is_empty()
            && let Err(error) = self.services.net().take_back(&closed).await
        {
            tracing::warn!(workload.id = owner, %error, "ports stay closed to internal networks");
        }
    }

    /// What is published without an address of its own is at that of the network.
    pub(super) fn bound(
        &self,
        handle: &Handle,
        publish: &Publish,
        endpoint: &Endpoint,
    ) -> Result<Publish, EngineError> {
        let host_ip = match publish.host_ip {
            Some(asked) => Some(asked),
            None => self.host_binding(endpoint).inspect_err(|_| {
                tracing::warn!(workload.id = handle.id(), network = endpoint.network_name, "a port is not published");
            })?,
        };
        Ok(Publish { host_ip, ..publish.clone() })
    }

    pub(super) async fn open_forward(
        &self,
        handle: &Handle,
        publish: &Publish,
        endpoint: &Endpoint,
        mutable: &mut MutableState,
    ) -> Result<(), EngineError> {
        let network = NetworkId::parse(&endpoint.network).map_err(NetworkRefusal::Id)?;
        let forward = |host: SocketAddr| {
            let target = target(endpoint, host.ip())?;
            Some(Forward {
                owner: handle.id().to_owned(),
                protocol: publish.container.protocol,
                host,
                target: SocketAddr::new(target, publish.container.number),
                network: network.clone(),
            })
        };
        let publish = &self.bound(handle, publish, endpoint)?;
        let (first, last) = publish.host_ports.unwrap_or((0, 0));
        // A port that the kernel chose for the first address may be taken on the second: then it chooses again.
        let tries = if first == 0 { 0..=8 } else { first..=last };
        let mut refusal = None;
        for number in tries {
            let number = if first == 0 { 0 } else { number };
            if let Err(error) = not_twice(handle, publish, number, mutable) {
                refusal = Some(error);
                continue;
            }
            match self.forward_all(handle, publish, number, &forward).await {
                Ok(hosts) => {
                    mutable
                        .ports
                        .extend(hosts.into_iter().map(|host| PublishedPort { container: publish.container, host }));
                    return Ok(());
                }
                Err(error) => refusal = Some(error),
            }
        }
        Err(refusal.unwrap_or_else(|| NetworkRefusal::NoPorts.into()))
    }

    /// # Errors
    /// `Invalid` for one that an older version took and that is no address: nothing is published then.
    pub(super) fn host_binding(&self, endpoint: &Endpoint) -> Result<Option<IpAddr>, EngineError> {
        let list = self.list();
        let asked = list.get(&endpoint.network).and_then(|entry| entry.network.options.get(HOST_BINDING));
        asked.map_or(Ok(None), |text| bound_to(&endpoint.network_name, text))
    }

    /// Publishes one port on the address asked for, or on every one of the host. An IPv6 that this machine lacks, or that
    /// nothing can lead from, is no error when every address was meant.
    pub(super) async fn forward_all(
        &self,
        handle: &Handle,
        publish: &Publish,
        number: u16,
        forward: &impl Fn(SocketAddr) -> Option<Forward>,
    ) -> Result<Vec<SocketAddr>, EngineError> {
        let invalid = || NetworkRefusal::NoAddress { name: handle.view().name.clone() };
        let host = publish.host_ip.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        let first = self.services.net().publish(&forward(SocketAddr::new(host, number)).ok_or_else(invalid)?).await?;
        let mut hosts = vec![first];
        let second = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), first.port());
        if let (None, Some(forward)) = (publish.host_ip, forward(second)) {
            match self.services.net().publish(&forward).await {
                Ok(host) => hosts.push(host),
                Err(error) if error.kind() == bireme_core::ErrorKind::Conflict => {
                    self.services.net().unpublish_one(handle.id(), first).await?;
                    return Err(error.into());
                }
                Err(error) => tracing::debug!(workload.id = handle.id(), %error, "a port is not published over IPv6"),
            }
        }
        Ok(hosts)
    }

    /// The forwards of a workload that runs on, for the network to take up again.
    pub(crate) fn forwards_of(&self, handle: &Handle, mutable: &MutableState) -> Vec<Forward> {
        if handle.executor.takes_listeners() { Vec::new() } else { self.forwards(handle.id(), mutable) }
    }

    pub(super) fn forwards(&self, owner: &str, mutable: &MutableState) -> Vec<Forward> {
        let Some(endpoint) = ingress_endpoint(self, &mutable.endpoints) else { return Vec::new() };
        let Ok(network) = NetworkId::parse(&endpoint.network) else { return Vec::new() };
        let forward = |port: &PublishedPort| {
            Some(Forward {
                owner: owner.to_owned(),
                protocol: port.container.protocol,
                host: port.host,
                target: SocketAddr::new(target(endpoint, port.host.ip())?, port.container.number),
                network: network.clone(),
            })
        };
        mutable.ports.iter().filter_map(forward).collect()
    }

    /// That a component which runs is published by the same addresses without its endpoint `at`: its sockets are its own
    /// until it ends.
    ///
    /// # Errors
    /// `Conflict`, with what to do first.
    pub(super) fn stays_served(&self, handle: &Handle, endpoints: &[Endpoint], at: usize) -> Result<(), EngineError> {
        let rest: Vec<Endpoint> = [&endpoints[..at], &endpoints[at + 1..]].concat();
        let next = ingress_endpoint(self, &rest);
        if let Some(next) = next
            && self.host_binding(next)? == self.host_binding(&endpoints[at])?
        {
            return Ok(());
        }
        Err(NetworkRefusal::ServedBy { name: handle.view().name.clone(), network: endpoints[at].network_name.clone() }
            .into())
    }

    /// Publishes again, by way of another network, what led to an endpoint that a workload no longer has. Where it has no
    /// other, and what cannot be published so, is published no longer.
    pub(super) async fn publish_again(&self, handle: &Handle, ports: &[PublishedPort], mutable: &mut MutableState) {
        let Some(endpoint) = ingress_endpoint(self, &mutable.endpoints).cloned() else { return };
        for publish in again(&handle.config.publish, ports) {
            if let Err(error) = self.open_forward(handle, &publish, &endpoint, mutable).await {
                tracing::warn!(
                    workload.id = handle.id(),
                    port = publish.host_ports.map(|(port, _)| port),
                    error = &error as &dyn std::error::Error,
                    "a port could not be published by way of another network, and is published no longer"
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bireme_core::spec::Port;

    use super::*;

    #[test]
    fn ports_are_published_again_at_their_numbers_and_where_they_were_asked_for() {
        let port = |number| Port { number, protocol: Protocol::Tcp };
        let ask = |number, host_ip: Option<&str>, host_ports| Publish {
            container: port(number),
            host_ip: host_ip.map(|ip| ip.parse().unwrap()),
            host_ports,
        };
        let held = |number, host: &str| PublishedPort { container: port(number), host: host.parse().unwrap() };
        let asked = [ask(80, None, Some((8080, 8089))), ask(81, Some("127.0.0.1"), None), ask(82, None, None)];
        // The first network had its own address for what was asked for without one.
        let had =
            [held(80, "192.0.2.1:8081"), held(81, "127.0.0.1:4000"), held(82, "0.0.0.0:4001"), held(82, "[::]:4001")];
        let expected = [
            ask(80, None, Some((8081, 8081))),
            ask(81, Some("127.0.0.1"), Some((4000, 4000))),
            ask(82, None, Some((4001, 4001))),
        ];
        assert_eq!(again(&asked, &had), expected);
        assert!(again(&asked, &[]).is_empty());
    }
}

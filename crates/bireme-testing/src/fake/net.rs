//! Networks that are entries of a [`Machine`].

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use bireme_core::{BoxFuture, Names, SandboxId};
use bireme_net::{Attached, Endpoint, Forward, Keep, Net, NetError, NetworkId, NetworkSpec, SweepReport};
use ipnet::IpNet;

use super::machine::{Machine, World};

/// The networks of a [`Machine`].
pub struct FakeNet {
    machine: Machine,
}

impl FakeNet {
    /// The networks of `machine`; all that are made of it see the same.
    pub fn new(machine: &Machine) -> Self {
        Self { machine: machine.clone() }
    }

    fn call<'a, T: Send + 'a>(
        &'a self,
        name: &'static str,
        act: impl FnOnce(&mut World) -> Result<T, NetError> + Send + 'a,
    ) -> BoxFuture<'a, Result<T, NetError>> {
        let failed = move || NetError::failed(name, io::Error::other("it was made to fail"));
        Box::pin(self.machine.call(name, failed, act))
    }
}

fn same(one: &Endpoint, other: &Endpoint) -> bool {
    (&one.sandbox, &one.network, &one.owner) == (&other.sandbox, &other.network, &other.owner)
}

/// Takes an endpoint away, and the forwards that lead to it.
fn take_away(world: &mut World, gone: impl Fn(&Endpoint) -> bool) {
    let (left, taken): (Vec<_>, Vec<_>) = world.endpoints.drain(..).partition(|endpoint| !gone(endpoint));
    world.endpoints = left;
    world.forwards.retain(|forward| {
        let leads_to = |endpoint: &Endpoint| endpoint.addresses.iter().any(|net| net.addr() == forward.target.ip());
        !taken.iter().any(|endpoint| endpoint.network == forward.network && leads_to(endpoint))
    });
}

impl Net for FakeNet {
    fn sweep(&self, keep: Keep) -> BoxFuture<'_, Result<SweepReport, NetError>> {
        self.call("sweep", move |world| {
            let mut report = SweepReport::default();
            world.networks = keep.networks.into_iter().map(|spec| (spec.id.clone(), spec)).collect();
            let of_endpoints = keep.endpoints.iter().map(|endpoint| &endpoint.sandbox);
            let kept: Vec<_> = of_endpoints.chain(&keep.sandboxes).chain(&keep.untouched).cloned().collect();
            world.sandboxes.retain(|sandbox| kept.contains(sandbox));
            for endpoint in &keep.endpoints {
                let there = world.sandboxes.contains(&endpoint.sandbox);
                match world.endpoints.iter().any(|other| same(other, endpoint)) {
                    true => report.adopted.push(endpoint.clone()),
                    false if there && world.networks.contains_key(&endpoint.network) => {
                        report.lost.push(endpoint.clone());
                        report.detached.push(endpoint.clone());
                    }
                    false => report.lost.push(endpoint.clone()),
                }
            }
            world.endpoints.retain(|endpoint| keep.endpoints.iter().any(|other| same(other, endpoint)));
            world.forwards = keep.forwards;
            world.handed.clear();
            for port in keep.handed {
                *world.handed.entry(port).or_default() += 1;
            }
            Ok(report)
        })
    }

    fn clear(&self) -> BoxFuture<'_, Result<SweepReport, NetError>> {
        self.call("clear", move |world| {
            world.networks.clear();
            world.sandboxes.clear();
            world.endpoints.clear();
            world.forwards.clear();
            world.handed.clear();
            Ok(SweepReport::default())
        })
    }

    fn warn_of_firewalls(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }

    fn host_routes(&self) -> Result<Vec<IpNet>, NetError> {
        Ok(Vec::new())
    }

    fn ensure_network<'a>(&'a self, network: &'a NetworkSpec) -> BoxFuture<'a, Result<(), NetError>> {
        self.call("ensure_network", move |world| {
            world.networks.insert(network.id.clone(), network.clone());
            Ok(())
        })
    }

    fn shares_subnet<'a>(&'a self, _: &'a NetworkId, _: IpNet) -> BoxFuture<'a, Result<bool, NetError>> {
        self.call("shares_subnet", move |_| Ok(false))
    }

    fn remove_network<'a>(&'a self, id: &'a NetworkId) -> BoxFuture<'a, Result<(), NetError>> {
        self.call("remove_network", move |world| {
            if world.endpoints.iter().any(|endpoint| endpoint.network == *id) {
                let reason = "workloads are on it".to_owned();
                return Err(NetError::NetworkConflict { network: id.to_string(), reason });
            }
            world.networks.remove(id);
            Ok(())
        })
    }

    fn ensure_sandbox<'a>(&'a self, id: &'a SandboxId) -> BoxFuture<'a, Result<PathBuf, NetError>> {
        self.call("ensure_sandbox", move |world| {
            world.sandboxes.insert(id.clone());
            Ok(PathBuf::from("/nowhere").join(id.as_str()))
        })
    }

    fn running_sandbox<'a>(&'a self, id: &'a SandboxId, _: Option<u32>) -> BoxFuture<'a, Result<PathBuf, NetError>> {
        self.call("running_sandbox", move |world| match world.sandboxes.contains(id) {
            true => Ok(PathBuf::from("/nowhere").join(id.as_str())),
            false => Err(NetError::NoSandbox(id.clone())),
        })
    }

    fn remove_sandbox<'a>(&'a self, id: &'a SandboxId) -> BoxFuture<'a, Result<(), NetError>> {
        self.call("remove_sandbox", move |world| {
            take_away(world, |endpoint| endpoint.sandbox == *id);
            world.sandboxes.remove(id);
            Ok(())
        })
    }

    fn attach<'a>(&'a self, endpoint: &'a Endpoint) -> BoxFuture<'a, Result<Attached, NetError>> {
        self.call("attach", move |world| {
            if !world.networks.contains_key(&endpoint.network) {
                return Err(NetError::NoNetwork(endpoint.network.clone()));
            }
            if !world.sandboxes.contains(&endpoint.sandbox) {
                return Err(NetError::NoSandbox(endpoint.sandbox.clone()));
            }
            let others = world.endpoints.iter().filter(|other| other.network == endpoint.network);
            let others = others.filter(|other| other.owner != endpoint.owner);
            let twice = others.flat_map(|other| &other.addresses).find(|net| endpoint.addresses.contains(net)).copied();
            if let Some(twice) = twice {
                world.breach(format!("address {twice} was given to two"));
            }
            world.endpoints.retain(|other| !same(other, endpoint));
            world.endpoints.push(endpoint.clone());
            let named = |text: &str| text.to_owned();
            Ok(Attached { interface: named("eth0"), mac: named("02:42:ac:11:00:02"), host_interface: named("veth0") })
        })
    }

    fn detach<'a>(&'a self, endpoint: &'a Endpoint) -> BoxFuture<'a, Result<(), NetError>> {
        self.call("detach", move |world| {
            take_away(world, |other| same(other, endpoint));
            Ok(())
        })
    }

    fn lead_out<'a>(
        &'a self,
        sandbox: &'a SandboxId,
        wanted: &'a [NetworkId],
    ) -> BoxFuture<'a, Result<Option<NetworkId>, NetError>> {
        self.call("lead_out", move |world| {
            let leads = |id: &&NetworkId| world.networks.get(*id).is_some_and(|network| !network.internal);
            let on = world.endpoints.iter().filter(|endpoint| endpoint.sandbox == *sandbox);
            let on: Vec<_> = on.map(|endpoint| &endpoint.network).filter(leads).collect();
            let first = wanted.iter().find(|id| on.contains(id)).or(on.first().copied());
            Ok(first.cloned())
        })
    }

    fn publish<'a>(&'a self, forward: &'a Forward) -> BoxFuture<'a, Result<SocketAddr, NetError>> {
        self.call("publish", move |world| {
            let mut forward = forward.clone();
            if forward.host.port() == 0 {
                world.next_port += 1;
                forward.host.set_port(40_000 + world.next_port);
            }
            let port = (forward.protocol, forward.host);
            if let Some(other) = world.forwards.iter().find(|other| (other.protocol, other.host) == port) {
                let owner = forward.owner.clone();
                return match other.owner == owner {
                    true => Ok(forward.host),
                    false => Err(NetError::PortAllocated { owner, host: forward.host }),
                };
            }
            world.forwards.push(forward.clone());
            Ok(forward.host)
        })
    }

    fn unpublish<'a>(&'a self, owner: &'a str) -> BoxFuture<'a, Result<(), NetError>> {
        self.call("unpublish", move |world| {
            world.forwards.retain(|forward| forward.owner != owner);
            Ok(())
        })
    }

    fn unpublish_one<'a>(&'a self, owner: &'a str, host: SocketAddr) -> BoxFuture<'a, Result<(), NetError>> {
        self.call("unpublish_one", move |world| {
            world.forwards.retain(|forward| forward.owner != owner || forward.host != host);
            Ok(())
        })
    }

    fn retake_ports(&self) -> BoxFuture<'_, Result<usize, NetError>> {
        self.call("retake_ports", move |_| Ok(0))
    }

    fn hand_over<'a>(&'a self, ports: &'a [u16]) -> BoxFuture<'a, Result<(), NetError>> {
        Box::pin(async move {
            let told = self.call("hand_over", |_| Ok(()));
            // Also where it failed: what was told of is to be taken back all the same.
            let told = told.await;
            let mut world = self.machine.world();
            for port in ports {
                *world.handed.entry(*port).or_default() += 1;
            }
            told
        })
    }

    fn take_back<'a>(&'a self, ports: &'a [u16]) -> BoxFuture<'a, Result<(), NetError>> {
        self.call("take_back", move |world| {
            for port in ports {
                match world.handed.get_mut(port) {
                    Some(1) => drop(world.handed.remove(port)),
                    Some(count) => *count -= 1,
                    None => world.breach(format!("port {port} was taken back and not handed over")),
                }
            }
            Ok(())
        })
    }

    fn serve_inside<'a>(&'a self, sandbox: &'a SandboxId) -> BoxFuture<'a, Result<(), NetError>> {
        self.call("serve_inside", move |world| match world.sandboxes.contains(sandbox) {
            true => Ok(()),
            false => Err(NetError::NoSandbox(sandbox.clone())),
        })
    }

    fn dns_servers(&self, sandbox: &SandboxId) -> Vec<IpAddr> {
        let world = self.machine.world();
        let on = world.endpoints.iter().filter(|endpoint| endpoint.sandbox == *sandbox);
        let gateways = on.filter_map(|endpoint| world.networks.get(&endpoint.network)?.subnets.first());
        gateways.map(|subnet| subnet.gateway).collect()
    }

    fn set_upstream(&self, _: &SandboxId, _: &[IpAddr]) {}

    fn set_network_names(&self, _: &NetworkId, _: Names, _: HashMap<IpAddr, Names>) {}

    fn change_network_names(&self, _: &NetworkId, _: &Names, _: HashMap<IpAddr, Names>) {}

    fn set_reverse_name(&self, _: &[IpAddr], _: &str) {}
}

//! Published ports: the rules that forward them, the sockets that keep others from them, and ports whose sockets
//! workloads were handed.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

use bireme_core::spec::Protocol;
use bireme_sys::listen;
use rustix::io::Errno;

use super::State;
use crate::proxy::{self, Passing};
use crate::rules::Proxied;
use crate::{Forward, NetError, NetworkId};

/// A published port and the socket that keeps others from it.
pub(super) struct Held {
    /// With the port that the kernel chose, if it was asked to.
    pub(super) forward: Forward,
    pub(super) asked: SocketAddr,
    pub(super) reservation: Reservation,
}

impl Held {
    /// What the rules are to know of the socket.
    pub(super) fn proxied(&self) -> Option<Proxied> {
        matches!(self.reservation, Reservation::Passed(_)).then_some((self.forward.protocol, self.forward.host.port()))
    }

    /// What the rules are to know of a socket that is somebody else's.
    pub(super) fn missing(&self) -> Option<Proxied> {
        let passes = self.forward.host.is_ipv6() && self.forward.protocol != Protocol::Sctp;
        let missing = matches!(self.reservation, Reservation::Missing) && passes;
        missing.then_some((self.forward.protocol, self.forward.host.port()))
    }

    /// Whether this one has a port that `other` would take.
    fn has_port_of(&self, other: &Forward) -> bool {
        let (own, host) = (self.forward.host, other.host);
        self.forward.protocol == other.protocol
            && own.port() == host.port()
            && own.is_ipv4() == host.is_ipv4()
            && (own.ip() == host.ip() || own.ip().is_unspecified() || host.ip().is_unspecified())
    }

    /// Whether the kernel forwards it; otherwise all of it goes through the socket.
    pub(super) fn ruled(&self) -> bool {
        self.forward.host.is_ipv4() == self.forward.target.is_ipv4()
    }
}

/// Both end when dropped.
pub(super) enum Reservation {
    /// Nobody ever connects to it: the rules come before.
    Held(#[expect(dead_code, reason = "it is there to be open")] OwnedFd),
    /// Passes on what the rules cannot: what comes to `::1`, and from IPv6 to an IPv4 workload. Stands still while the
    /// daemon does.
    Passed(Passing),
    /// Another program had the port when it was to be taken up again.
    Missing,
}

impl State {
    pub(crate) fn publish(&mut self, forward: &Forward) -> Result<SocketAddr, NetError> {
        let same = |held: &&Held| {
            let of = &held.forward;
            // Of ports that the kernel chooses, each is another one.
            let asked = forward.host.port() != 0;
            asked && of.owner == forward.owner && of.protocol == forward.protocol && of.target == forward.target
        };
        if let Some(held) = self.forwards.iter().filter(same).find(|held| held.asked == forward.host) {
            return Ok(held.forward.host);
        }
        // Of those that no socket keeps from others.
        let lost = |held: &Held| matches!(held.reservation, Reservation::Missing) && held.has_port_of(forward);
        if self.forwards.iter().any(lost) {
            return Err(NetError::PortAllocated { owner: short(&forward.owner), host: forward.host });
        }
        let mut held = self.reserve(forward)?;
        // A number that the kernel chose may be one whose last holder is not forgotten yet.
        for _ in 0..8 {
            if forward.host.port() != 0 || !self.remembers_port(&held.forward) {
                break;
            }
            held = self.reserve(forward)?;
        }
        let address = held.forward.host;
        let attempt = format!("publishing {address}/{}", forward.protocol.as_str());
        if held.ruled() {
            self.ruled(|rules| rules.add_forward(&held.forward)).map_err(NetError::kernel(attempt.clone()))?;
            self.stale.published(&held.forward);
        }
        if let Some(proxied) = held.proxied() {
            self.ruled(|rules| rules.add_proxied(proxied)).map_err(NetError::kernel(attempt))?;
        }
        self.forwards.push(held);
        Ok(address)
    }

    /// Checks a forward and takes its port on the host.
    pub(super) fn reserve(&self, forward: &Forward) -> Result<Held, NetError> {
        let network =
            self.networks.get(&forward.network).ok_or_else(|| NetError::NoNetwork(forward.network.clone()))?;
        let protocol = forward.protocol.as_str();
        let refuse =
            |reason| Err(NetError::UnsupportedForward { host: forward.host, protocol, target: forward.target, reason });
        if network.spec.internal {
            return refuse("its network is internal; attach the workload to another network to publish its ports");
        }
        let proxied = forward.host.is_ipv6() && forward.protocol != Protocol::Sctp;
        if forward.host.is_ipv4() != forward.target.is_ipv4() && !proxied {
            return refuse(
                "SCTP does not lead from IPv6 to an IPv4 workload, and nothing the other way; publish it on an address of the workload's family",
            );
        }
        let (host, target) = (forward.host, forward.target);
        let bound = match forward.protocol {
            Protocol::Tcp => listen::tcp(host),
            Protocol::Udp => listen::udp(host),
            Protocol::Sctp => match listen::sctp(host) {
                Err(error) if Errno::from_io_error(&error) == Some(Errno::PROTONOSUPPORT) => {
                    return refuse("this kernel has no SCTP; load the module sctp");
                }
                answer => answer,
            },
        };
        let owner = short(&forward.owner);
        let reservation = bound.map_err(|source| {
            if source.kind() == io::ErrorKind::AddrInUse && self.forwards.iter().any(|held| held.has_port_of(forward)) {
                NetError::PortAllocated { owner: owner.clone(), host }
            } else {
                NetError::PortTaken { owner: owner.clone(), host, target, protocol, source }
            }
        })?;
        let actual = listen::local_address(&reservation).map_err(|source| NetError::PortTaken {
            owner,
            host,
            target,
            protocol,
            source,
        })?;
        let forward = Forward { host: SocketAddr::new(host.ip(), actual.port()), ..forward.clone() };
        let reservation = if proxied {
            let passing = match forward.protocol {
                Protocol::Udp => proxy::udp(&self.pool, &self.runtime, reservation.into(), target),
                Protocol::Tcp | Protocol::Sctp => proxy::tcp(&self.pool, &self.runtime, reservation.into(), target),
            };
            Reservation::Passed(passing.map_err(NetError::io("serving a published port"))?)
        } else {
            Reservation::Held(reservation)
        };
        Ok(Held { forward, asked: host, reservation })
    }

    /// Takes ports that another program had when they were to be taken up again. Answers how many are left.
    pub(crate) fn retake(&mut self) -> usize {
        let missing = |held: &Held| matches!(held.reservation, Reservation::Missing);
        let mut found = Vec::new();
        for at in 0..self.forwards.len() {
            if !missing(&self.forwards[at]) {
                continue;
            }
            let forward = self.forwards[at].forward.clone();
            let Ok(taken) = self.reserve(&forward) else { continue };
            if let Some(proxied) = taken.proxied()
                && let Err(error) = self.ruled(|rules| rules.add_proxied(proxied))
            {
                tracing::warn!(?forward, %error, "a port that is published again is open to internal networks");
            }
            tracing::info!(?forward, "a published port was taken up again");
            found.extend(self.forwards[at].missing());
            self.forwards[at].reservation = taken.reservation;
        }
        self.reopen(found);
        self.forwards.iter().filter(|held| missing(held)).count()
    }

    /// Lets requests to ports come in again that nobody else has any more.
    fn reopen(&mut self, mut ports: Vec<Proxied>) {
        ports.retain(|one| !self.forwards.iter().filter_map(Held::missing).any(|other| other == *one));
        if let Err(error) = self.rules.remove_missing(&ports) {
            tracing::warn!(%error, "a port stays closed");
        }
    }

    pub(crate) fn unpublish(&mut self, owner: &str) -> Result<(), NetError> {
        let mine = self.forwards.iter().filter(|held| held.forward.owner == owner && held.ruled());
        let mine: Vec<_> = mine.map(|held| held.forward.clone()).collect();
        let attempt = format!("taking back the published ports of {owner}");
        self.rules.remove_forwards(&mine).map_err(NetError::kernel(attempt))?;
        mine.iter().for_each(|forward| self.stale.removed(forward));
        self.release(|held| held.forward.owner == owner);
        Ok(())
    }

    pub(crate) fn unpublish_one(&mut self, owner: &str, host: SocketAddr) -> Result<(), NetError> {
        let which = |held: &Held| held.forward.owner == owner && held.forward.host == host;
        let ruled: Vec<_> =
            self.forwards.iter().filter(|held| which(held) && held.ruled()).map(|held| held.forward.clone()).collect();
        let attempt = format!("taking back the published port {host} of {owner}");
        self.rules.remove_forwards(&ruled).map_err(NetError::kernel(attempt))?;
        ruled.iter().for_each(|forward| self.stale.removed(forward));
        self.release(which);
        Ok(())
    }

    /// Takes back the ports that lead to these addresses of a network: whoever gets an address next gets no ports with it.
    pub(super) fn unpublish_to(&mut self, network: &NetworkId, addresses: &[IpAddr]) -> Result<(), NetError> {
        let leads = |held: &Held| held.forward.network == *network && addresses.contains(&held.forward.target.ip());
        let ruled: Vec<_> =
            self.forwards.iter().filter(|held| leads(held) && held.ruled()).map(|held| held.forward.clone()).collect();
        self.rules
            .remove_forwards(&ruled)
            .map_err(NetError::kernel("taking back ports that lead to a freed address"))?;
        ruled.iter().for_each(|forward| self.stale.removed(forward));
        self.release(leads);
        Ok(())
    }

    /// Lets go of reserved ports; they are free when this returns.
    pub(super) fn release(&mut self, which: impl Fn(&Held) -> bool) {
        let (mut proxied, mut missing) = (Vec::new(), Vec::new());
        for held in self.forwards.extract_if(.., |held| which(held)) {
            proxied.extend(held.proxied());
            missing.extend(held.missing());
            if let Reservation::Passed(passing) = held.reservation {
                // Dropping would end the task some time later, and keep the port until then.
                self.runtime.block_on(passing.end());
            }
        }
        // The same number may be published on another address.
        proxied.retain(|one| !self.proxied().any(|other| other == *one));
        if let Err(error) = self.rules.remove_proxied(&proxied) {
            tracing::warn!(%error, "a port that is no longer published stays closed to internal networks");
        }
        self.reopen(missing);
    }

    /// Keeps internal networks from TCP ports of the host whose sockets are handed to workloads. Once for each socket.
    pub(crate) fn hand_over(&mut self, ports: &[u16]) -> Result<(), NetError> {
        // All of them first: each is taken back, whatever becomes of the rules.
        ports.iter().for_each(|port| *self.handed.entry(*port).or_default() += 1);
        for port in ports {
            let attempt = format!("closing port {port} to internal networks");
            self.ruled(|rules| rules.add_proxied((Protocol::Tcp, *port))).map_err(NetError::kernel(attempt))?;
        }
        Ok(())
    }

    /// The sockets of these ports, one for each, are closed.
    pub(crate) fn take_back(&mut self, ports: &[u16]) -> Result<(), NetError> {
        let mut closed = Vec::new();
        for port in ports {
            if let Some(count) = self.handed.get_mut(port) {
                *count -= 1;
                if *count == 0 {
                    self.handed.remove(port);
                    closed.push((Protocol::Tcp, *port));
                }
            }
        }
        closed.retain(|one| !self.proxied().any(|other| other == *one));
        self.rules.remove_proxied(&closed).map_err(NetError::kernel("opening ports to internal networks again"))
    }
}

/// The ID of a workload as it is shown.
fn short(owner: &str) -> String {
    owner.chars().take(12).collect()
}

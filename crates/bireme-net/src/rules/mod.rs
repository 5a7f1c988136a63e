//! The nf_tables tables of one engine: `inet bireme_<instance>`, and of the family `bridge` the one of [`guard`].
//!
//! ```text
//! raw          to or from a loopback address, not by `lo` -> dropped; from a member's address, by neither a bridge of
//!              ours nor `lo` -> dropped
//! prerouting   from a bridge of ours to a gateway's port 53      -> the port our DNS really listens on
//! output       a published port on an address of the host        -> the workload
//! postrouting  from 127.0.0.0/8 into a bridge                    -> the bridge's address, so that answers come back
//!              published, from a member of ours to one           -> the same (hairpin)
//!              from a bridge of a network that masquerades, out  -> the host's address
//! input        from a bridge of ours with a source that is not behind it -> dropped; from `sealed` only to that
//!              bridge's own addresses, and to no published port
//! forward      replies pass; within one bridge as `same` says; from a bridge of ours with a source that is not behind
//!              it -> dropped; nothing leaves `sealed`; into a bridge of ours only what came by a published port
//! ```
//! The first is needed because bridges of ours have `route_localnet`, so that 127.0.0.1 of the host reaches published
//! ports: without it a frame to 127.0.0.1 would come to what the host serves to itself alone (CVE-2020-8558). The second
//! because the DNS knows its askers by their addresses.
//!
//! Where the kernel can (6.9), the tables are this daemon's own while it lives: `nft flush ruleset` leaves them alone. They
//! stay when it dies. Elsewhere they are made again as soon as somebody removes them (decision 15).
//!
//! Rules never change while the engine runs: networks and ports are elements of sets and maps, so that publishing a
//! port costs the same beside one other port or a thousand. Other tables' chains see every packet too: two engines,
//! or ours and Docker, each guard what is theirs.

mod elements;
mod holders;
mod skeleton;

pub(crate) use elements::{DnsPorts, Proxied, Ruled, UDP, number_of};

use std::net::IpAddr;
use std::time::{Duration, Instant};

use bireme_sys::netlink::{Refused, Socket};
use bireme_sys::nft::{Batch, Element, Family, table_exists};
use elements::{Elements, SETS, forward_element, missing_element, network_elements, proxied_element};
use holders::Holders;
use rustix::io::Errno;
use skeleton::skeleton;

use crate::Forward;
use crate::guard::{self, Port};

/// For an earlier daemon to be gone altogether.
const OWNER_WAIT: Duration = Duration::from_secs(5);

/// All that the rules are about.
#[derive(Default)]
pub(crate) struct Content<'a> {
    pub(crate) networks: Vec<Ruled<'a>>,
    pub(crate) ports: Vec<Port>,
    pub(crate) forwards: Vec<Forward>,
    /// Published ports that a socket of ours passes on.
    pub(crate) proxied: Vec<Proxied>,
    /// Those whose socket is somebody else's for now: nobody gets there by IPv6, rather than to him.
    pub(crate) missing: Vec<Proxied>,
}

pub(crate) struct Rules {
    table: String,
    /// What the names of our ports begin with.
    port_names: String,
    /// The families of our tables: `bridge` only where this kernel filters what passes a bridge.
    families: &'static [Family],
    /// Whether tables are made this daemon's own.
    owns: bool,
    /// Not any longer when all was cleared away.
    in_force: bool,
    holders: Holders,
    socket: Socket,
}

impl Rules {
    /// Makes the tables unless an earlier daemon left them, which then stay as they are until [`Self::rebuild`]. `own`:
    /// whether they shall be this daemon's own, where the kernel can.
    pub(crate) fn open(instance: &str, mut socket: Socket, own: bool) -> Result<Self, Refused> {
        let table = format!("bireme_{instance}");
        let families = if can_guard(&mut socket, &table)? { &GUARDED[..] } else { &GUARDED[..1] };
        let owns = own && can_own(&mut socket, &table);
        let (port_names, holders) = (format!("ve{instance}"), Holders::default());
        let mut rules = Self { table, port_names, families, owns, in_force: true, holders, socket };
        let lost = rules.lost(false)?;
        rules.make(&Content::default(), &lost)?;
        Ok(rules)
    }

    /// Puts the whole of both tables anew in one transaction: no packet meets the host without them.
    pub(crate) fn rebuild(&mut self, content: &Content<'_>) -> Result<(), Refused> {
        self.make(content, self.families)?;
        self.in_force = true;
        self.holders = Holders::default();
        for network in &content.networks {
            self.holders.add(network.bridge, &network_elements(network));
        }
        for port in &content.ports {
            self.holders.add(&port.interface, &port.elements());
        }
        Ok(())
    }

    /// Makes the tables of these families anew, in one transaction.
    fn make(&mut self, content: &Content<'_>, families: &[Family]) -> Result<(), Refused> {
        let mut batch = Batch::new(&self.table);
        for family in families {
            // Removing needs a table to be there.
            batch.on(*family, &self.table).add_table().delete_table();
            if self.owns {
                batch.add_owned_table();
            } else {
                batch.add_table();
            }
            match family {
                Family::Inet => skeleton(&mut batch),
                Family::Bridge => guard::skeleton(&mut batch, &self.port_names),
            }
        }
        let networks = content.networks.iter().flat_map(network_elements);
        let ports = content.ports.iter().flat_map(Port::elements);
        let forwards = content.forwards.iter().map(forward_element);
        let proxied = content.proxied.iter().map(proxied_element);
        let missing = content.missing.iter().map(missing_element);
        let all: Elements = networks.chain(ports).chain(forwards).chain(proxied).chain(missing).collect();
        for set in SETS.into_iter().chain(guard::SETS) {
            if let Some(family) = self.family_of(set).filter(|family| families.contains(family)) {
                let of_set: Vec<_> = all.iter().filter(|(name, _)| *name == set).map(|(_, one)| one.clone()).collect();
                batch.on(family, &self.table).add_elements(set, &of_set);
            }
        }
        let begin = Instant::now();
        loop {
            match batch.clone().commit(&mut self.socket) {
                // They are its own until a daemon that ends has closed its socket; our rights were tried by `open`.
                Err(refused) if refused.is_permission() && begin.elapsed() < OWNER_WAIT => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                answer => return answer,
            }
        }
    }

    /// Which of our tables are not there, or not what we made. `taken`: whether somebody else removed one, who may have
    /// put back an older one as well.
    pub(crate) fn lost(&mut self, taken: bool) -> Result<Vec<Family>, Refused> {
        if !self.in_force {
            return Ok(vec![]);
        }
        let mut there = vec![];
        for family in self.families {
            if table_exists(&mut self.socket, *family, &self.table)? {
                there.push(*family);
            }
        }
        Ok(lost(self.families, &there, taken))
    }

    pub(crate) fn table(&self) -> &str {
        &self.table
    }

    /// Takes every rule away, the tables themselves included.
    pub(crate) fn clear(&mut self) -> Result<(), Refused> {
        self.in_force = false;
        for family in self.families {
            if table_exists(&mut self.socket, *family, &self.table)? {
                let mut batch = Batch::new(&self.table);
                batch.on(*family, &self.table).delete_table();
                batch.commit(&mut self.socket)?;
            }
        }
        self.holders = Holders::default();
        Ok(())
    }

    pub(crate) fn socket(&mut self) -> &mut Socket {
        &mut self.socket
    }

    /// `None` for a set that this kernel has no table for.
    fn family_of(&self, set: &str) -> Option<Family> {
        match guard::SETS.contains(&set) {
            true => self.families.contains(&Family::Bridge).then_some(Family::Bridge),
            false => Some(Family::Inet),
        }
    }

    pub(crate) fn add_port(&mut self, port: &Port) -> Result<(), Refused> {
        self.add_of(&port.interface, &port.elements())
    }

    /// From now on nothing passes the port.
    pub(crate) fn remove_port(&mut self, port: &Port) -> Result<(), Refused> {
        self.remove_of(&port.interface, port.elements())
    }

    pub(crate) fn add_addresses(&mut self, port: &Port, addresses: &[IpAddr]) -> Result<(), Refused> {
        self.add_of(&port.interface, &port.address_elements(addresses))
    }

    pub(crate) fn remove_addresses(&mut self, port: &Port, addresses: &[IpAddr]) -> Result<(), Refused> {
        self.remove_of(&port.interface, port.address_elements(addresses))
    }

    pub(crate) fn add_proxied(&mut self, proxied: Proxied) -> Result<(), Refused> {
        self.add(&[proxied_element(&proxied)])
    }

    pub(crate) fn remove_proxied(&mut self, proxied: &[Proxied]) -> Result<(), Refused> {
        self.remove(&proxied.iter().map(proxied_element).collect::<Vec<_>>())
    }

    pub(crate) fn remove_missing(&mut self, missing: &[Proxied]) -> Result<(), Refused> {
        self.remove(&missing.iter().map(missing_element).collect::<Vec<_>>())
    }

    pub(crate) fn add_network(&mut self, network: &Ruled<'_>) -> Result<(), Refused> {
        self.add_of(network.bridge, &network_elements(network))
    }

    pub(crate) fn remove_network(&mut self, network: &Ruled<'_>) -> Result<(), Refused> {
        self.remove_of(network.bridge, network_elements(network))
    }

    pub(crate) fn add_forward(&mut self, forward: &Forward) -> Result<(), Refused> {
        self.add(&[forward_element(forward)])
    }

    pub(crate) fn remove_forwards(&mut self, forwards: &[Forward]) -> Result<(), Refused> {
        self.remove(&forwards.iter().map(forward_element).collect::<Vec<_>>())
    }

    fn add_of(&mut self, holder: &str, elements: &[(&'static str, Element)]) -> Result<(), Refused> {
        self.add(elements)?;
        self.holders.add(holder, elements);
        Ok(())
    }

    /// What others have too stays theirs.
    fn remove_of(&mut self, holder: &str, elements: Elements) -> Result<(), Refused> {
        self.remove(&self.holders.of_nobody_but(holder, elements.clone()))?;
        self.holders.remove(holder, &elements);
        Ok(())
    }

    fn add(&mut self, elements: &[(&'static str, Element)]) -> Result<(), Refused> {
        match self.commit(elements, Change::Add) {
            // An earlier daemon left some of them with other values: DNS ports differ at every start.
            Err(refused) if refused.errno == Errno::EXIST => {
                self.remove(elements)?;
                self.commit(elements, Change::Add)
            }
            answer => answer,
        }
    }

    /// What is not there is no error.
    fn remove(&mut self, elements: &[(&'static str, Element)]) -> Result<(), Refused> {
        match self.commit(elements, Change::Remove) {
            Err(refused) if refused.errno == Errno::NOENT && elements.len() > 1 => {
                elements.iter().try_for_each(|one| self.remove(std::slice::from_ref(one)))
            }
            Err(refused) if refused.errno == Errno::NOENT => Ok(()),
            answer => answer,
        }
    }

    fn commit(&mut self, elements: &[(&'static str, Element)], change: Change) -> Result<(), Refused> {
        let mut batch = Batch::new(&self.table);
        for (set, element) in elements {
            let Some(family) = self.family_of(set) else { continue };
            batch.on(family, &self.table);
            let element = std::slice::from_ref(element);
            match change {
                Change::Add => batch.add_elements(set, element),
                Change::Remove => batch.delete_elements(set, element),
            };
        }
        batch.commit(&mut self.socket)
    }
}

/// The families of our tables, the one that every kernel has first.
static GUARDED: [Family; 2] = [Family::Inet, Family::Bridge];

/// Which of `tables` are to be made anew, of which these are `there`.
fn lost(tables: &[Family], there: &[Family], taken: bool) -> Vec<Family> {
    tables.iter().filter(|family| taken || !there.contains(family)).copied().collect()
}

#[derive(Clone, Copy)]
enum Change {
    Add,
    Remove,
}

/// Whether the kernel has tables of the family `bridge` (`CONFIG_NF_TABLES_BRIDGE`).
fn can_guard(socket: &mut Socket, table: &str) -> Result<bool, Refused> {
    let name = format!("{table}_probe");
    let mut batch = Batch::new(&name);
    batch.on(Family::Bridge, &name).add_table().delete_table();
    match batch.commit(socket) {
        Ok(()) => Ok(true),
        Err(refused) if refused.is_permission() => Err(refused),
        Err(error) => {
            tracing::warn!(%error, "this kernel does not filter bridges: members of a network can pass themselves off as others");
            Ok(false)
        }
    }
}

/// Whether the kernel has tables that only one socket changes and that outlive it (6.9).
fn can_own(socket: &mut Socket, table: &str) -> bool {
    let name = format!("{table}_probe");
    let mut batch = Batch::new(&name);
    batch.add_owned_table().delete_table();
    batch.commit(socket).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_made_again_and_all_of_it_where_somebody_took_a_part() {
        let (inet, bridge) = (Family::Inet, Family::Bridge);
        assert!(lost(&GUARDED, &[inet, bridge], false).is_empty());
        assert_eq!(lost(&GUARDED, &[inet], false), [bridge]);
        assert_eq!(lost(&GUARDED, &[], false), GUARDED);
        assert_eq!(lost(&GUARDED, &[inet, bridge], true), GUARDED);
        assert_eq!(lost(&GUARDED[..1], &[], true), [inet]);
    }
}

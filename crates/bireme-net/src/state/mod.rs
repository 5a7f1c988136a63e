//! What stands in the kernel, and the blocking work that changes it. Callers hold a lock: the kernel itself does most
//! of this one at a time.
//!
//! Here is what all of it uses: the state itself, the rules made from it, names of links. The work is in the modules, one
//! for each thing that stands there: [`bridge`], [`sandbox`], [`endpoint`], [`forward`]; with [`sweep`], which finds all of
//! them again, [`mend`], which makes rules again that somebody removed, and [`forgetting`], which ends connections.

mod bridge;
mod endpoint;
mod forgetting;
mod forward;
mod interface;
mod mac;
mod mend;
mod sandbox;
mod sweep;

pub(crate) use sandbox::Sandboxes;

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bireme_core::SandboxId;
use bireme_core::spec::Protocol;
use bireme_sys::netlink::{Refused, Socket, Subsystem};
use bireme_sys::packet::PacketSender;
use bireme_sys::route;
use bridge::Network;
use endpoint::Link;
use forward::Held;
use rustix::io::Errno;
use tokio::runtime::Handle;
use tokio::task::{JoinHandle, JoinSet};

use crate::dns::Service;
use crate::flows::Stale;
use crate::forwarding::Forwarding;
use crate::proxy::Pool;
use crate::rules::{Content, Proxied, Rules};
use crate::{NetError, NetworkId};

const DEFAULT_MTU: u32 = 1500;

pub(crate) struct State {
    instance: String,
    route: Socket,
    /// For announcements on bridges, from the first one on.
    frames: Option<PacketSender>,
    rules: Rules,
    forwarding: Forwarding,
    /// What the kernel shall forget of connections.
    stale: Stale,
    /// What is being forgotten in this moment, without the lock.
    leaving_memory: Arc<Stale>,
    /// Whether somebody is about to call [`Self::begin_forgetting`].
    forgetting: bool,
    /// How long it took the last time.
    forgot_in: Duration,
    sandboxes: Sandboxes,
    service: Arc<Service>,
    runtime: Handle,
    /// The DNS inside sandboxes; dropping one ends it.
    inside: BTreeMap<SandboxId, JoinSet<()>>,
    networks: BTreeMap<NetworkId, Network>,
    links: BTreeMap<(SandboxId, NetworkId), Link>,
    forwards: Vec<Held>,
    /// How many sockets listen at each TCP port of the host for workloads that were handed them.
    handed: BTreeMap<u16, usize>,
    /// The places of all ports that are passed on here.
    pool: Arc<Pool>,
    /// Interfaces that the kernel is still removing, and the sandbox they are in.
    leaving: Vec<(SandboxId, JoinHandle<()>)>,
}

impl State {
    pub(crate) fn open(
        instance: &str,
        sandboxes: Sandboxes,
        service: Arc<Service>,
        runtime: Handle,
        own_tables: bool,
    ) -> Result<Self, NetError> {
        let route = Socket::open(Subsystem::Route).map_err(NetError::io("opening a netlink socket"))?;
        let filter = Socket::open(Subsystem::Netfilter).map_err(NetError::io("opening a netfilter socket"))?;
        let attempt = format!("setting up nf_tables table bireme_{instance}");
        let rules = Rules::open(instance, filter, own_tables).map_err(NetError::kernel(attempt))?;
        Ok(Self {
            instance: instance.to_owned(),
            route,
            frames: None,
            rules,
            forwarding: Forwarding::load(&sandboxes.run_dir),
            stale: Stale::default(),
            leaving_memory: Arc::default(),
            forgetting: false,
            forgot_in: Duration::ZERO,
            sandboxes,
            service,
            runtime,
            inside: BTreeMap::new(),
            networks: BTreeMap::new(),
            links: BTreeMap::new(),
            forwards: Vec::new(),
            handed: BTreeMap::new(),
            pool: Arc::new(Pool::new(open_files())),
            leaving: Vec::new(),
        })
    }

    /// Changes the rules, which are made again first where somebody removed them.
    fn ruled(&mut self, change: impl Fn(&mut Rules) -> Result<(), Refused>) -> Result<(), Refused> {
        match change(&mut self.rules) {
            Err(refused) if refused.errno == Errno::NOENT => {
                self.rebuild()?;
                change(&mut self.rules)
            }
            answer => answer,
        }
    }

    /// Puts all rules anew.
    fn rebuild(&mut self) -> Result<(), Refused> {
        let forwards = self.forwards.iter().filter(|held| held.ruled());
        self.rules.rebuild(&Content {
            networks: self.networks.values().map(Network::ruled).collect(),
            ports: self.links.values().map(Link::port).collect(),
            forwards: forwards.map(|held| held.forward.clone()).collect(),
            proxied: self.proxied().collect(),
            missing: self.forwards.iter().filter_map(Held::missing).collect(),
        })
    }

    /// Every port of the host at which a socket listens for workloads, once or more often.
    fn proxied(&self) -> impl Iterator<Item = Proxied> {
        let handed = self.handed.keys().map(|port| (Protocol::Tcp, *port));
        self.forwards.iter().filter_map(Held::proxied).chain(handed)
    }

    /// `prefix`, the instance, and five characters out of `seed` so that no other link has the name, unless it is
    /// `acceptable`.
    fn free_name(
        &mut self,
        prefix: &str,
        seed: &str,
        acceptable: impl Fn(&route::Link) -> bool,
    ) -> Result<String, Refused> {
        const DIGITS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
        let mut attempt = 0u32;
        loop {
            let mut hasher = DefaultHasher::new();
            (seed, attempt).hash(&mut hasher);
            let hash = hasher.finish();
            let tail: String = (0..5).map(|digit| char::from(DIGITS[(hash >> (digit * 5) & 31) as usize])).collect();
            let name = format!("{prefix}{}{tail}", self.instance);
            if route::link(&mut self.route, &name)?.is_none_or(|link| acceptable(&link)) {
                return Ok(name);
            }
            attempt += 1;
        }
    }

    /// One that is gone is no error.
    fn delete_link(&mut self, index: u32) -> Result<(), Refused> {
        match self.route.request(&[route::delete_link(index)]) {
            Err(refused) if refused.errno == Errno::NODEV => Ok(()),
            answer => answer,
        }
    }

    /// Waits until interfaces on their way out are gone: those of `sandbox`, or all.
    fn settle(&mut self, sandbox: Option<&SandboxId>) {
        for (_, task) in self.leaving.extract_if(.., |(of, _)| sandbox.is_none_or(|sandbox| sandbox == of)) {
            // Its own failures are logged; a runtime that ends takes it along.
            let _ = self.runtime.block_on(task);
        }
    }
}

/// How many descriptors this process may have open.
pub(crate) fn open_files() -> u64 {
    rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Of the calling thread's network namespace.
fn set_sysctl(name: &str, value: &str) -> io::Result<()> {
    std::fs::write(format!("/proc/sys/{name}"), value)
}

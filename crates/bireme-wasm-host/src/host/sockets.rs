//! Raw sockets and name lookups: only to where `bireme.allow` permits.
//!
//! The interfaces of the WASI crates are used as they are; their address check asks the permissions. A permission by
//! name covers the addresses that were looked up under it, so lookups are remembered; the lookup itself is ours, since
//! it must see the component's names and permissions.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::task::JoinHandle;
use wasmtime::component::{Accessor, HasData, HasSelf, Linker, Resource};
use wasmtime_wasi::WasiCtxBuilder;
use wasmtime_wasi::p2::bindings::sockets::network::{ErrorCode, IpAddress, Network};
use wasmtime_wasi::p2::{DynPollable, Pollable, subscribe};
use wasmtime_wasi::p3::bindings::sockets::ip_name_lookup as p3;
use wasmtime_wasi::p3::bindings::sockets::types::IpAddress as IpAddress3;
use wasmtime_wasi::sockets::SocketAddrUse;

use super::bindings::lookup::wasi::sockets::ip_name_lookup as p2;

use crate::component::Component;
use crate::guest::Guest;

/// Most addresses of which one workload's instances know the names; the oldest knowledge is dropped as a whole.
const MAX_ADDRESSES: usize = 1024;
/// Most bytes of a name that is looked up: what DNS can hold, with a final dot.
const MAX_NAME: usize = 254;
/// Names that are remembered of one address, the newest: a wildcard permits a guest to ask for as many as it likes.
const MAX_NAMES: usize = 64;

/// How long an address belongs to the name that DNS gave it for.
const KNOWN_FOR: Duration = Duration::from_secs(300);

/// Under which names an address was looked up.
#[derive(Default)]
pub(crate) struct LookedUp(Mutex<HashMap<IpAddr, Vec<Known>>>);

struct Known {
    /// As the component's networks know it.
    name: String,
    /// When DNS said so; `None` where a network of the component's did.
    answered: Option<Instant>,
}

impl LookedUp {
    fn remember(&self, component: &Component, name: &str, addresses: &[IpAddr]) {
        let name = super::net::plain(name);
        let answered = (!component.names().contains_key(&name)).then(Instant::now);
        let mut known = self.0.lock();
        if known.len() > MAX_ADDRESSES {
            known.clear();
        }
        for address in addresses {
            let names = known.entry(*address).or_default();
            names.retain(|known| known.name != name && known.answered.is_none_or(|at| at.elapsed() < KNOWN_FOR));
            if names.len() >= MAX_NAMES {
                names.remove(0);
            }
            names.push(Known { name: name.clone(), answered });
        }
    }

    /// The names that `address` still has, and whether a network of the component's gave it. One that a network gave it goes when the network takes it away: the address
    /// may be another workload's by then.
    fn names(&self, component: &Component, address: IpAddr) -> Vec<(String, bool)> {
        let mut known = self.0.lock();
        let Some(names) = known.get_mut(&address) else { return Vec::new() };
        let now = component.names();
        names.retain(|known| match (now.get(&known.name), known.answered) {
            (Some(addresses), _) => addresses.contains(&address),
            (None, Some(answered)) => answered.elapsed() < KNOWN_FOR,
            (None, None) => false,
        });
        names.iter().map(|known| (known.name.clone(), now.contains_key(&known.name))).collect()
    }
}

/// Gives what opens sockets the permissions of a workload, and `with` for as long as any of these sockets asks for them:
/// until the last is closed.
pub(crate) fn permit<T: Send + Sync + 'static>(builder: &mut WasiCtxBuilder, component: &Arc<Component>, with: T) {
    builder.allow_tcp(true).allow_udp(true).allow_ip_name_lookup(false);
    let component = Arc::clone(component);
    builder.socket_addr_check(move |address, purpose| {
        let _with = &with;
        let permitted = match purpose {
            // The local end of an outgoing connection; listening is what ports are for.
            // Not one of another component of this process, in whose name it would speak.
            SocketAddrUse::TcpBind | SocketAddrUse::UdpBind => {
                let ip = address.ip().to_canonical();
                address.port() == 0 && (ip.is_unspecified() || ip.is_loopback() || component.addresses.contains(&ip))
            }
            SocketAddrUse::TcpListen | SocketAddrUse::TcpAccept => false,
            SocketAddrUse::TcpConnect => permits(&component, "tcp", address, purpose),
            SocketAddrUse::UdpSend | SocketAddrUse::UdpReceive => permits(&component, "udp", address, purpose),
        };
        Box::pin(std::future::ready(permitted))
    });
}

fn permits(component: &Component, scheme: &str, address: std::net::SocketAddr, purpose: SocketAddrUse) -> bool {
    let ip = address.ip().to_canonical();
    let names = component.looked_up.names(component, ip);
    let looked_up = names.iter().map(|(name, own)| (name.as_str(), *own));
    let permitted = component.allow.permits_address(scheme, ip, address.port(), looked_up);
    // Datagrams that nobody asked for are dropped without a word.
    if !permitted && !matches!(purpose, SocketAddrUse::UdpReceive) {
        let wanted = match (names.first(), ip) {
            (Some((name, _)), _) => format!("{scheme}://{name}:{}", address.port()),
            (None, ip) => format!("{scheme}://{}", std::net::SocketAddr::new(ip, address.port())),
        };
        component.log.note(&format!("bireme: {wanted} {}", super::net::not_permitted(component)));
    }
    permitted
}

/// Looks `name` up for a component, if it may connect to it at all. `Err` is "not permitted".
async fn resolve(component: &Component, name: &str) -> Result<Vec<IpAddr>, ()> {
    if let Ok(ip) = name.parse() {
        return Ok(vec![ip]);
    }
    if !component.allow.names(name) {
        component.log.note(&format!("bireme: looking up {name} {}", super::net::not_permitted(component)));
        return Err(());
    }
    let found = super::net::lookup(component, name).await;
    let first = found.first().copied();
    let found = super::net::covered(component, name, found, |address| component.allow.covers_answer(name, address));
    if let (Some(first), true) = (first, found.is_empty()) {
        component.log.note(&format!("bireme: {}", super::net::leads_inside(name, first)));
        return Err(());
    }
    component.looked_up.remember(component, name, &found);
    Ok(found)
}

/// Puts our name lookup in the place of the WASI crates'.
pub(crate) fn add_to_linker(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    fn this(guest: &mut Guest) -> &mut Guest {
        guest
    }
    linker.allow_shadowing(true);
    p2::add_to_linker::<_, HasSelf<Guest>>(linker, this)?;
    p3::add_to_linker::<_, Names>(linker, this)?;
    linker.allow_shadowing(false);
    Ok(())
}

/// A lookup under way or done.
#[expect(unreachable_pub, reason = "generated code re-exports it")]
pub struct Lookup {
    task: Option<JoinHandle<Result<Vec<IpAddr>, ()>>>,
    found: Result<std::vec::IntoIter<IpAddr>, ErrorCode>,
}

impl Drop for Lookup {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for Lookup {
    async fn ready(&mut self) {
        if let Some(task) = &mut self.task {
            let result = task.await;
            self.task = None;
            self.found = match result {
                Ok(Ok(addresses)) if addresses.is_empty() => Err(ErrorCode::NameUnresolvable),
                Ok(Ok(addresses)) => Ok(addresses.into_iter()),
                Ok(Err(())) => Err(ErrorCode::AccessDenied),
                Err(_) => Err(ErrorCode::TemporaryResolverFailure),
            };
        }
    }
}

impl p2::Host for Guest {
    fn resolve_addresses(&mut self, _network: Resource<Network>, name: String) -> Result<Resource<Lookup>, ErrorCode> {
        if name.len() > MAX_NAME {
            return Err(ErrorCode::InvalidArgument);
        }
        let component = Arc::clone(&self.component);
        let task = tokio::spawn(async move { resolve(&component, &name).await });
        let lookup = Lookup { task: Some(task), found: Ok(Vec::new().into_iter()) };
        self.table.push(lookup).map_err(|_| ErrorCode::OutOfMemory)
    }
}

impl p2::HostResolveAddressStream for Guest {
    fn resolve_next_address(&mut self, lookup: Resource<Lookup>) -> Result<Option<IpAddress>, ErrorCode> {
        let lookup = self.table.get_mut(&lookup).map_err(|_| ErrorCode::InvalidState)?;
        if lookup.task.as_ref().is_some_and(|task| !task.is_finished()) {
            return Err(ErrorCode::WouldBlock);
        }
        // A finished task answers at once.
        futures::FutureExt::now_or_never(lookup.ready());
        match &mut lookup.found {
            Ok(addresses) => Ok(addresses.next().map(Into::into)),
            Err(code) => Err(*code),
        }
    }

    fn subscribe(&mut self, lookup: Resource<Lookup>) -> wasmtime::Result<Resource<DynPollable>> {
        // Fails once the guest holds as many handles as it may.
        subscribe(&mut self.table, lookup)
    }

    fn drop(&mut self, lookup: Resource<Lookup>) -> wasmtime::Result<()> {
        self.table.delete(lookup)?;
        Ok(())
    }
}

/// Lends the guest's state to the lookup of WASI 0.3.
struct Names;

impl HasData for Names {
    type Data<'a> = &'a mut Guest;
}

impl p3::Host for Guest {}

impl<T: Send> p3::HostWithStore<T> for Names {
    async fn resolve_addresses(
        guest: &Accessor<T, Self>,
        name: String,
    ) -> wasmtime::Result<Result<Vec<IpAddress3>, p3::ErrorCode>> {
        if name.len() > MAX_NAME {
            return Ok(Err(p3::ErrorCode::InvalidArgument));
        }
        let component = guest.with(|mut access| Arc::clone(&access.get().component));
        Ok(match resolve(&component, &name).await {
            Ok(addresses) if addresses.is_empty() => Err(p3::ErrorCode::NameUnresolvable),
            Ok(addresses) => Ok(addresses.into_iter().map(Into::into).collect()),
            Err(()) => Err(p3::ErrorCode::AccessDenied),
        })
    }
}

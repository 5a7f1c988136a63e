//! Name lookups of WASI 0.2 and 0.3, in the place of those of the WASI crates.
//!
//! A permission by name covers the addresses that were looked up under it, so lookups are remembered; the lookup itself
//! is ours, since it must see the component's names and permissions.

use std::sync::Arc;

use wasmtime::component::{Accessor, HasData, HasSelf, Linker, Resource};
use wasmtime_wasi::p2::Pollable as _;
use wasmtime_wasi::p2::bindings::sockets::network::{ErrorCode, IpAddress, Network};
use wasmtime_wasi::p2::{DynPollable, subscribe};
use wasmtime_wasi::p3::bindings::sockets::ip_name_lookup as p3;
use wasmtime_wasi::p3::bindings::sockets::types::IpAddress as IpAddress3;

use super::bindings::lookup::wasi::sockets::ip_name_lookup as p2;
use super::lookup::{Lookup, resolve};
use crate::guest::Guest;

/// Most bytes of a name that is looked up: what DNS can hold, with a final dot.
const MAX_NAME: usize = 254;

/// Puts our name lookup in the place of the WASI crates'.
pub(crate) fn add_to_linker(linker: &mut Linker<Guest>, concurrent: bool) -> wasmtime::Result<()> {
    fn this(guest: &mut Guest) -> &mut Guest {
        guest
    }
    linker.allow_shadowing(true);
    p2::add_to_linker::<_, HasSelf<Guest>>(linker, this)?;
    if concurrent {
        p3::add_to_linker::<_, Names>(linker, this)?;
    }
    linker.allow_shadowing(false);
    Ok(())
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

//! Names that guests look up by themselves, as they do before they open a socket.

use std::net::IpAddr;

use tokio::task::JoinHandle;
use wasmtime_wasi::p2::Pollable;
use wasmtime_wasi::p2::bindings::sockets::network::ErrorCode;

use super::net;
use crate::component::Component;

/// Looks `name` up for a component, if it may connect to it at all. `Err` is "not permitted".
pub(super) async fn resolve(component: &Component, name: &str) -> Result<Vec<IpAddr>, ()> {
    if let Ok(ip) = name.parse() {
        return Ok(vec![ip]);
    }
    if !component.allow.names(name) {
        component.log.note(&format!("bireme: looking up {name} {}", net::not_permitted(component)));
        return Err(());
    }
    let found = net::lookup(component, name).await;
    let first = found.first().copied();
    let found = net::covered(component, name, found, |address| component.allow.covers_answer(name, address));
    if let (Some(first), true) = (first, found.is_empty()) {
        component.log.note(&format!("bireme: {}", net::leads_inside(name, first)));
        return Err(());
    }
    component.looked_up.remember(&component.names(), &net::plain(name), &found);
    Ok(found)
}

/// A lookup under way or done.
#[expect(unreachable_pub, reason = "generated code re-exports it")]
pub struct Lookup {
    pub(super) task: Option<JoinHandle<Result<Vec<IpAddr>, ()>>>,
    pub(super) found: Result<std::vec::IntoIter<IpAddr>, ErrorCode>,
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

//! What starts instances. One module per kind; [`Program`] is the compiled form that each kind instantiates.

pub(crate) mod clients;
pub(crate) mod command;
pub(crate) mod http;
pub(crate) mod redis;
mod share;
pub(crate) mod socket;

use bireme_wasm::protocol::Trigger;
use wasmtime::component::InstancePre;
use wasmtime_wasi_http::handler::ProxyPre;

use crate::account::Account;
use crate::guest::Guest;

/// A component with its imports linked and its export found, ready to be instantiated.
pub(crate) enum Program {
    Http(ProxyPre<Guest>),
    CommandP2(wasmtime_wasi::p2::bindings::CommandPre<Guest>),
    CommandP3(wasmtime_wasi::p3::bindings::CommandPre<Guest>),
    CommandP1(wasmtime::InstancePre<Guest>),
    RedisP2(crate::host::bindings::redis_trigger::RedisTriggerPre<Guest>),
    RedisP3(crate::host::bindings::redis_trigger_async::RedisTriggerAsyncPre<Guest>),
}

impl Program {
    /// # Errors
    /// When the export that `trigger` needs is absent or has another type.
    pub(crate) fn new(trigger: Trigger, pre: InstancePre<Guest>) -> wasmtime::Result<Self> {
        Ok(match trigger {
            Trigger::HttpP2 => Self::Http(ProxyPre::P2(wasmtime_wasi_http::p2::bindings::ProxyPre::new(pre)?)),
            Trigger::HttpP3 => Self::Http(ProxyPre::P3(wasmtime_wasi_http::p3::bindings::ServicePre::new(pre)?)),
            Trigger::CommandP2 => Self::CommandP2(wasmtime_wasi::p2::bindings::CommandPre::new(pre)?),
            Trigger::CommandP3 => Self::CommandP3(wasmtime_wasi::p3::bindings::CommandPre::new(pre)?),
            Trigger::RedisP2 => Self::RedisP2(crate::host::bindings::redis_trigger::RedisTriggerPre::new(pre)?),
            Trigger::RedisP3 => {
                Self::RedisP3(crate::host::bindings::redis_trigger_async::RedisTriggerAsyncPre::new(pre)?)
            }
            Trigger::CommandP1 => wasmtime::bail!("a core module is not a component"),
        })
    }
}

/// What the workload's log says of an instance that was ended because of [`Cut::Memory`](crate::component::Cut::Memory).
pub(crate) const ENDED_FOR_MEMORY: &str =
    "it had more memory than any other when the host process had as much as it may, and was ended";

/// Why an invocation failed, in one line, for the workload's log.
pub(crate) fn reason(account: &Account, error: &wasmtime::Error) -> String {
    if account.was_refused() {
        // Guests abort when they are refused memory, which traps like any other fault.
        return format!("it reached its memory limit: {}", account.limit_text());
    }
    if let Some(trap) = error.downcast_ref::<wasmtime::Trap>() {
        return format!("it trapped: {trap}");
    }
    crate::compile::root(error)
}

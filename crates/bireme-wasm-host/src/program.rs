//! The compiled form of a component, as each kind of trigger instantiates it.

use bireme_wasm::protocol::Trigger;
use wasmtime::component::InstancePre;
use wasmtime_wasi_http::handler::ProxyPre;
use wasmtime_wasi_http::p2::bindings::ProxyPre as HttpP2Pre;

use crate::guest::Guest;
use crate::host::bindings::{redis_trigger, redis_trigger_async};

/// A component with its imports linked and its export found, ready to be instantiated.
pub(crate) enum Program {
    /// Of the sequential engine.
    HttpP2(HttpP2Pre<Guest>),
    /// Of the concurrent engine.
    Http(ProxyPre<Guest>),
    CommandP2(wasmtime_wasi::p2::bindings::CommandPre<Guest>),
    CommandP3(wasmtime_wasi::p3::bindings::CommandPre<Guest>),
    CommandP1(wasmtime::InstancePre<Guest>),
    /// A module of Spin before components.
    Spin1(wasmtime::InstancePre<Guest>),
    RedisP2(redis_trigger::RedisTriggerPre<Guest>),
    RedisP3(redis_trigger_async::RedisTriggerAsyncPre<Guest>),
}

impl Program {
    /// # Errors
    /// When the export that `trigger` needs is absent or has another type.
    pub(crate) fn new(trigger: Trigger, concurrent: bool, pre: InstancePre<Guest>) -> wasmtime::Result<Self> {
        Ok(match trigger {
            Trigger::HttpP2 if !concurrent => Self::HttpP2(HttpP2Pre::new(pre)?),
            Trigger::HttpP2 => Self::Http(ProxyPre::P2(HttpP2Pre::new(pre)?)),
            Trigger::HttpP3 => Self::Http(ProxyPre::P3(wasmtime_wasi_http::p3::bindings::ServicePre::new(pre)?)),
            Trigger::CommandP2 => Self::CommandP2(wasmtime_wasi::p2::bindings::CommandPre::new(pre)?),
            Trigger::CommandP3 => Self::CommandP3(wasmtime_wasi::p3::bindings::CommandPre::new(pre)?),
            Trigger::RedisP2 => Self::RedisP2(redis_trigger::RedisTriggerPre::new(pre)?),
            Trigger::RedisP3 => Self::RedisP3(redis_trigger_async::RedisTriggerAsyncPre::new(pre)?),
            Trigger::CommandP1 | Trigger::HttpSpin1 | Trigger::RedisSpin1 | Trigger::Wagi | Trigger::Schedule => {
                wasmtime::bail!("no component exports that")
            }
        })
    }
}

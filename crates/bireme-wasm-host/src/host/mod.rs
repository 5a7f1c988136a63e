//! What components may call, beyond what the WASI crates bring along.
//!
//! Every connection a component opens passes [`net::Target::resolve`]: the permission, the names of its networks, DNS.

pub(crate) mod bindings;
mod cas;
mod config;
pub(crate) mod http;
mod keyvalue;
mod kv;
mod logging;
mod lookup;
pub(crate) mod mqtt;
pub(crate) mod mysql;
pub(crate) mod net;
pub(crate) mod open;
pub(crate) mod permit;
pub(crate) mod postgres;
pub(crate) mod redis;
pub(crate) mod relative;
pub(crate) mod resp;
mod rows;
mod server;
pub(crate) mod sockets;
pub(crate) mod spin1;
mod sqlite;
pub(crate) mod store;
pub(crate) mod tls;
mod variables;

use wasmtime::component::{HasSelf, Linker};

use crate::guest::Guest;

type This = HasSelf<Guest>;

fn this(guest: &mut Guest) -> &mut Guest {
    guest
}

/// Links every interface of this module that has no asynchronous functions.
pub(crate) fn add_to_linker(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    {
        use bindings::sync::{fermyon::spin2_0_0 as spin, spin::postgres3_0_0 as postgres, wasi};
        spin::key_value::add_to_linker::<_, This>(linker, this)?;
        spin::mqtt::add_to_linker::<_, This>(linker, this)?;
        spin::mysql::add_to_linker::<_, This>(linker, this)?;
        spin::postgres::add_to_linker::<_, This>(linker, this)?;
        spin::rdbms_types::add_to_linker::<_, This>(linker, this)?;
        postgres::postgres::add_to_linker::<_, This>(linker, this)?;
        spin::redis::add_to_linker::<_, This>(linker, this)?;
        spin::sqlite::add_to_linker::<_, This>(linker, this)?;
        spin::variables::add_to_linker::<_, This>(linker, this)?;
        wasi::config0_2_0_draft_2024_09_27::store::add_to_linker::<_, This>(linker, this)?;
        wasi::logging::logging::add_to_linker::<_, This>(linker, this)?;
        wasi::keyvalue0_2_0_draft2::store::add_to_linker::<_, This>(linker, this)?;
        wasi::keyvalue0_2_0_draft2::atomics::add_to_linker::<_, This>(linker, this)?;
        wasi::keyvalue0_2_0_draft2::batch::add_to_linker::<_, This>(linker, this)?;
    }
    {
        use bindings::draft::wasi;
        wasi::config0_2_0_rc_1::store::add_to_linker::<_, This>(linker, this)?;
        wasi::logging0_1_0_draft::logging::add_to_linker::<_, This>(linker, this)?;
        wasi::keyvalue0_2_0_draft::store::add_to_linker::<_, This>(linker, this)?;
        wasi::keyvalue0_2_0_draft::atomics::add_to_linker::<_, This>(linker, this)?;
        wasi::keyvalue0_2_0_draft::batch::add_to_linker::<_, This>(linker, this)?;
    }
    Ok(())
}

/// Links those that have.
pub(crate) fn add_concurrent_to_linker(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    use bindings::concurrent::spin;
    spin::key_value::key_value::add_to_linker::<_, This>(linker, this)?;
    spin::mqtt::mqtt::add_to_linker::<_, This>(linker, this)?;
    spin::mysql::mysql::add_to_linker::<_, This>(linker, this)?;
    spin::postgres4_2_0::postgres::add_to_linker::<_, This>(linker, this)?;
    spin::redis::redis::add_to_linker::<_, This>(linker, this)?;
    spin::sqlite::sqlite::add_to_linker::<_, This>(linker, this)?;
    spin::variables::variables::add_to_linker::<_, This>(linker, this)?;
    Ok(())
}

//! Raw sockets: only to where `bireme.allow` permits.

use wasmtime_wasi::WasiCtxBuilder;

use crate::component::Component;

/// Gives a new instance the permissions of its workload.
pub(crate) fn permit(builder: &mut WasiCtxBuilder, _component: &Component) {
    builder.allow_tcp(false).allow_udp(false).allow_ip_name_lookup(false);
}

//! Raw sockets: only to where `bireme.allow` permits.
//!
//! The interfaces of the WASI crates are used as they are; the check that they make of every address asks the permissions.

use std::sync::Arc;

use wasmtime_wasi::WasiCtxBuilder;
use wasmtime_wasi::sockets::SocketAddrUse;

use super::net;
use crate::component::Component;

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
    let names = component.looked_up.names(|| component.names(), ip);
    let looked_up = names.iter().map(|(name, own)| (name.as_str(), *own));
    let permitted = component.allow.permits_address(scheme, ip, address.port(), looked_up);
    // Datagrams that nobody asked for are dropped without a word.
    if !permitted && !matches!(purpose, SocketAddrUse::UdpReceive) {
        let wanted = match (names.first(), ip) {
            (Some((name, _)), _) => format!("{scheme}://{name}:{}", address.port()),
            (None, ip) => format!("{scheme}://{}", std::net::SocketAddr::new(ip, address.port())),
        };
        component.log.note(&format!("bireme: {wanted} {}", net::not_permitted(component)));
    }
    permitted
}

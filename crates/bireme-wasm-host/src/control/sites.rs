//! Where the components of this process are reached: the addresses they listen on, and by whom they are answered.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use bireme_core::ErrorKind;
use bireme_wasm::protocol::Refusal;
use tokio::net::TcpListener;

use super::{Host, Loaded, refuse};
use crate::trigger::http::{self, SiteAddress};

impl Host {
    pub(super) fn lock_sites(&self) -> parking_lot::RwLockWriteGuard<'_, HashMap<SiteAddress, Arc<http::Site>>> {
        self.sites.all.write()
    }

    /// Joins every site that the component answers at, listening where it is the first.
    pub(super) fn open_sites(
        &self,
        loaded: &mut Loaded,
        published: &[SocketAddr],
        mut sockets: HashMap<SocketAddr, OwnedFd>,
        addresses: &[IpAddr],
        ports: &[u16],
    ) -> Result<(), Refusal> {
        let ports = if ports.is_empty() { &[80] } else { ports };
        let inside =
            addresses.iter().flat_map(|ip| ports.iter().map(|port| SiteAddress::Inside(SocketAddr::new(*ip, *port))));
        let all: Vec<SiteAddress> =
            published.iter().map(|address| SiteAddress::Published(*address)).chain(inside).collect();
        for at in all {
            let mut sites = self.lock_sites();
            let site = match sites.get(&at) {
                Some(site) => Arc::clone(site),
                None => {
                    let listener = match at {
                        SiteAddress::Published(address) => {
                            sockets.remove(&address).map(std::net::TcpListener::from).ok_or_else(|| {
                                refuse(ErrorKind::Internal, format!("no listening socket came for {address}"))
                            })?
                        }
                        SiteAddress::Inside(address) => listen_inside(address)?,
                    };
                    let listener = listener.set_nonblocking(true).and_then(|()| TcpListener::from_std(listener));
                    let listener = listener.map_err(|error| {
                        refuse(ErrorKind::Internal, format!("cannot use the socket of {at:?}: {error}"))
                    })?;
                    let site = Arc::new(http::Site::new());
                    tokio::spawn(http::listen(listener, Arc::clone(&site)));
                    sites.insert(at, Arc::clone(&site));
                    site
                }
            };
            drop(sites);
            loaded.site_addresses.push(at);
            site.join(&loaded.workload).map_err(|(other, route)| {
                let (SiteAddress::Published(address) | SiteAddress::Inside(address)) = at;
                refuse(
                    ErrorKind::Conflict,
                    format!(
                        "route {route} of {} on {address} is served by {other} already; give the two different \
                         bireme.http.route labels or ports",
                        loaded.workload.component.name()
                    ),
                )
            })?;
        }
        Ok(())
    }

    pub(super) fn close_sites(&self, loaded: &Loaded) {
        let mut sites = self.lock_sites();
        for at in &loaded.site_addresses {
            if sites.get(at).is_some_and(|site| site.leave(&loaded.workload))
                && let Some(site) = sites.remove(at)
            {
                site.close();
            }
        }
    }

    pub(super) fn set_active(&self, loaded: &Loaded, active: bool) {
        if loaded.workload.component.trigger.name() == "http" {
            self.sites.set_named(&loaded.workload, active);
        }
        let sites = self.lock_sites();
        for site in loaded.site_addresses.iter().filter_map(|at| sites.get(at)) {
            site.set_active(&loaded.workload, active);
        }
    }
}

/// Listens on an address of the sandbox, which may be put on its interface later or still be checked by the kernel.
fn listen_inside(address: SocketAddr) -> Result<std::net::TcpListener, Refusal> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
    let listen = || -> rustix::io::Result<OwnedFd> {
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
        sockopt::set_socket_reuseaddr(&socket, true)?;
        if address.is_ipv4() {
            sockopt::set_ip_freebind(&socket, true)?;
        } else {
            sockopt::set_ipv6_freebind(&socket, true)?;
            sockopt::set_ipv6_v6only(&socket, true)?;
        }
        rustix::net::bind(&socket, &address)?;
        rustix::net::listen(&socket, 1024)?;
        Ok(socket)
    };
    listen().map(std::net::TcpListener::from).map_err(|error| {
        refuse(ErrorKind::Unavailable, format!("cannot listen on {address} in the network of the component: {error}"))
    })
}

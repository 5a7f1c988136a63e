//! Where the components of this process are reached: the addresses they listen on, and by whom they are answered.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use bireme_core::ErrorKind;
use bireme_wasm::protocol::Refusal;
use tokio::net::TcpListener;

use super::{Host, Loaded, refuse};
use crate::trigger::http::{self, Place};

impl Host {
    pub(super) fn sites(&self) -> parking_lot::RwLockWriteGuard<'_, HashMap<Place, Arc<http::Site>>> {
        self.places.0.write()
    }

    /// Joins every place the component answers at, listening where it is the first.
    pub(super) fn open_places(
        &self,
        loaded: &mut Loaded,
        published: &[SocketAddr],
        mut sockets: HashMap<SocketAddr, OwnedFd>,
        addresses: &[IpAddr],
        ports: &[u16],
    ) -> Result<(), Refusal> {
        let ports = if ports.is_empty() { &[80] } else { ports };
        let inside =
            addresses.iter().flat_map(|ip| ports.iter().map(|port| Place::Inside(SocketAddr::new(*ip, *port))));
        let places: Vec<Place> = published.iter().map(|address| Place::Published(*address)).chain(inside).collect();
        for place in places {
            let mut sites = self.sites();
            let site = match sites.get(&place) {
                Some(site) => Arc::clone(site),
                None => {
                    let listener = match place {
                        Place::Published(address) => {
                            sockets.remove(&address).map(std::net::TcpListener::from).ok_or_else(|| {
                                refuse(ErrorKind::Internal, format!("no listening socket came for {address}"))
                            })?
                        }
                        Place::Inside(address) => listen_inside(address)?,
                    };
                    let listener = listener.set_nonblocking(true).and_then(|()| TcpListener::from_std(listener));
                    let listener = listener.map_err(|error| {
                        refuse(ErrorKind::Internal, format!("cannot use the socket of {place:?}: {error}"))
                    })?;
                    let site = Arc::new(http::Site::new());
                    tokio::spawn(http::listen(listener, Arc::clone(&site)));
                    sites.insert(place, Arc::clone(&site));
                    site
                }
            };
            drop(sites);
            loaded.places.push(place);
            site.join(&loaded.workload).map_err(|(other, route)| {
                let (Place::Published(address) | Place::Inside(address)) = place;
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

    pub(super) fn close_places(&self, loaded: &Loaded) {
        let mut sites = self.sites();
        for place in &loaded.places {
            if sites.get(place).is_some_and(|site| site.leave(&loaded.workload.component.spec.id))
                && let Some(site) = sites.remove(place)
            {
                site.close();
            }
        }
    }

    pub(super) fn set_active(&self, loaded: &Loaded, active: bool) {
        let sites = self.sites();
        for site in loaded.places.iter().filter_map(|place| sites.get(place)) {
            site.set_active(&loaded.workload.component.spec.id, active);
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

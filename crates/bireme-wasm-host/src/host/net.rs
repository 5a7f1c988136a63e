//! Where a component may connect to, and at which address that is.

use std::io;
use std::net::{IpAddr, SocketAddr};

use rustix::net::sockopt;
use tokio::net::{TcpSocket, TcpStream};

use crate::component::Component;

/// An endpoint that a component asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target<'a> {
    pub scheme: &'a str,
    /// A name or the text of an address, without brackets.
    pub host: &'a str,
    pub port: u16,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    #[error("{0}")]
    Denied(String),
    #[error("the name {0} is not known")]
    Unknown(String),
}

impl Target<'_> {
    /// # Errors
    /// When `bireme.allow` does not permit it.
    pub(crate) fn permit(&self, component: &Component) -> Result<(), ConnectError> {
        if component.allow.permits(self.scheme, self.host, self.port) {
            return Ok(());
        }
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.to_owned() };
        let text = format!("{}://{host}:{} {}", self.scheme, self.port, not_permitted(component));
        Err(ConnectError::Denied(text))
    }

    /// The addresses to try, if it is permitted.
    ///
    /// # Errors
    /// When it is not permitted, or the name is not known.
    pub(crate) async fn resolve(&self, component: &Component) -> Result<Vec<SocketAddr>, ConnectError> {
        self.permit(component)?;
        let found = lookup(component, self.host).await;
        let Some(first) = found.first().copied() else {
            return Err(ConnectError::Unknown(self.host.to_owned()));
        };
        let covers = |address| component.allow.covers(self.scheme, self.host, address, self.port);
        let found = covered(component, self.host, found, covers);
        if found.is_empty() {
            return Err(ConnectError::Denied(leads_inside(self.host, first)));
        }
        Ok(found.into_iter().map(|ip| SocketAddr::new(ip, self.port)).collect())
    }
}

/// How long a peer may leave what was sent unanswered before the connection counts as broken, in milliseconds.
const UNANSWERED: u32 = 10_000;

/// Connects to the first of `addresses` that answers, from the component's own address: those of the others in its
/// sandbox go away with them, and with an address go the connections from it.
///
/// # Errors
/// Of the last attempt.
pub(crate) async fn dial(component: &Component, addresses: &[SocketAddr]) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::AddrNotAvailable, "no address to connect to");
    for address in addresses {
        match dial_one(component, *address).await {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                sockopt::set_tcp_user_timeout(&stream, UNANSWERED)?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn dial_one(component: &Component, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = if to.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if let Some(own) = own_address(component, to) {
        // Without it (the machine's own network) the kernel chooses.
        let _ = socket.bind(SocketAddr::new(own, 0));
    }
    socket.connect(to).await
}

/// The component's address on the network over which `to` is reached: the one most like what the kernel would choose.
fn own_address(component: &Component, to: SocketAddr) -> Option<IpAddr> {
    let mut own =
        component.addresses.iter().copied().filter(|ip| ip.is_ipv4() == to.is_ipv4() && !to.ip().is_loopback());
    let first = own.next()?;
    let Some(second) = own.next() else { return Some(first) };
    let any: SocketAddr = if to.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
    let probe = std::net::UdpSocket::bind(any).ok()?;
    // Connecting a datagram socket sends nothing; it only asks the routes.
    probe.connect(to).ok()?;
    let chosen = probe.local_addr().ok()?.ip();
    [first, second].into_iter().chain(own).max_by_key(|ip| common_bits(*ip, chosen))
}

fn common_bits(one: IpAddr, other: IpAddr) -> u32 {
    match (one, other) {
        (IpAddr::V4(one), IpAddr::V4(other)) => (one.to_bits() ^ other.to_bits()).leading_zeros(),
        (IpAddr::V6(one), IpAddr::V6(other)) => (one.to_bits() ^ other.to_bits()).leading_zeros(),
        _ => 0,
    }
}

/// What to add, and where, for what is refused. In the words of whoever reads the log.
pub(crate) fn not_permitted(component: &Component) -> &'static str {
    if component.spec.bireme.requested.contains_key("bireme.allow") {
        "is not permitted; add it to bireme.allow, or confirm what the image requests with bireme.allow-requested=true"
    } else {
        "is not permitted; add it to bireme.allow"
    }
}

/// The answer to a question for a public name that leads where only a permission by address leads.
pub(crate) fn leads_inside(name: &str, address: IpAddr) -> String {
    format!(
        "{name} leads to {address}, an address of this machine or of a private network, which a permission by name does \
         not cover; add the address to bireme.allow too if that is meant"
    )
}

/// Of the addresses that `name` leads to those that a permission by name covers.
pub(crate) fn covered(
    component: &Component,
    name: &str,
    mut found: Vec<IpAddr>,
    covers: impl Fn(IpAddr) -> bool,
) -> Vec<IpAddr> {
    if name.parse::<IpAddr>().is_err() && !component.names().contains_key(&plain(name)) {
        found.retain(|address| covers(*address));
    }
    found
}

/// A name as the component's networks know it.
pub(crate) fn plain(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

/// The addresses of a name: those of the component's networks first, then DNS.
pub(crate) async fn lookup(component: &Component, name: &str) -> Vec<IpAddr> {
    if let Ok(ip) = name.parse() {
        return vec![ip];
    }
    let plain = plain(name);
    if let Some(known) = component.names().get(&plain) {
        return known;
    }
    // The resolver of the C library, which reads the resolv.conf that `confine` wrote: the engine's servers.
    let Ok(place) = std::sync::Arc::clone(&component.lookups).acquire_owned().await else { return Vec::new() };
    let Ok(of_all) = std::sync::Arc::clone(&component.lookups_of_all).acquire_owned().await else { return Vec::new() };
    let asked = tokio::task::spawn_blocking(move || {
        // Given back by the thread: whoever asked may have gone.
        let _places = (place, of_all);
        std::net::ToSocketAddrs::to_socket_addrs(&(plain.as_str(), 0))
            .map(|found| found.map(|address| address.ip()).collect())
    });
    asked.await.ok().and_then(Result::ok).unwrap_or_default()
}

//! Servers that are asked what is no name of ours.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bireme_core::SandboxId;
use parking_lot::Mutex;
use tokio::net::{TcpStream, UdpSocket};

use super::message::{cut_short, read_message, write_message};
use super::room::{Room, UPSTREAM_AT_ONCE};
use crate::NetworkId;

/// An upstream server's answer over UDP, in bytes; a longer one is asked for again over TCP by the resolver.
const UPSTREAM_ANSWER: usize = 8192;
/// For one upstream server; the next one is asked then.
const UPSTREAM_TIMEOUT: Duration = Duration::from_secs(2);
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// Where questions about the rest of the world go.
pub(super) struct Upstream {
    fixed: Option<Vec<SocketAddr>>,
    read: Mutex<(Option<SystemTime>, Vec<SocketAddr>)>,
    pub(super) room: Arc<Room>,
}

impl Upstream {
    pub(super) fn new(fixed: Option<Vec<SocketAddr>>, files: u64) -> Self {
        Self { fixed, read: Mutex::default(), room: Room::new(UPSTREAM_AT_ONCE.with(files)) }
    }

    fn servers(&self) -> Vec<SocketAddr> {
        if let Some(fixed) = &self.fixed {
            return fixed.clone();
        }
        let changed = std::fs::metadata(RESOLV_CONF).and_then(|file| file.modified()).ok();
        let mut read = self.read.lock();
        if read.0 != changed || changed.is_none() {
            *read = (changed, name_servers(&std::fs::read_to_string(RESOLV_CONF).unwrap_or_default()));
        }
        read.1.clone()
    }

    /// The first answer of the servers in their order; of a server that answers nothing the next one is asked.
    pub(super) async fn ask(
        &self,
        (asker, network): (&SandboxId, Option<&NetworkId>),
        own: Vec<SocketAddr>,
        question: &[u8],
        over_tcp: bool,
    ) -> Option<Vec<u8>> {
        let _place = self.room.wait_for_place(asker, network).await?;
        for server in if own.is_empty() { self.servers() } else { own } {
            let asked =
                async { if over_tcp { ask_tcp(server, question).await } else { ask_udp(server, question).await } };
            match tokio::time::timeout(UPSTREAM_TIMEOUT, asked).await {
                Ok(Ok(answer)) => return Some(answer),
                Ok(Err(error)) => tracing::debug!(%server, %error, "upstream DNS server failed"),
                Err(_) => tracing::debug!(%server, "upstream DNS server did not answer in time"),
            }
        }
        None
    }
}

/// The servers a resolv.conf names, or the local one if it names none. Source: resolv.conf(5).
pub(super) fn name_servers(text: &str) -> Vec<SocketAddr> {
    let named = text.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        // A scope (`fe80::1%eth0`) would need an interface index: such servers are left out.
        (words.next() == Some("nameserver")).then(|| words.next()?.parse::<IpAddr>().ok()).flatten()
    });
    let servers: Vec<_> = named.map(|address| SocketAddr::new(address, 53)).collect();
    if servers.is_empty() { vec![(Ipv4Addr::LOCALHOST, 53).into()] } else { servers }
}

/// The servers of this machine's resolv.conf.
pub(crate) fn system_servers() -> Vec<SocketAddr> {
    name_servers(&std::fs::read_to_string(RESOLV_CONF).unwrap_or_default())
}

async fn ask_udp(server: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    let any = if server.is_ipv4() { IpAddr::from([0; 4]) } else { IpAddr::from([0; 16]) };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(question).await?;
    let mut answer = vec![0; UPSTREAM_ANSWER];
    loop {
        let count = socket.recv(&mut answer).await?;
        if count >= 12 && answer.get(..2) == question.get(..2) {
            if count == UPSTREAM_ANSWER {
                // The rest is lost: its head says that it is cut short, with no records behind it.
                return cut_short(question);
            }
            answer.truncate(count);
            return Ok(answer);
        }
    }
}

async fn ask_tcp(server: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    write_message(&mut stream, question).await?;
    read_message(&mut stream).await
}

//! The DNS that workloads ask: names of their own networks are answered here, everything else is passed on.
//!
//! Who asks is known by the namespace in which he asks; at a gateway by the source address, which the rules hold to the
//! port of the bridge that it belongs to. Strangers get no answer at all. Each network's gateway, and each sandbox with
//! names to find, has one UDP and one TCP socket. Work is bounded, for each asker and for all: what exceeds it is dropped,
//! and asked again by the resolver.
//!
//! At the gateway of an internal network nobody is led outside, whoever he is: one who is on another network too asks
//! inside his namespace.

mod directory;
mod message;
mod room;
mod upstream;

pub(crate) use upstream::system_servers;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bireme_core::SandboxId;
use directory::{Asker, Decision, Directory};
use hickory_proto::op::{Message, ResponseCode};
use message::{read_message, reply, write_message};
use room::{AT_ONCE, CONNECTIONS, CONNECTIONS_OF_ALL, Room};
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::JoinSet;
use upstream::Upstream;

/// A TCP connection whose client does not say a whole question in this time, or does not take the answer, is closed.
const IDLE: Duration = Duration::from_secs(5);

/// What all sockets of the DNS share.
pub(crate) struct Service {
    pub(crate) directory: Directory,
    upstream: Upstream,
    connections: Arc<Room>,
}

impl Service {
    /// `files`: how many descriptors this process may have.
    pub(crate) fn new(upstream: Option<Vec<SocketAddr>>, files: u64) -> Self {
        let connections = Room::new(CONNECTIONS_OF_ALL.with(files));
        Self { directory: Directory::default(), upstream: Upstream::new(upstream, files), connections }
    }

    /// Serves one gateway, or the workloads of one sandbox, until the answer is dropped.
    pub(crate) fn serve(
        self: &Arc<Self>,
        runtime: &tokio::runtime::Handle,
        udp: std::net::UdpSocket,
        tcp: std::net::TcpListener,
        sandbox: Option<&SandboxId>,
    ) -> io::Result<JoinSet<()>> {
        let _inside = runtime.enter();
        udp.set_nonblocking(true)?;
        tcp.set_nonblocking(true)?;
        let (udp, tcp) = (Arc::new(UdpSocket::from_std(udp)?), TcpListener::from_std(tcp)?);
        let inside = sandbox.map(|sandbox| Asker { sandbox: sandbox.clone(), over: None });
        let mut tasks = JoinSet::new();
        tasks.spawn_on(Arc::clone(self).serve_udp(udp, inside.clone()), runtime);
        tasks.spawn_on(Arc::clone(self).serve_tcp(tcp, inside), runtime);
        Ok(tasks)
    }

    async fn serve_udp(self: Arc<Self>, socket: Arc<UdpSocket>, inside: Option<Asker>) {
        let room = Room::new(AT_ONCE);
        let mut tasks = JoinSet::new();
        let mut buffer = vec![0; 4096];
        loop {
            while tasks.try_join_next().is_some() {}
            let Ok((count, client)) = socket.recv_from(&mut buffer).await else {
                // An ICMP error of an earlier answer; nothing is wrong with the socket.
                tokio::task::yield_now().await;
                continue;
            };
            // The cheap checks come before anything is spent on the sender.
            let Some(asker) = inside.clone().or_else(|| self.directory.client(client.ip())) else { continue };
            let Some(place) = room.place(&asker.sandbox, None) else { continue };
            let (service, socket, question) = (Arc::clone(&self), Arc::clone(&socket), buffer[..count].to_vec());
            tasks.spawn(async move {
                let _place = place;
                if let Some(answer) = service.answer(&question, &asker, false).await {
                    let _ = socket.send_to(&answer, client).await;
                }
            });
        }
    }

    async fn serve_tcp(self: Arc<Self>, listener: TcpListener, inside: Option<Asker>) {
        let room = Room::new(CONNECTIONS);
        let mut tasks = JoinSet::new();
        loop {
            while tasks.try_join_next().is_some() {}
            let Ok((mut stream, client)) = listener.accept().await else {
                // Out of descriptors: wait for some connection to end rather than spin.
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            let Some(asker) = inside.clone().or_else(|| self.directory.client(client.ip())) else { continue };
            let Some(place) = room.place(&asker.sandbox, None) else { continue };
            let Some(of_all) = self.connections.place(&asker.sandbox, None) else { continue };
            let service = Arc::clone(&self);
            tasks.spawn(async move {
                let _places = (place, of_all);
                while let Ok(Ok(question)) = tokio::time::timeout(IDLE, read_message(&mut stream)).await {
                    let Some(answer) = service.answer(&question, &asker, true).await else { break };
                    // One that never reads holds no place for good.
                    let written = tokio::time::timeout(IDLE, write_message(&mut stream, &answer)).await;
                    if !matches!(written, Ok(Ok(()))) {
                        break;
                    }
                }
            });
        }
    }

    async fn answer(&self, question: &[u8], asker: &Asker, over_tcp: bool) -> Option<Vec<u8>> {
        match self.directory.decide(question, asker, (!over_tcp).then_some(512)) {
            Decision::Answer(answer) => Some(answer),
            Decision::Ignore => None,
            Decision::Forward(own, network) => {
                match self.upstream.ask((&asker.sandbox, network.as_ref()), own, question, over_tcp).await {
                    Some(answer) => Some(answer),
                    None => reply(&Message::from_vec(question).ok()?, ResponseCode::ServFail, vec![], None),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;

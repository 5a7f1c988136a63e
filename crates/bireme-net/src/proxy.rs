//! Published ports that a socket of ours passes on, because no rule can: from IPv6 to an IPv4 workload, and from `::1`.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::runtime::Handle;
use tokio::task::JoinSet;

/// Connections passed on at once for one port.
const CONNECTIONS: usize = 1024;
/// Clients of one UDP port that are remembered at once; a further one is not answered until another is forgotten.
const CLIENTS: usize = 1024;
/// A client of a UDP port is forgotten after so long a silence, as by Docker's proxy.
const SILENCE: Duration = Duration::from_secs(90);
const LARGEST: usize = 65_535;

/// A port being passed on; it ends when dropped.
pub(crate) struct Passing(JoinSet<()>);

impl Passing {
    /// Ends it; the port is free when this returns.
    pub(crate) async fn end(mut self) {
        self.0.shutdown().await;
    }
}

/// Passes on what connects to `listener`.
pub(crate) fn tcp(runtime: &Handle, listener: std::net::TcpListener, target: SocketAddr) -> io::Result<Passing> {
    let _inside = runtime.enter();
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let serve = async move {
        let mut connections = JoinSet::new();
        loop {
            while connections.try_join_next().is_some() {}
            if connections.len() >= CONNECTIONS {
                connections.join_next().await;
            }
            let Ok((mut client, _)) = listener.accept().await else {
                // Out of descriptors: wait for some connection to end rather than spin.
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            connections.spawn(async move {
                if let Ok(mut workload) = TcpStream::connect(target).await {
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut workload).await;
                }
            });
        }
    };
    let mut tasks = JoinSet::new();
    tasks.spawn_on(serve, runtime);
    Ok(Passing(tasks))
}

/// Passes on what is sent to `socket`, and the answers back to whom they are for.
pub(crate) fn udp(runtime: &Handle, socket: std::net::UdpSocket, target: SocketAddr) -> io::Result<Passing> {
    let _inside = runtime.enter();
    socket.set_nonblocking(true)?;
    let socket = Arc::new(UdpSocket::from_std(socket)?);
    let serve = async move {
        let mut clients: HashMap<SocketAddr, Arc<UdpSocket>> = HashMap::new();
        // Each ends with the client that is forgotten.
        let mut answering: JoinSet<SocketAddr> = JoinSet::new();
        let mut buffer = vec![0; LARGEST];
        loop {
            while let Some(Ok(silent)) = answering.try_join_next() {
                clients.remove(&silent);
            }
            let Ok((count, client)) = socket.recv_from(&mut buffer).await else {
                // An ICMP error of an earlier answer; nothing is wrong with the socket.
                tokio::task::yield_now().await;
                continue;
            };
            if !clients.contains_key(&client) && clients.len() < CLIENTS {
                let Ok(workload) = towards(target).await else { continue };
                let workload = Arc::new(workload);
                clients.insert(client, Arc::clone(&workload));
                answering.spawn(answer(Arc::clone(&socket), workload, client));
            }
            if let Some(workload) = clients.get(&client) {
                let _ = workload.send(&buffer[..count]).await;
            }
        }
    };
    let mut tasks = JoinSet::new();
    tasks.spawn_on(serve, runtime);
    Ok(Passing(tasks))
}

async fn towards(target: SocketAddr) -> io::Result<UdpSocket> {
    let any = if target.is_ipv4() { IpAddr::from([0; 4]) } else { IpAddr::from([0; 16]) };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(target).await?;
    Ok(socket)
}

/// Passes answers of the workload on to `client` until there are none for long.
async fn answer(socket: Arc<UdpSocket>, workload: Arc<UdpSocket>, client: SocketAddr) -> SocketAddr {
    while let Ok(Ok(())) = tokio::time::timeout(SILENCE, workload.readable()).await {
        // Not kept while nothing comes: there may be many clients.
        let mut buffer = vec![0; LARGEST];
        match workload.try_recv(&mut buffer) {
            Ok(count) => {
                let _ = socket.send_to(&buffer[..count], client).await;
            }
            // Nobody listens there yet, or nothing was there after all.
            Err(_) => tokio::task::yield_now().await,
        }
    }
    client
}
